from __future__ import annotations

from typing import Any

import numpy as np
import pyvips
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pixloom.sdk.image import Image
from pixloom_executor.ops.analyse import brightness, laplacian_variance, sharpness, stats
from pixloom_executor.ops.arrays import pixel_array
from pixloom_executor.ops.check import decode
from pixloom_executor.ops.hashes import perceptual
from pixloom_executor.ops.image import autorotate, flip, flop, greyscale, sharpen
from pixloom_executor.ops.image_convert import convert
from pixloom_executor.ops.image_resize import resize
from pixloom_executor.ops.image_thumbnail import thumbnail
from pixloom_executor.ops.orientation import upright, upright_array
from pixloom_executor.ops.perceptual import dhash64, pdq256, phash64
from pixloom_executor.ops.resampling import area_resampled

SIDES = st.integers(1, 70)
PIXELS = st.tuples(SIDES, SIDES, st.sampled_from([1, 2, 3, 4])).flatmap(lambda shape: arrays(np.uint8, shape))
PLANES = st.tuples(SIDES, SIDES).flatmap(lambda shape: arrays(np.uint8, shape))
quick = settings(max_examples=40, deadline=None)


def _image(array: np.ndarray, orientation: int = 1) -> Image:
    vips = pyvips.Image.new_from_array(np.ascontiguousarray(array))
    vips = vips.copy(interpretation="b-w" if array.shape[2] <= 2 else "srgb")
    vips.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    return Image.from_bytes(vips.write_to_buffer(".png"))


@quick
@given(PIXELS, st.integers(1, 8))
def test_autorotate_twice_is_autorotate_once(array: Any, orientation: int) -> None:
    once = autorotate(_image(array, orientation))
    assert autorotate(once) is once
    assert once.record.orientation == 1


@quick
@given(PIXELS, st.integers(1, 8))
def test_arrays_and_images_are_turned_alike(array: Any, orientation: int) -> None:
    turned = upright(_image(array).vips, orientation)
    expected = upright_array(array, orientation)
    assert np.array_equal(turned.numpy().reshape(expected.shape), expected)


@quick
@given(PIXELS)
def test_mirroring_twice_changes_nothing(array: Any) -> None:
    for mirror in (flip, flop):
        assert np.array_equal(pixel_array(mirror(mirror(_image(array))).vips), array)


@quick
@given(PIXELS, st.integers(1, 90), st.integers(1, 90), st.sampled_from(["both", "up", "down", "force"]))
def test_thumbnail_has_the_size_its_record_tells_and_fits(array: Any, width: int, height: int, size: Any) -> None:
    small = thumbnail(_image(array), width=width, height=height, size=size)
    assert (small.record.width, small.record.height) == (small.vips.width, small.vips.height)
    if size != "up":
        assert small.vips.width <= width
        assert small.vips.height <= height
    assert small.vips.bands == array.shape[2]
    assert small.vips.format == "uchar"


@quick
@given(PIXELS, st.integers(1, 60), st.integers(1, 60), st.sampled_from(["centre", "entropy", "attention"]))
def test_cropped_thumbnail_fills_the_box(array: Any, width: int, height: int, crop: Any) -> None:
    small = thumbnail(_image(array), width=width, height=height, crop=crop)
    assert (small.vips.width, small.vips.height) == (width, height)


@quick
@given(
    PIXELS,
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from(["cover", "contain", "fill", "inside", "outside"]),
    st.sampled_from(["centre", "left top", "right bottom", "entropy", "attention"]),
)
def test_resize_gives_the_size_of_its_fit(array: Any, width: int, height: int, fit: Any, position: Any) -> None:
    result = resize(_image(array), width=width, height=height, fit=fit, position=position)
    if fit in ("cover", "contain", "fill"):
        assert (result.vips.width, result.vips.height) == (width, height)
    assert result.vips.bands == array.shape[2]


@quick
@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), SIDES, SIDES)
def test_even_pictures_stay_even(red: int, green: int, blue: int, width: int, height: int) -> None:
    even = np.empty((height, width, 3), dtype=np.uint8)
    even[:] = (red, green, blue)
    assert np.abs(pixel_array(sharpen(_image(even), sigma=1.5, m1=2.0).vips).astype(int) - even).max() <= 1
    assert np.abs(pixel_array(thumbnail(_image(even), width=17, height=13).vips).astype(int) - even[0, 0]).max() <= 1
    assert np.abs(pixel_array(resize(_image(even), width=23, height=9).vips).astype(int) - even[0, 0]).max() <= 1
    assert sharpness(_image(even))["sharpness"] == 0
    assert stats(_image(even))["stats_mean"] == [red, green, blue]


@quick
@given(PIXELS)
def test_greyscale_of_grey_changes_nothing(array: Any) -> None:
    grey = greyscale(_image(array))
    assert np.array_equal(pixel_array(greyscale(grey).vips), pixel_array(grey.vips))


@quick
@given(PIXELS, st.sampled_from(["png", "tiff"]))
def test_lossless_formats_keep_every_pixel(array: Any, wanted: Any) -> None:
    delivered = Image.from_bytes(convert(_image(array), format=wanted).encoded().data)
    assert np.array_equal(pixel_array(delivered.vips), array)


@quick
@given(PIXELS, st.sampled_from(["jpeg", "webp", "gif", "png", "tiff"]))
def test_every_delivered_file_passes_the_check_and_has_the_size(array: Any, wanted: Any) -> None:
    delivered = Image.from_bytes(convert(_image(array), format=wanted).encoded().data)
    assert decode(delivered) is delivered
    assert (delivered.vips.height, delivered.vips.width) == array.shape[:2]


@quick
@given(PLANES)
def test_brightness_is_ordered_and_in_range(plane: Any) -> None:
    measured = brightness(_image(plane[:, :, None]))
    figures = [measured[name] for name in ("brightness_p5", "brightness_p50", "brightness_p95")]
    assert int(plane.min()) <= figures[0] <= figures[1] <= figures[2] <= int(plane.max())
    assert abs(measured["brightness_mean"] - plane.mean()) < 1e-3


@quick
@given(PLANES, st.integers(0, 100))
def test_laplacian_variance_ignores_an_offset_and_mirrors(plane: Any, offset: int) -> None:
    variance = laplacian_variance(plane)
    moved = plane.astype(np.int64) + offset
    assert np.isclose(laplacian_variance(moved), variance, rtol=1e-3, atol=1e-3)
    assert np.isclose(laplacian_variance(plane.T[::-1]), variance, rtol=1e-3, atol=1e-3)


@quick
@given(PLANES, st.integers(1, 40), st.integers(1, 40))
def test_area_resampling_keeps_the_mean_and_the_range(plane: Any, rows: int, columns: int) -> None:
    small = area_resampled(plane, rows, columns)
    assert small.shape == (rows, columns)
    assert np.isclose(small.mean(), plane.mean(), atol=1e-6)
    assert plane.min() - 1e-6 <= small.min()
    assert small.max() <= plane.max() + 1e-6


@quick
@given(PLANES)
def test_hashes_have_their_length_and_ignore_a_brighter_scale(plane: Any) -> None:
    darker = plane // 2
    brighter = darker.astype(np.float64) * 2
    digest, quality = pdq256(darker)
    assert len(digest) == 64
    assert 0 <= quality <= 100
    assert int(digest, 16).bit_count() <= 128
    assert len(phash64(darker)) == len(dhash64(darker)) == 16
    assert dhash64(darker) == dhash64(brighter)


@quick
@given(PIXELS, st.integers(1, 8))
def test_hash_is_that_of_the_upright_picture(array: Any, orientation: int) -> None:
    turned = _image(array, orientation)
    for algorithm in ("pdq256", "phash64", "dhash64"):
        assert perceptual(turned, algorithm=algorithm) == perceptual(autorotate(turned), algorithm=algorithm)
