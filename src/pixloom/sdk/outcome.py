"""What an op raises to say what becomes of an item.

    Outcome
    ├── Reject      the item cannot be processed: REJECTED, kept for a replay
    ├── Filtered    the item is not wanted: FILTERED
    └── Retry       trying again later may help: the item is tried again, and rejected after the last attempt

Anything else that an item op raises rejects the item with the reason OP_ERROR (READ_ERROR for an `OSError`).

Reasons are counted for each node, kept with the job and retried by, so there must be few of them: a reason is one word
in capitals. What tells the items apart belongs into the detail. Beyond 1,000 different ones at a node of a job, further
ones are counted as OTHER, though the items keep them.
"""

from __future__ import annotations

import math
import re
from typing import Final

__all__ = ["Filtered", "Outcome", "Reject", "Retry", "counted_by"]


MAX_DELAY_S: Final = 7 * 86_400.0
"""Longest time that an item waits because its op says so, seconds."""

_WORD: Final = re.compile(r"[A-Z][A-Z0-9_]{0,127}")
_OTHER: Final = "OTHER"


def counted_by(reason: str, detail: str) -> tuple[str, str]:
    """Return reason and detail such that the reason is one word; any other text becomes part of the detail."""
    if _WORD.fullmatch(reason) is not None:
        return reason, detail
    return _OTHER, f"{reason}: {detail}" if reason and detail else reason or detail


class Outcome(Exception):  # noqa: N818 - these tell what becomes of an item and are no errors of the program
    """What becomes of the item an op is working on.

    Args:
        reason: Machine reason, upper snake case such as TOO_SMALL, at most 128 characters. Any other text becomes the
            beginning of the detail, and the reason is OTHER.
        detail: Sentence for people: what is wrong with the item, with the figures that decided.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        reason, detail = counted_by(reason, detail)
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Reject(Outcome):
    """The item cannot be processed; `on_error` decides what happens to it."""


class Filtered(Outcome):
    """The workflow does not want the item."""


class Retry(Outcome):
    """Trying the item again later may help.

    Args:
        reason: Machine reason.
        detail: Sentence for people.
        after_s: Not before so many seconds have passed, as a server may ask in `Retry-After`; None leaves it to the
            retry policy of the node. Less than 0 counts as 0, and more than a week as a week.

    Raises:
        TypeError: If `after_s` is no number.
        ValueError: If it is NaN.
    """

    def __init__(self, reason: str, detail: str = "", after_s: float | None = None) -> None:
        super().__init__(reason, detail)
        self.after_s = None if after_s is None else _delay(after_s)


def _delay(after_s: float) -> float:
    # Checked where the op can still be told: behind it the whole task would fail, with all its items.
    if isinstance(after_s, bool) or not isinstance(after_s, int | float):
        raise TypeError(f"after_s of Retry is {after_s!r}; give seconds as a number, such as float(...) of a header")
    if math.isnan(after_s):
        raise ValueError("after_s of Retry is NaN; give seconds as a number, or None")
    return min(max(float(after_s), 0.0), MAX_DELAY_S)
