from __future__ import annotations

from typing import Any

import pytest

from pixloom.sdk.encoding import decode_file
from pixloom.sdk.image import Image
from pixloom.sdk.outcome import Filtered, Reject
from pixloom_executor.ops.check import decode, size
from tests.unit.ops.photos import PHOTOGRAPHS, image, large, pixels, reopened, with_orientation, written


def _cut(suffix: str, share: float) -> Image:
    data = written(large("coffee.png", 900, 600), suffix)
    record = Image.from_bytes(data).record
    kept = data[: int(len(data) * share)]
    return Image(record, load=lambda: decode_file(kept), source_bytes=kept)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize("level", ["header", "full"])
def test_good_photographs_pass_with_their_bytes(name: str, level: Any) -> None:
    file = image(name)
    assert decode(file, level=level) is file


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".gif", ".tif"])
@pytest.mark.parametrize("fail_on", ["truncated", "error", "warning"])
def test_truncated_files_are_rejected(suffix: str, fail_on: Any) -> None:
    with pytest.raises(Reject) as caught:
        decode(_cut(suffix, 0.6), fail_on=fail_on)
    assert caught.value.reason in ("TRUNCATED", "DECODE_ERROR")


def test_truncated_jpeg_says_so() -> None:
    with pytest.raises(Reject, match="TRUNCATED"):
        decode(_cut(".jpg", 0.6))


def test_fail_on_none_lets_a_truncated_jpeg_pass() -> None:
    damaged = _cut(".jpg", 0.6)
    assert decode(damaged, fail_on="none") is damaged


def test_header_level_does_not_look_at_pixels() -> None:
    damaged = _cut(".jpg", 0.6)
    assert decode(damaged, level="header") is damaged


@pytest.mark.parametrize("data", [b"", b"this is no picture", b"\xff\xd8\xff"])
@pytest.mark.parametrize("level", ["header", "full"])
def test_files_that_are_no_images_are_rejected(data: Any, level: Any) -> None:
    record = image("coffee.png").record
    with pytest.raises(Reject) as caught:
        decode(Image(record, load=lambda: decode_file(data), source_bytes=data), level=level)
    assert caught.value.reason in ("TRUNCATED", "DECODE_ERROR")


def test_cmyk_jpeg_passes() -> None:
    file = reopened(pixels("coffee.png").icc_transform("cmyk", input_profile="srgb"), ".jpg")
    assert decode(file) is file


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"min_width": 601}, "TOO_NARROW"),
        ({"min_height": 401}, "TOO_LOW"),
        ({"max_pixels": 239_999}, "TOO_MANY_PIXELS"),
        ({"min_bytes": 10_000_000}, "FILE_TOO_SMALL"),
        ({"max_bytes": 1000}, "FILE_TOO_LARGE"),
    ],
)
def test_size_filters_with_reason_and_figures(params: Any, reason: str) -> None:
    with pytest.raises(Filtered) as caught:
        size(image("coffee.png"), **params)
    assert caught.value.reason == reason
    assert str(next(iter(params.values()))) in caught.value.detail


def test_size_at_the_limit_passes() -> None:
    file = image("coffee.png")
    length = file.record.size_bytes
    limits = {"min_width": 600, "min_height": 400, "max_pixels": 240_000, "min_bytes": length, "max_bytes": length}
    assert size(file, **limits) is file


def test_size_means_the_upright_picture() -> None:
    turned = reopened(with_orientation(pixels("coffee.png"), 6), ".jpg")
    assert turned.record.width == 400
    assert size(turned, min_width=600) is turned


def test_size_does_not_decode() -> None:
    record = image("coffee.png").record

    def load() -> object:
        raise AssertionError("decoded")

    undecoded = Image(record, load=load, source_bytes=b"x")
    assert size(undecoded, min_width=10) is undecoded
