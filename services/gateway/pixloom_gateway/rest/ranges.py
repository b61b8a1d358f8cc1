"""The Range header (RFC 9110, section 14): one range of bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from pixloom.errors import RangeError

__all__ = ["ByteRange", "parse_range"]

_ONE_RANGE: Final = re.compile(r"bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})\s*", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Some of the bytes.

    Attributes:
        start: Index of the first one.
        length: Their number, at least 1.
    """

    start: int
    length: int

    def content_range(self, size_bytes: int) -> str:
        """Return the Content-Range header."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{size_bytes}"


def parse_range(header: str | None, *, size_bytes: int) -> ByteRange | None:
    """Return the bytes asked for, or None for all of them.

    Several ranges, another unit and malformed ones are ignored, as the standard allows.

    Raises:
        RangeError: If the range lies outside.
    """
    found = _ONE_RANGE.fullmatch(header.strip()) if header is not None else None
    if found is None:
        return None
    first, last = found.groups()
    if not first and not last:
        return None
    if not first:
        length = min(int(last), size_bytes)
        start = size_bytes - length
    else:
        start = int(first)
        end = min(int(last), size_bytes - 1) if last else size_bytes - 1
        if last and int(last) < start:
            return None
        length = end - start + 1
    if length <= 0:
        raise RangeError(
            f"The range {header!r} lies outside the {size_bytes} bytes of the artifact.",
            metadata={"size_bytes": str(size_bytes)},
        )
    return ByteRange(start, length)
