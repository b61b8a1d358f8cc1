from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pixloom.sdk.image import Image
from pixloom_executor.ops.analyse import brightness, laplacian_variance, sharpness, stats
from pixloom_executor.ops.image_thumbnail import thumbnail
from tests.unit.ops.photos import image, large, pixels, reopened, translucent, with_orientation


def _even(level: int) -> Image:
    return Image.from_array(np.full((64, 96, 3), level, dtype=np.uint8))


def test_stats_equal_those_of_numpy() -> None:
    array = pixels("coffee.png").numpy().reshape(-1, 3)
    measured = stats(image("coffee.png"))
    assert measured["stats_min"] == array.min(0).tolist()
    assert measured["stats_max"] == array.max(0).tolist()
    assert measured["stats_mean"] == pytest.approx(array.mean(0), abs=1e-3)
    assert measured["stats_stddev"] == pytest.approx(array.std(0), abs=1e-3)


def test_entropy_of_an_even_picture_is_zero_and_of_noise_nearly_eight() -> None:
    noise = np.random.default_rng(7).integers(0, 256, (256, 256), dtype=np.uint8)
    assert stats(_even(90))["stats_entropy"] == 0
    assert stats(Image.from_array(noise))["stats_entropy"] > 7.9


def test_stats_of_grey_16_bit_and_alpha() -> None:
    assert len(stats(image("camera.png"))["stats_mean"]) == 1
    deep = stats(reopened(pixels("coffee.png").colourspace("rgb16"), ".png"))
    assert deep["stats_mean"] == pytest.approx(stats(image("coffee.png"))["stats_mean"], abs=0.6)
    assert len(stats(translucent())["stats_mean"]) == 3


def test_blur_lowers_sharpness() -> None:
    figures = [
        sharpness(reopened(pixels("coffee.png").gaussblur(sigma) if sigma else pixels("coffee.png"), ".png"))[
            "sharpness"
        ]
        for sigma in (0, 1, 2, 4)
    ]
    assert figures == sorted(figures, reverse=True)
    assert figures[0] > 10 * figures[2]


def test_sharpness_of_a_jpeg_is_that_of_its_pixels() -> None:
    jpeg = sharpness(reopened(large("coffee.png", 1200, 800), ".jpg", Q=90))["sharpness"]
    exact = sharpness(reopened(large("coffee.png", 1200, 800), ".png"))["sharpness"]
    assert jpeg == pytest.approx(exact, rel=0.1)


def test_sharpness_of_an_even_picture_is_zero() -> None:
    assert sharpness(_even(130)) == {"sharpness": 0.0}


def test_laplacian_of_a_tiny_picture_is_zero() -> None:
    assert laplacian_variance(np.zeros((2, 9))) == 0.0


def test_laplacian_of_a_known_plane() -> None:
    plane = np.zeros((3, 4))
    plane[1, 1] = 1
    assert laplacian_variance(plane) == pytest.approx(np.var([-4, 1]))


@pytest.mark.parametrize(("level", "dark", "light"), [(10, True, False), (128, False, False), (240, False, True)])
def test_brightness_tells_dark_from_light(level: Any, dark: Any, light: Any) -> None:
    measured = brightness(_even(level))
    assert (measured["is_dark"], measured["is_light"]) == (dark, light)
    assert measured["brightness_mean"] == level
    assert measured["brightness_p5"] == measured["brightness_p95"] == level


def test_brightness_percentiles_of_a_ramp() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 256).repeat(50, axis=0)
    measured = brightness(Image.from_array(ramp))
    assert (measured["brightness_p5"], measured["brightness_p50"], measured["brightness_p95"]) == (12, 127, 243)


def test_brightness_of_a_jpeg_is_that_of_its_pixels() -> None:
    vips = large("coffee.png", 1600, 1100)
    fast, full = brightness(reopened(vips, ".jpg", Q=95)), brightness(reopened(vips, ".png"))
    for name in ("brightness_mean", "brightness_p5", "brightness_p50", "brightness_p95"):
        assert fast[name] == pytest.approx(full[name], abs=2)


@pytest.mark.parametrize("orientation", [3, 6])
def test_orientation_does_not_matter(orientation: int) -> None:
    turned = reopened(with_orientation(pixels("coffee.png"), orientation), ".png")
    assert brightness(turned) == brightness(image("coffee.png"))
    assert stats(turned)["stats_mean"] == pytest.approx(stats(image("coffee.png"))["stats_mean"])


def test_measures_work_on_thumbnails() -> None:
    small = thumbnail(image("coffee.png"), width=128)
    assert sharpness(small)["sharpness"] > 0
    assert set(brightness(small)) == {
        "brightness_mean", "brightness_p5", "brightness_p50", "brightness_p95", "is_dark", "is_light",
    }  # fmt: skip
