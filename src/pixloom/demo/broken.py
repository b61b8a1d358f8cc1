"""Files that look like photographs and are none."""

from __future__ import annotations

import struct
import zlib
from typing import Final

__all__ = ["jpeg_bomb", "png_bomb", "text_as_jpeg", "truncated"]

_BOMB_SIDE_PX: Final = 31_623
"""Its square is just above 10⁹ pixels: 3 GB decoded to RGB."""


def png_bomb() -> bytes:
    """Return a PNG of a few hundred bytes whose header claims 10⁹ pixels (PNG specification, third edition)."""
    header = struct.pack(">IIBBBBB", _BOMB_SIDE_PX, _BOMB_SIDE_PX, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 4096, 9)
    return b"\x89PNG\r\n\x1a\n" + _png_chunk(b"IHDR", header) + _png_chunk(b"IDAT", pixels) + _png_chunk(b"IEND", b"")


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def jpeg_bomb(photo: bytes) -> bytes:
    """Return a JPEG with its size in the frame header replaced by 10⁹ pixels (ITU-T T.81, B.2.2).

    Args:
        photo: A baseline or progressive JPEG.

    Raises:
        ValueError: If there is no frame header in it.
    """
    position = 2
    while position + 9 <= len(photo):
        marker, length = struct.unpack(">HH", photo[position : position + 4])
        if marker in {0xFFC0, 0xFFC1, 0xFFC2}:
            size = struct.pack(">HH", _BOMB_SIDE_PX, _BOMB_SIDE_PX)
            return photo[: position + 5] + size + photo[position + 9 : position + 2 + length + 1024]
        position += 2 + length
    raise ValueError("This JPEG has no frame header.")


def truncated(photo: bytes, share: float) -> bytes:
    """Return the first part of a file.

    Args:
        photo: The file.
        share: Part to keep, between 0 and 1.
    """
    return photo[: max(1, int(len(photo) * share))]


def text_as_jpeg(number: int) -> bytes:
    """Return a text that somebody named .jpg."""
    return f"Shopping list {number}\n- film\n- batteries\n- a bigger memory card\n".encode()
