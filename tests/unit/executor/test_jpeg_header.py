from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
import pyvips
from hypothesis import given, settings
from hypothesis import strategies as st

from pixloom.sdk.op import Reject
from pixloom_executor.jpeg_header import JpegHeader, read_jpeg_header
from pixloom_executor.probe import DEFAULT_LIMITS, probe


def picture(bands: int = 3, width: int = 40, height: int = 30) -> pyvips.Image:
    pixels = np.random.default_rng(1).integers(0, 255, (height, width, bands), np.uint8)
    return pyvips.Image.new_from_array(pixels, interpretation="b-w" if bands == 1 else "srgb")


def with_profile(vips: pyvips.Image) -> pyvips.Image:
    return vips.icc_import(input_profile="srgb").icc_export(output_profile="srgb")


def tagged(vips: pyvips.Image, orientation: int) -> pyvips.Image:
    copy = vips.copy()
    copy.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    return copy


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def exif(entries: list[tuple[int, int, int, int]], *, order: str = "<", at: int = 8) -> bytes:
    """Return an Exif segment with a directory of tags, kinds, counts and short values."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", at)
    body = b"".join(struct.pack(f"{order}HHIHxx", *entry) for entry in entries)
    return segment(0xE1, b"Exif\0\0" + head + struct.pack(f"{order}H", len(entries)) + body + bytes(4))


def bare(vips: pyvips.Image) -> bytes:
    """Return a JPEG without metadata."""
    data: bytes = vips.write_to_buffer(".jpg", keep="none")
    return data


def with_segments(*segments: bytes) -> bytes:
    data = bare(picture())
    return data[:2] + b"".join(segments) + data[2:]


def as_libvips_reads_it(data: bytes) -> JpegHeader:
    image = pyvips.Image.jpegload_buffer(data)
    return JpegHeader(
        width=image.width,
        height=image.height,
        orientation=image.get("orientation") if image.get_typeof("orientation") else 1,
        profile=image.get("icc-profile-data") if image.get_typeof("icc-profile-data") else None,
    )


_SAMPLE = tagged(picture(), 6).write_to_buffer(".jpg")
_HEADER_BYTES = _SAMPLE.rindex(b"\xff\xda\x00\x0c") + 14


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("options", [{}, {"interlace": True}, {"subsample_mode": "off"}, {"restart_interval": 2}])
def test_ordinary_files_are_read_as_libvips_reads_them(orientation: int, bands: int, options: Any) -> None:
    vips = picture(bands)
    data = tagged(with_profile(vips) if bands == 3 else vips, orientation).write_to_buffer(".jpg", **options)
    assert read_jpeg_header(data) == as_libvips_reads_it(data)
    assert as_libvips_reads_it(data).orientation == orientation


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_the_orientation_is_found_in_either_byte_order(order: str, orientation: int) -> None:
    data = with_segments(exif([(0x0112, 3, 1, orientation)], order=order))
    assert read_jpeg_header(data) == as_libvips_reads_it(data) == JpegHeader(40, 30, orientation, None)


def test_a_file_without_metadata_is_upright_and_has_no_profile() -> None:
    assert read_jpeg_header(bare(picture())) == JpegHeader(40, 30, 1, None)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8\xff",
        with_segments(exif([(0x0112, 3, 1, 9)])),
        with_segments(exif([(0x0112, 3, 1, 0)])),
        with_segments(exif([(0x0112, 4, 1, 6)])),
        with_segments(exif([(0x0112, 3, 2, 6)])),
        with_segments(exif([(0x0112, 3, 1, 6), (0x0112, 3, 1, 3)])),
        with_segments(exif([(0x0112, 3, 1, 6)], at=4)),
        with_segments(exif([(0x0112, 3, 1, 6)], at=4000)),
        with_segments(exif([(0x0112, 3, 1, 6)]), exif([(0x0112, 3, 1, 3)])),
        with_segments(segment(0xE1, b"Exif\0\0nonsense")),
        with_segments(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")),
        with_segments(segment(0xE2, b"ICC_PROFILE\0\x01\x02" + bytes(100))),
        with_segments(segment(0xE2, b"ICC_PROFILE\0\x01\x01")),
        with_segments(segment(0xE2, b"MPF\0" + bytes(20))),
        with_segments(segment(0xEE, b"Adobe" + bytes(7))),
        picture(3).colourspace("cmyk").write_to_buffer(".jpg"),
        bare(picture()).replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),
        bare(picture()).replace(b"\x03\x01\x22\x00", b"\x03\x01\x29\x00"),
    ],
)
def test_what_is_unusual_is_left_to_libvips(data: bytes) -> None:
    assert read_jpeg_header(data) is None


def test_a_file_cut_before_its_scan_is_left_to_libvips() -> None:
    data = tagged(with_profile(picture()), 6).write_to_buffer(".jpg")
    scan = data.rindex(b"\xff\xda\x00\x0c") + 14
    assert [length for length in range(scan) if read_jpeg_header(data[:length]) is not None] == []
    assert read_jpeg_header(data[:scan]) is not None


@given(damage=st.dictionaries(st.integers(3, _HEADER_BYTES - 1), st.integers(0, 255), min_size=1, max_size=3))
@settings(deadline=None, max_examples=300)
def test_whatever_is_damaged_what_is_read_is_what_libvips_reads(damage: dict[int, int]) -> None:
    data = bytearray(_SAMPLE)
    for place, value in damage.items():
        data[place] = value
    header = read_jpeg_header(bytes(data))
    if header is None:
        return  # libvips is asked
    try:
        expected = as_libvips_reads_it(bytes(data))
    except pyvips.Error:
        with pytest.raises(Reject):
            probe(bytes(data))
        return
    assert header == expected
    if header.width * header.height > DEFAULT_LIMITS.max_pixels:
        with pytest.raises(Reject, match="at most"):
            probe(bytes(data))
        return
    found = probe(bytes(data))
    assert (found.width, found.height, found.orientation, found.icc) == (
        expected.width,
        expected.height,
        expected.orientation,
        expected.profile is not None,
    )
