"""What a file claims to be, read from its header before anything is decoded.

The format is decided by magic bytes, never by name, and only formats on the list below go on. The claimed size is
read by a few lines of our own for the formats where that is easy (PNG, GIF, JPEG, WebP), so that libvips never sees a
header that asks for too much; libvips then reads the header for what those lines do not tell. An ordinary JPEG needs no
libvips at all: libjpeg-turbo says whether its header can be decoded, and `jpeg_header` the rest. Magic numbers and
layouts: PNG (ISO/IEC 15948), GIF89a, JPEG (ITU-T T.81 annex B), WebP (RFC 9649), TIFF 6.0, ISOBMFF brands (ISO/IEC
23008-12).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pixloom.sdk.encoding import rejection_from
from pixloom.sdk.op import Reject
from pixloom_executor.jpeg_header import read_jpeg_header

if TYPE_CHECKING:
    from pixloom.sdk.op import Item

__all__ = ["DEFAULT_LIMITS", "Header", "Limits", "check_size_bytes", "detect_format", "fill_record", "probe"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What an image may claim.

    Attributes:
        max_pixels: Most pixels over all frames.
        max_bytes: Most bytes of the file.
        max_frames: Most pages or frames.
    """

    max_pixels: int = 100_000_000
    max_bytes: int = 256 * 1024 * 1024
    max_frames: int = 1_000


@dataclass(frozen=True, slots=True)
class Header:
    """What a header says.

    Attributes:
        format: jpeg, png, webp, gif, tiff or heif.
        width: Width of a frame in pixels as stored.
        height: Height of a frame in pixels as stored.
        pages: Number of pages or frames.
        orientation: EXIF orientation 1 to 8; 1 if the file gives none.
        has_alpha: Whether there is an alpha channel.
        icc: Whether an ICC profile is embedded.
    """

    format: str
    width: int
    height: int
    pages: int
    orientation: int
    has_alpha: bool
    icc: bool


DEFAULT_LIMITS: Final = Limits()

# Recognised in order to say what a file is instead of calling it no image.
_REFUSED: Final = (
    (b"BM", "BMP"),
    (b"8BPS", "Photoshop"),
    (b"%PDF-", "PDF"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"<svg", "SVG"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"qoif", "QOI"),
    (b"#?RADIANCE", "Radiance"),
    (b"SIMPLE  =", "FITS"),
)
_HEIF_BRANDS: Final = frozenset({b"avif", b"avis"})
_FRAMES_WITHOUT_SIZE: Final = frozenset({0xC4, 0xC8, 0xCC})  # DHT, JPG, DAC lie between the SOF markers


def detect_format(data: bytes) -> str:
    """Return the format that the first bytes tell.

    Raises:
        Reject: with EMPTY_FILE, NOT_AN_IMAGE or UNSUPPORTED_FORMAT.
    """
    if not data:
        raise Reject("EMPTY_FILE", "the file has no bytes")
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if data[4:8] == b"ftyp":
        return _heif(data)
    for magic, name in _REFUSED:
        if data.startswith(magic):
            raise Reject("UNSUPPORTED_FORMAT", f"{name} files are not accepted; use jpeg, png, webp, gif, tiff or avif")
    raise Reject("NOT_AN_IMAGE", "the first bytes are those of no image format")


def check_size_bytes(size_bytes: int, limits: Limits) -> None:
    """Refuse a file that is too large to be read.

    Raises:
        Reject: with EMPTY_FILE or TOO_MANY_BYTES.
    """
    if size_bytes == 0:
        raise Reject("EMPTY_FILE", "the file has no bytes")
    if size_bytes > limits.max_bytes:
        raise Reject("TOO_MANY_BYTES", f"the file has {size_bytes:,} bytes; at most {limits.max_bytes:,} are allowed")


def probe(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Header:
    """Read the header of a file without decoding pixels.

    Args:
        data: The whole file.
        limits: What it may claim.

    Returns:
        What the header says.

    Raises:
        Reject: with the reason, such as NOT_AN_IMAGE, TOO_MANY_PIXELS or TRUNCATED.
    """
    import pyvips

    check_size_bytes(len(data), limits)
    found = detect_format(data)
    ordinary = _ordinary_jpeg(data) if found == "jpeg" else None
    if ordinary is not None:
        _check_pixels(ordinary.width, ordinary.height, 1, limits)
        return ordinary
    claimed = _claimed_size(found, data)
    if claimed is not None:
        _check_pixels(*claimed, 1, limits)
    try:
        image = pyvips.Operation.call(f"{found}load_buffer", data)
    except pyvips.Error as error:
        raise rejection_from(error) from error
    pages = _number(image, "n-pages") or 1
    _check_pixels(image.width, image.height, pages, limits)
    return Header(
        format=found,
        width=image.width,
        height=image.height,
        pages=pages,
        orientation=_number(image, "orientation") or 1,
        has_alpha=bool(image.hasalpha()),
        icc=image.get_typeof("icc-profile-data") != 0,
    )


def _ordinary_jpeg(data: bytes) -> Header | None:
    import simplejpeg

    header = read_jpeg_header(data)
    if header is None:
        return None
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if (width, height) != (header.width, header.height):
        return None
    return Header(
        format="jpeg",
        width=width,
        height=height,
        pages=1,
        orientation=header.orientation,
        has_alpha=False,
        icc=header.profile is not None,
    )


def fill_record(record: Item, header: Header) -> None:
    """Write what a header says into the record of its item."""
    record.format = header.format
    record.width = header.width
    record.height = header.height
    record.pages = header.pages
    record.orientation = header.orientation
    record.has_alpha = header.has_alpha
    record.icc = header.icc


def _check_pixels(width: int, height: int, pages: int, limits: Limits) -> None:
    if pages > limits.max_frames:
        raise Reject("TOO_MANY_FRAMES", f"the file has {pages:,} frames; at most {limits.max_frames:,} are allowed")
    pixels = width * height * pages
    if pixels > limits.max_pixels:
        raise Reject(
            "TOO_MANY_PIXELS",
            f"the header claims {width:,} x {height:,} pixels in {pages:,} frames; "
            f"at most {limits.max_pixels:,} pixels are allowed",
        )
    if pixels == 0:
        raise Reject("NOT_AN_IMAGE", f"the header claims {width} x {height} pixels")


def _claimed_size(found: str, data: bytes) -> tuple[int, int] | None:
    match found:
        case "png":
            return _big(data, 16, 4), _big(data, 20, 4)
        case "gif":
            return _little(data, 6, 2), _little(data, 8, 2)
        case "jpeg":
            return _jpeg_size(data)
        case "webp":
            return _webp_size(data)
        case _:
            return None


def _jpeg_size(data: bytes) -> tuple[int, int]:
    place = 2
    while True:
        while _byte(data, place) == 0xFF and _byte(data, place + 1) == 0xFF:  # fill bytes before a marker
            place += 1
        marker = _byte(data, place + 1)
        if _byte(data, place) != 0xFF:
            raise Reject("DECODE_ERROR", f"there is no JPEG marker at byte {place}")
        if 0xC0 <= marker <= 0xCF and marker not in _FRAMES_WITHOUT_SIZE:
            return _big(data, place + 7, 2), _big(data, place + 5, 2)
        if marker in (0xD9, 0xDA):
            raise Reject("DECODE_ERROR", "the JPEG file has no frame header before its data")
        standalone = marker == 0x01 or 0xD0 <= marker <= 0xD8
        place += 2 if standalone else 2 + max(2, _big(data, place + 2, 2))


def _webp_size(data: bytes) -> tuple[int, int] | None:
    match data[12:16]:
        case b"VP8X":
            return _little(data, 24, 3) + 1, _little(data, 27, 3) + 1
        case b"VP8L":
            bits = _little(data, 21, 4)
            return (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
        case b"VP8 ":
            return _little(data, 26, 2) & 0x3FFF, _little(data, 28, 2) & 0x3FFF
        case _:
            return None


def _heif(data: bytes) -> str:
    size = _big(data, 0, 4)
    brands = {data[8:12], *(data[place : place + 4] for place in range(16, min(size, len(data), 4096) - 3, 4))}
    if brands & _HEIF_BRANDS:
        return "heif"
    name = data[8:12].decode("ascii", "replace")
    raise Reject("UNSUPPORTED_FORMAT", f"media files of brand {name!r} are not accepted; of this family only AVIF is")


def _byte(data: bytes, place: int) -> int:
    return _big(data, place, 1)


def _big(data: bytes, place: int, size: int) -> int:
    return int.from_bytes(_cut(data, place, size), "big")


def _little(data: bytes, place: int, size: int) -> int:
    return int.from_bytes(_cut(data, place, size), "little")


def _cut(data: bytes, place: int, size: int) -> bytes:
    part = data[place : place + size]
    if len(part) < size:
        raise Reject("TRUNCATED", f"the file ends after {len(data)} bytes, inside its header")
    return part


def _number(image: Any, name: str) -> int:
    return int(image.get(name)) if image.get_typeof(name) else 0
