"""Media types, told by the first bytes: the store keeps bytes only, so what they are is read from them."""

from __future__ import annotations

from typing import Final

__all__ = ["HTML", "JSON", "OCTET_STREAM", "PARQUET", "SNIFF_BYTES", "sniff_media_type"]

SNIFF_BYTES: Final = 256
JSON: Final = "application/json"
HTML: Final = "text/html"
PARQUET: Final = "application/vnd.apache.parquet"
OCTET_STREAM: Final = "application/octet-stream"

# Magic numbers: ITU-T T.81 (jpeg), RFC 2083 (png), GIF89a, TIFF 6.0 and BigTIFF, Apache Parquet.
_MAGIC: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"II+\x00", "image/tiff"),
    (b"MM\x00+", "image/tiff"),
    (b"PAR1", PARQUET),
)


def sniff_media_type(head: bytes) -> str:
    """Tell the media type from the first bytes.

    Args:
        head: The first `SNIFF_BYTES` bytes, or all if there are fewer.

    Returns:
        A media type; application/octet-stream if none of the known ones fits.
    """
    for magic, media_type in _MAGIC:
        if head.startswith(magic):
            return media_type
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    # ISO/IEC 14496-12 box: the major brand tells AVIF.
    if head[4:8] == b"ftyp" and head[8:12] in {b"avif", b"avis"}:
        return "image/avif"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
    lowered = text[:16].lower()
    if lowered.startswith((b"<!doctype html", b"<html")):
        return HTML
    if text[:1] in {b"{", b"["}:
        return JSON
    return OCTET_STREAM
