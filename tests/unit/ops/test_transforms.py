from __future__ import annotations

import numpy as np
import pytest

from pixloom_executor.ops.colour import hex_colour
from pixloom_executor.ops.image import autorotate, flip, flop, greyscale, sharpen
from pixloom_executor.ops.orientation import upright_array
from tests.unit.ops.photos import image, pixels, psnr, reopened, translucent, with_orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_autorotate_turns_upright_exactly(orientation: int) -> None:
    file = reopened(with_orientation(pixels("coffee.png"), orientation), ".png")
    assert file.record.orientation == orientation
    result = autorotate(file)
    assert result.record.orientation == 1
    assert np.array_equal(result.array(), pixels("coffee.png").numpy())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_arrays_are_turned_like_images(orientation: int) -> None:
    stored = with_orientation(pixels("coffee.png"), orientation).numpy()
    assert np.array_equal(upright_array(stored, orientation), pixels("coffee.png").numpy())


def test_autorotate_of_an_upright_image_keeps_its_bytes() -> None:
    file = image("rocket.jpg")
    assert autorotate(file) is file


def test_delivered_file_is_upright() -> None:
    turned = reopened(with_orientation(pixels("coffee.png"), 8), ".jpg", Q=95)
    delivered = autorotate(turned).encoded()
    again = type(turned).from_bytes(delivered.data)
    assert again.record.orientation in (0, 1)
    assert psnr(again.array(), pixels("coffee.png").numpy()) > 28


def test_flip_and_flop_mirror() -> None:
    array = image("coffee.png").array()
    assert np.array_equal(flip(image("coffee.png")).array(), array[::-1])
    assert np.array_equal(flop(image("coffee.png")).array(), array[:, ::-1])


def test_greyscale_has_one_band_and_keeps_alpha() -> None:
    assert greyscale(image("coffee.png")).vips.bands == 1
    assert greyscale(image("logo.png")).vips.bands == 2
    assert greyscale(image("camera.png")).array().shape == (512, 512, 1)


def test_sharpen_makes_edges_steeper() -> None:
    from pixloom_executor.ops.analyse import laplacian_variance

    before = greyscale(image("coffee.png")).array()[:, :, 0]
    after = greyscale(sharpen(image("coffee.png"), sigma=1.0)).array()[:, :, 0]
    assert laplacian_variance(after) > 1.5 * laplacian_variance(before)


def test_sharpen_keeps_alpha_and_depth() -> None:
    assert np.array_equal(sharpen(translucent()).array()[:, :, 3], translucent().array()[:, :, 3])
    deep = reopened(pixels("coffee.png").colourspace("rgb16"), ".png")
    assert sharpen(deep).vips.format == "ushort"


def test_sharpen_of_cmyk_gives_srgb() -> None:
    cmyk = reopened(pixels("coffee.png").icc_transform("cmyk", input_profile="srgb"), ".jpg")
    assert sharpen(cmyk).vips.interpretation == "srgb"


def test_colours_are_read() -> None:
    assert hex_colour("#0080ff") == (0, 128, 255, 255)
    assert hex_colour("#0080ff40") == (0, 128, 255, 64)
    with pytest.raises(ValueError, match="rrggbb"):
        hex_colour("red")
