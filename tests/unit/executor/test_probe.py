from __future__ import annotations

import struct
import zlib
from typing import Any

import pytest
import pyvips

from pixloom.sdk.op import Reject
from pixloom_executor.probe import Limits, detect_format, probe


def picture(width: int = 40, height: int = 30, bands: int = 3) -> pyvips.Image:
    return (
        pyvips.Image.gaussnoise(width, height, mean=128, sigma=40, seed=1)
        .cast("uchar")
        .bandjoin([pyvips.Image.gaussnoise(width, height, mean=90, sigma=20, seed=2).cast("uchar")] * (bands - 1))
        .copy(interpretation="srgb")
    )


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def gif_claiming(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + b"\x3b"


def jpeg_claiming(width: int, height: int) -> bytes:
    frame = struct.pack(">HBHHB", 17, 8, height, width, 3) + bytes(9)
    return b"\xff\xd8\xff\xe0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0\xff\xc0" + frame + b"\xff\xd9"


def webp_claiming(width: int, height: int) -> bytes:
    body = (
        b"VP8X"
        + struct.pack("<I", 10)
        + bytes(4)
        + struct.pack("<I", width - 1)[:3]
        + struct.pack("<I", height - 1)[:3]
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


@pytest.mark.parametrize(
    ("suffix", "found", "options"),
    [
        (".jpg", "jpeg", {}),
        (".png", "png", {}),
        (".webp", "webp", {}),
        (".webp", "webp", {"lossless": True}),
        (".gif", "gif", {}),
        (".tif", "tiff", {}),
        (".avif", "heif", {"compression": "av1"}),
    ],
)
def test_every_accepted_format_is_told_by_its_bytes(suffix: Any, found: Any, options: Any) -> None:
    header = probe(picture().write_to_buffer(suffix, **options))
    assert (header.format, header.width, header.height, header.pages) == (found, 40, 30, 1)


def test_alpha_profile_and_orientation_are_read() -> None:
    vips = picture(bands=4).icc_import(input_profile="srgb").icc_export(output_profile="srgb").copy()
    vips.set_type(pyvips.GValue.gint_type, "orientation", 8)
    header = probe(vips.write_to_buffer(".tif"))
    assert (header.has_alpha, header.icc, header.orientation) == (True, True, 8)


def test_frames_are_counted() -> None:
    frames = pyvips.Image.arrayjoin([picture(), picture(), picture()], across=1).copy()
    frames.set_type(pyvips.GValue.gint_type, "page-height", 30)
    data = frames.write_to_buffer(".webp", lossless=True)
    assert probe(data).pages in (1, 3)  # equal frames may be merged
    with pytest.raises(Reject) as caught:
        probe(data, Limits(max_frames=0))
    assert caught.value.reason == "TOO_MANY_FRAMES"


@pytest.mark.parametrize(
    "bomb",
    [
        png_claiming(1_000_000_000, 1),
        png_claiming(100_000, 100_000),
        png_claiming(0xFFFFFFFF, 0xFFFFFFFF),
        gif_claiming(65_535, 65_535),
        jpeg_claiming(65_500, 65_500),
        webp_claiming(16_000_000, 16_000_000),
    ],
    ids=["png-row", "png", "png-largest", "gif", "jpeg", "webp"],
)
def test_a_header_that_claims_too_many_pixels_is_refused_before_anything_is_decoded(bomb: Any) -> None:
    with pytest.raises(Reject) as caught:
        probe(bomb)
    assert caught.value.reason == "TOO_MANY_PIXELS"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "EMPTY_FILE"),
        (b"hello, this is text and not a photograph", "NOT_AN_IMAGE"),
        (bytes(1000), "NOT_AN_IMAGE"),
        (b"BM" + bytes(100), "UNSUPPORTED_FORMAT"),
        (b"%PDF-1.7 ...", "UNSUPPORTED_FORMAT"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "UNSUPPORTED_FORMAT"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50), "UNSUPPORTED_FORMAT"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42" + bytes(50), "UNSUPPORTED_FORMAT"),
        (b"\x89PNG\r\n\x1a\n", "TRUNCATED"),
        (b"\xff\xd8\xff", "TRUNCATED"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "TRUNCATED"),
        (b"\xff\xd8\xff\xd9", "DECODE_ERROR"),
        (b"GIF89a\x01", "TRUNCATED"),
        (gif_claiming(0, 0), "NOT_AN_IMAGE"),
        (png_claiming(0, 5), "NOT_AN_IMAGE"),
    ],
)
def test_what_is_no_image_is_refused_with_its_reason(data: Any, reason: Any) -> None:
    with pytest.raises(Reject) as caught:
        probe(data)
    assert caught.value.reason == reason


def test_a_file_that_is_too_long_is_refused() -> None:
    with pytest.raises(Reject) as caught:
        probe(picture().write_to_buffer(".png"), Limits(max_bytes=100))
    assert caught.value.reason == "TOO_MANY_BYTES"


def refusal(data: bytes) -> str:
    try:
        probe(data)
    except Reject as reject:
        return reject.reason
    return ""


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".gif", ".tif", ".avif"])
def test_a_header_cut_anywhere_is_refused_or_read_but_never_raises_anything_else(suffix: Any) -> None:
    data = picture().write_to_buffer(suffix)
    for length in range(min(len(data), 300)):
        reason = refusal(data[:length])
        assert reason in {"", "EMPTY_FILE", "NOT_AN_IMAGE", "TRUNCATED", "DECODE_ERROR", "UNSUPPORTED_FORMAT"}


def test_a_name_decides_nothing() -> None:
    assert detect_format(picture().write_to_buffer(".png")) == "png"
