from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import pyvips

from pixloom.sdk.outcome import Reject
from pixloom_executor.ops.image_resize import crop, placement, resize
from tests.unit.ops.photos import image, pixels, psnr, reopened


@pytest.mark.parametrize(
    ("fit", "expected"),
    [
        ("cover", (200, 200)),
        ("contain", (200, 200)),
        ("fill", (200, 200)),
        ("inside", (200, 133)),
        ("outside", (300, 200)),
    ],
)
def test_fit_decides_the_size(fit: Any, expected: Any) -> None:
    result = resize(image("coffee.png"), width=200, height=200, fit=fit)
    assert (result.record.width, result.record.height) == (result.vips.width, result.vips.height) == expected


def test_a_missing_side_follows_from_the_aspect_ratio() -> None:
    assert resize(image("coffee.png"), width=300).vips.height == 200
    assert resize(image("coffee.png"), height=100).vips.width == 150


def test_no_side_at_all_is_refused() -> None:
    with pytest.raises(Reject, match="INVALID_PARAMS"):
        resize(image("coffee.png"))


def test_contain_pads_with_the_background() -> None:
    result = resize(image("coffee.png"), width=100, height=100, fit="contain", background="#102030").array()
    assert result[0, 0].tolist() == result[99, 99].tolist() == [16, 32, 48]
    assert result[50].std() > 10


def test_translucent_background_adds_alpha() -> None:
    result = resize(image("coffee.png"), width=100, height=100, fit="contain", background="#10203080").array()
    assert result[0, 0].tolist() == [16, 32, 48, 128]
    assert result[50, 50, 3] == 255


def test_background_is_scaled_to_16_bits() -> None:
    deep = reopened(pixels("coffee.png").colourspace("rgb16"), ".png")
    result = resize(deep, width=100, height=100, fit="contain", background="#ffffff").array()
    assert result.dtype == np.uint16
    assert result[0, 0].tolist() == [65535] * 3


@pytest.mark.parametrize(
    ("position", "row", "column"),
    [("left", 1, 0), ("right", 1, 2), ("centre", 1, 1), ("left top", 1, 0), ("right bottom", 1, 2)],
)
def test_position_decides_the_part_that_cover_keeps(position: Any, row: int, column: int) -> None:
    thirds = pyvips.Image.new_from_array(
        np.repeat(np.array([[10, 100, 200]], dtype=np.uint8), 40, axis=1).repeat(40, axis=0)
    )
    kept = resize(reopened(thirds, ".png"), width=40, height=40, position=position).array()
    assert kept[20, 20, 0] == [10, 100, 200][column]


def test_without_enlargement_never_scales_up() -> None:
    small = image("microaneurysms.png")
    for fit in ("cover", "fill", "inside", "outside"):
        result = resize(small, width=400, height=400, fit=fit, without_enlargement=True)
        assert (result.vips.width, result.vips.height) == (102, 102)
    padded = resize(small, width=400, height=400, fit="contain", without_enlargement=True)
    assert (padded.vips.width, padded.vips.height) == (400, 400)


def test_same_size_returns_the_image_with_its_bytes() -> None:
    file = image("coffee.png")
    assert resize(file, width=600, height=400) is file


@pytest.mark.parametrize("kernel", ["nearest", "linear", "cubic", "mitchell", "lanczos2", "lanczos3"])
def test_every_kernel_keeps_the_picture(kernel: Any) -> None:
    reduced = resize(image("coffee.png"), width=300, kernel=kernel).array()
    assert psnr(reduced, pixels("coffee.png").resize(0.5).numpy()) > 22


def test_profile_and_depth_are_kept() -> None:
    p3 = reopened(pixels("coffee.png").icc_transform("p3", input_profile="srgb"), ".png")
    assert resize(p3, width=100).record.icc


def test_crop_cuts_the_rectangle_out() -> None:
    expected = image("coffee.png").array()[20:70, 10:110]
    assert np.array_equal(crop(image("coffee.png"), left=10, top=20, width=100, height=50).array(), expected)


def test_crop_outside_is_rejected_with_the_figures() -> None:
    with pytest.raises(Reject, match=r"OUT_OF_BOUNDS.*600x400"):
        crop(image("coffee.png"), left=550, top=0, width=100, height=10)


def test_placement_of_a_line() -> None:
    place = placement((10_000, 1), width=10, height=10, fit="inside")
    assert (place.width, place.height) == (10, 1)
