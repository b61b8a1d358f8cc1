"""The header of a JPEG as nearly all cameras and programs write it, read without libvips.

Setting up a loader of libvips costs more than everything it tells: 0.2 ms of the 10 ms that a thumbnail takes. What
is unusual in any way is left to it: the functions here answer None rather than guess, and for what they do answer
libvips says the same, which a test shows over files of many kinds.

Layout: ITU-T T.81 annex B (segments), Exif 3.0 (CIPA DC-008-2023, TIFF structure in APP1), ICC.1:2022 annex B.4 (APP2).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

__all__ = ["JpegHeader", "read_jpeg_header"]

_SEGMENT: Final = struct.Struct(">BBH")
_FRAME: Final = struct.Struct(">BHHB")
_SOI: Final = b"\xff\xd8\xff"
_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive; all with Huffman codes
_SKIPPED: Final = frozenset({0xC4, 0xDB, 0xDD, 0xE0, 0xFE})  # tables, restart interval, JFIF, comment
_START_OF_SCAN: Final = 0xDA
_EXIF: Final = b"Exif\0\0"
_ICC: Final = b"ICC_PROFILE\0"
_ONLY_CHUNK: Final = b"\x01\x01"
_ICC_HEAD: Final = len(_ICC) + len(_ONLY_CHUNK)
_ORIENTATION: Final = 0x0112
_SHORT: Final = 3
_IFD_ENTRY_BYTES: Final = 12
_SAMPLING: Final = frozenset(across << 4 | down for across in range(1, 5) for down in range(1, 5))


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """What the segments before the first scan say.

    Attributes:
        width: Width in pixels as stored, at least 1.
        height: Height in pixels as stored, at least 1.
        orientation: EXIF orientation 1 to 8; 1 if the file gives none.
        profile: The embedded ICC profile; None if there is none.
    """

    width: int
    height: int
    orientation: int
    profile: bytes | None


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """Return the header of an 8-bit grey or three-channel JPEG; None if anything in it is unusual or damaged."""
    if data[:3] != _SOI:
        return None
    place, size = 2, None
    exif, profile = None, None
    try:
        while True:
            fill, marker, length = _SEGMENT.unpack_from(data, place)
            if fill != 0xFF or length < 2:
                return None
            if marker == _START_OF_SCAN:
                if place + 2 + length > len(data):
                    return None
                break
            begin, place = place + 4, place + 2 + length
            if marker in _SKIPPED:
                continue
            if marker in _FRAMES and size is None:
                depth, height, width, channels = _FRAME.unpack_from(data, begin)
                if depth != 8 or channels not in (1, 3) or length != 8 + 3 * channels:
                    return None
                if not _SAMPLING.issuperset(data[begin + 7 : place : 3]):
                    return None
                size = (width, height)
            elif marker == 0xE1 and exif is None and data.startswith(_EXIF, begin):
                exif = data[begin + len(_EXIF) : place]
            elif marker == 0xE2 and profile is None and data.startswith(_ICC + _ONLY_CHUNK, begin):
                profile = data[begin + _ICC_HEAD : place]
            else:
                return None
        orientation = 1 if exif is None else _orientation(exif)
    except struct.error:
        return None
    if size is None or not all(size) or orientation is None or profile == b"":
        return None
    return JpegHeader(*size, orientation, profile)


def _orientation(exif: bytes) -> int | None:
    """Return the orientation in the first directory of an Exif block; 1 without the tag, None if it is unusual."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return None
    (place,) = struct.unpack_from(f"{order}I", exif, 4)
    (count,) = struct.unpack_from(f"{order}H", exif, place)
    place += 2
    if place < 10 or place + count * _IFD_ENTRY_BYTES > len(exif):
        return None
    found = None
    for tag, kind, values, value in struct.iter_unpack(
        f"{order}HHIH2x", exif[place : place + count * _IFD_ENTRY_BYTES]
    ):
        if tag == _ORIENTATION:
            if found is not None or kind != _SHORT or values != 1 or not 1 <= value <= 8:
                return None
            found = value
    return 1 if found is None else found
