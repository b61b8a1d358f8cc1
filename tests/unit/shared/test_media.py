from __future__ import annotations

import pytest

from pixloom.artifacts.media import sniff_media_type


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "image/png"),
        (b"GIF89a\x01\x00", "image/gif"),
        (b"II*\x00\x08", "image/tiff"),
        (b"MM\x00*\x00", "image/tiff"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x10\x00\x00\x00WAVEfmt ", "application/octet-stream"),
        (b"\x00\x00\x00\x20ftypavif\x00", "image/avif"),
        (b"\x00\x00\x00\x20ftypisom\x00", "application/octet-stream"),
        (b"PAR1\x15", "application/vnd.apache.parquet"),
        (b'  {"a": 1}', "application/json"),
        (b"[1, 2]", "application/json"),
        (b"\xef\xbb\xbf\n<!DOCTYPE HTML><html>", "text/html"),
        (b"<html lang='en'>", "text/html"),
        (b"", "application/octet-stream"),
        (b"hello", "application/octet-stream"),
    ],
)
def test_media_type_is_told_by_the_first_bytes(head: bytes, expected: str) -> None:
    assert sniff_media_type(head) == expected
