"""What a caller would like to have (RFC 7240): to wait for the end of a job before it is answered."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["preferred_wait_s"]

_MOST_WAIT_S: Final = 60
_WAIT: Final = re.compile(r"(?:^|,)\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?=$|[,;])", re.IGNORECASE | re.ASCII)


def preferred_wait_s(prefer: str | None) -> int:
    """Return for how many seconds a `Prefer` header asks to wait; 0 if for none. What is not understood is ignored."""
    found = _WAIT.search(prefer or "")
    return min(int(found[1]), _MOST_WAIT_S) if found else 0
