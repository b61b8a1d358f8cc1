"""Conditional requests (RFC 9110, section 13) on digests."""

from __future__ import annotations

import re
from typing import Final

from pixloom.errors import InvalidError

__all__ = ["if_match", "is_listed"]

_TAG: Final = re.compile(r'(?:W/)?"([^"]*)"')


def is_listed(header: str | None, digest: str) -> bool:
    """Return whether an If-None-Match header names a digest, `*` included; weak tags count."""
    if header is None:
        return False
    return header.strip() == "*" or digest in _TAG.findall(header)


def if_match(header: str | None) -> str:
    """Return the digest an If-Match header asks for; empty for none or `*`.

    Raises:
        InvalidError: If it names several or is malformed.
    """
    if header is None or header.strip() in {"", "*"}:
        return ""
    found = re.fullmatch(r'"([^"]*)"', header.strip())
    if found is None:
        raise InvalidError(f'If-Match {header[:100]!r} is not valid: give one ETag in quotes, such as "3f5a…", or *.')
    return found.group(1)
