from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import pyvips

from pixloom.sdk.encoding import decode_file
from pixloom.sdk.image import Image
from pixloom.sdk.outcome import Reject
from pixloom_executor.ops.image_thumbnail import scaled_size, thumbnail
from tests.unit.ops.photos import PHOTOGRAPHS, image, large, pixels, psnr, reopened, with_orientation, written


@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".png"])
def test_every_way_of_loading_looks_like_a_full_decode_reduced_by_lanczos(name: str, suffix: str) -> None:
    file = reopened(large(name, 1203, 905), suffix, Q=90)
    reference = file.vips.resize(256 / 1203, vscale=193 / 905).numpy()
    small = thumbnail(file, width=256)
    assert (small.vips.width, small.vips.height) == (256, 193)
    assert psnr(small.vips.numpy(), reference) >= 34


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".png", ".tif"])
def test_loading_reduced_gives_the_size_that_a_full_decode_gives(suffix: str) -> None:
    vips = large("coffee.png", 1021, 683)
    sizes = {
        (small.vips.width, small.vips.height)
        for small in (thumbnail(reopened(vips, suffix), width=177, height=300) for suffix in (suffix, ".png"))
    }
    assert sizes == {(177, 118)}


def test_same_bytes_give_same_pixels() -> None:
    data = written(large("chelsea.png", 1600, 1200), ".jpg", Q=90)
    first, second = (thumbnail(Image.from_bytes(data), width=256) for _ in range(2))
    assert np.array_equal(first.array(), second.array())


def test_pixels_decoded_before_do_not_change_the_result() -> None:
    file = reopened(large("chelsea.png", 1600, 1200), ".jpg", Q=90)
    before = thumbnail(file, width=256).array()
    assert file.vips.width == 1600
    assert np.array_equal(before, thumbnail(file, width=256).array())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_orientation_is_applied(orientation: int, suffix: str) -> None:
    upright = pixels("coffee.png")
    expected = thumbnail(reopened(upright, suffix, Q=95), width=150, height=150)
    turned = thumbnail(reopened(with_orientation(upright, orientation), suffix, Q=95), width=150, height=150)
    assert (turned.vips.width, turned.vips.height) == (150, 100)
    assert turned.record.orientation == 1
    assert psnr(turned.array(), expected.array()) > 30


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_no_rotate_keeps_the_tag_and_the_stored_axes(suffix: str) -> None:
    turned = reopened(with_orientation(pixels("coffee.png"), 6), suffix, Q=95)
    small = thumbnail(turned, width=150, height=150, no_rotate=True)
    assert (small.vips.width, small.vips.height, small.record.orientation) == (100, 150, 6)


@pytest.mark.parametrize("crop", ["centre", "entropy", "attention"])
@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".png"])
def test_crop_fills_the_box(crop: Any, suffix: str) -> None:
    small = thumbnail(reopened(pixels("chelsea.png"), suffix), width=90, height=120, crop=crop)
    assert (small.vips.width, small.vips.height) == (90, 120)


def test_down_never_enlarges_and_up_never_reduces() -> None:
    assert thumbnail(image("microaneurysms.png"), width=300, size="down").vips.width == 102
    assert thumbnail(image("microaneurysms.png"), width=50, size="up").vips.width == 102
    assert thumbnail(image("microaneurysms.png"), width=300).vips.width == 300
    forced = thumbnail(image("coffee.png"), width=300, height=50, size="force")
    assert (forced.vips.width, forced.vips.height) == (300, 50)


@cache
def _variants() -> dict[str, bytes]:
    photo = pixels("coffee.png")
    cmyk = photo.icc_transform("cmyk", input_profile="srgb")
    deep = photo.colourspace("rgb16")
    palette = written(photo, ".png", palette=True)
    both = photo.join(photo.invert(), "vertical").copy()
    both.set_type(pyvips.GValue.gint_type, "page-height", photo.height)
    return {
        "display-p3 jpeg": written(photo.icc_transform("p3", input_profile="srgb"), ".jpg", Q=95),
        "display-p3 webp": written(photo.icc_transform("p3", input_profile="srgb"), ".webp", Q=95),
        "display-p3 png": written(photo.icc_transform("p3", input_profile="srgb"), ".png"),
        "cmyk with profile": written(cmyk, ".jpg", Q=95),
        "cmyk without profile": written(cmyk, ".jpg", Q=95, keep="none"),
        "16-bit": written(deep, ".png"),
        "16-bit with alpha": written(deep.bandjoin(65535), ".png"),
        "float": written(photo.colourspace("scrgb"), ".tif"),
        "lab": written(photo.colourspace("lab"), ".tif"),
        "opaque alpha": written(photo.bandjoin(255), ".png"),
        "palette": palette,
        "animation": written(both, ".gif"),
        "avif": written(photo, ".avif", Q=80, effort=1),
    }


@pytest.mark.parametrize(
    "variant",
    [
        "16-bit",
        "16-bit with alpha",
        "animation",
        "avif",
        "cmyk with profile",
        "cmyk without profile",
        "display-p3 jpeg",
        "display-p3 png",
        "display-p3 webp",
        "float",
        "lab",
        "opaque alpha",
        "palette",
    ],
)
@pytest.mark.parametrize("linear", [False, True])
def test_every_kind_of_file_gives_the_same_srgb_picture(variant: str, linear: Any) -> None:
    file = Image.from_bytes(_variants()[variant])
    small = thumbnail(file, width=150, linear=linear)
    expected = thumbnail(image("coffee.png"), width=150, linear=linear)
    assert (small.vips.interpretation, small.vips.format) == ("srgb", "uchar")
    assert not small.record.icc
    colours = small.array()[:, :, :3]
    # The gamut of CMYK is smaller and a palette has 256 colours.
    assert psnr(colours, expected.array()) > (22 if "cmyk" in variant else 26)
    assert np.abs(colours.mean((0, 1)) - expected.array().mean((0, 1))).max() < (16 if "cmyk" in variant else 3)


@pytest.mark.parametrize("depth", ["b-w", "grey16"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_grey_stays_grey(depth: str, suffix: str) -> None:
    vips = pixels("coffee.png").colourspace(depth)
    small = thumbnail(reopened(vips if suffix == ".png" else vips.colourspace("b-w"), suffix), width=100)
    assert (small.vips.interpretation, small.vips.bands, small.vips.format) == ("b-w", 1, "uchar")


def test_hidden_colours_of_transparent_pixels_do_not_bleed() -> None:
    red = pyvips.Image.black(64, 64).bandjoin([0, 0]).linear(1, [255, 0, 0])
    green = pyvips.Image.black(64, 64).bandjoin([0, 0]).linear(1, [0, 255, 0])
    picture = red.bandjoin(255).join(green.bandjoin(0), "horizontal").cast("uchar").copy(interpretation="srgb")
    small: Any = thumbnail(reopened(picture, ".png"), width=16, height=8).array()
    opaque = small[:, :, 3] > 20
    assert small[opaque][:, 1].max() <= 2


def test_truncated_file_is_rejected() -> None:
    data = written(large("coffee.png", 1200, 800), ".jpg", Q=90)
    record = Image.from_bytes(data).record
    cut = data[: len(data) // 2]
    damaged = Image(record, load=lambda: decode_file(cut), source_bytes=cut)
    with pytest.raises(Reject) as caught:
        thumbnail(damaged, width=100)
    assert caught.value.reason == "TRUNCATED"


@pytest.mark.parametrize(
    ("source", "box", "size", "cover", "expected"),
    [
        ((1600, 1200), (256, 256), "both", False, (256, 192)),
        ((1600, 1200), (256, 256), "both", True, (341, 256)),
        ((100, 50), (200, 200), "down", False, (100, 50)),
        ((100, 50), (20, 20), "up", False, (100, 50)),
        ((5000, 1), (10, 10), "both", False, (10, 1)),
        ((7, 9), (3, 5), "force", False, (3, 5)),
    ],
)
def test_scaled_size(source: Any, box: Any, size: Any, cover: Any, expected: Any) -> None:
    assert scaled_size(source, box, size=size, cover=cover) == expected
