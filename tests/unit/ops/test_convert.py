from __future__ import annotations

from typing import Any

import pytest
import pyvips

from pixloom.sdk.image import Image
from pixloom_executor.ops.image_convert import convert, saver_options
from tests.unit.ops.photos import image, pixels, psnr, reopened, translucent

LOADERS = {
    "jpeg": "jpegload",
    "png": "pngload",
    "webp": "webpload",
    "avif": "heifload",
    "tiff": "tiffload",
    "gif": "gifload",
}


def _delivered(converted: Image) -> Image:
    return Image.from_bytes(converted.encoded().data)


@pytest.mark.parametrize("wanted", sorted(LOADERS))
def test_delivers_the_format_asked_for(wanted: Any) -> None:
    result = convert(image("coffee.png"), format=wanted)
    file = _delivered(result)
    assert file.vips.get("vips-loader").startswith(LOADERS[wanted])
    assert result.record.format == file.record.format
    assert psnr(file.array()[:, :, :3], pixels("coffee.png").numpy()) > 28


@pytest.mark.parametrize("wanted", ["png", "tiff"])
def test_png_and_tiff_are_lossless_and_keep_16_bits(wanted: Any) -> None:
    deep = reopened(pixels("coffee.png").colourspace("rgb16"), ".png")
    file = _delivered(convert(deep, format=wanted))
    assert file.vips.format == "ushort"
    assert (file.array() == deep.array()).all()


@pytest.mark.parametrize("wanted", ["webp", "avif"])
def test_lossless(wanted: Any) -> None:
    file = _delivered(convert(image("chelsea.png"), format=wanted, lossless=True, effort=0))
    assert psnr(file.array(), pixels("chelsea.png").numpy()) > (60 if wanted == "webp" else 40)


@pytest.mark.parametrize("wanted", ["jpeg", "webp", "avif", "gif"])
@pytest.mark.parametrize("space", ["cmyk", "rgb16", "scrgb", "lab", "p3"])
def test_formats_for_the_web_get_8_bit_srgb(wanted: Any, space: str) -> None:
    photo = pixels("coffee.png")
    if space in ("cmyk", "p3"):
        source = reopened(photo.icc_transform(space, input_profile="srgb"), ".jpg", Q=95)
    else:
        source = reopened(photo.colourspace(space), ".tif")
    file = _delivered(convert(source, format=wanted, quality=85, effort=1))
    assert (file.vips.interpretation, file.vips.format, file.record.icc) == ("srgb", "uchar", False)
    assert psnr(file.array()[:, :, :3], photo.numpy()) > (20 if space == "cmyk" else 27)


@pytest.mark.parametrize("wanted", ["png", "webp", "avif", "tiff"])
def test_alpha_is_kept(wanted: Any) -> None:
    assert _delivered(convert(translucent(), format=wanted)).record.has_alpha


def test_jpeg_puts_transparency_over_the_background() -> None:
    file = _delivered(convert(translucent(), format="jpeg", background="#00ff00", quality=95))
    red, green, blue = file.array()[0, 0].tolist()
    assert (red < 30, green > 225, blue < 30) == (True, True, True)
    assert not file.record.has_alpha


def test_quality_and_subsampling_reach_the_file() -> None:
    photo = image("coffee.png")
    small = convert(photo, format="jpeg", quality=30).encoded().data
    fine = convert(photo, format="jpeg", quality=95, chroma_subsampling="4:4:4", progressive=True).encoded().data
    assert len(small) < len(fine) / 3
    header = pyvips.Image.new_from_buffer(fine, "")
    assert header.get("jpeg-chroma-subsample") == "4:4:4"
    assert header.get("interlaced") == 1


def test_options_a_format_lacks_are_left_out() -> None:
    assert saver_options("tiff", quality=3, effort=9, lossless=True, chroma_subsampling="4:2:0", progressive=True) == {}
    assert saver_options("gif", quality=3, effort=0) == {"effort": 1}
    assert saver_options("webp", quality=3, effort=10) == {"Q": 3, "effort": 6}


def test_a_later_op_keeps_the_encoding() -> None:
    from pixloom_executor.ops.image import flop

    result = flop(convert(image("coffee.png"), format="webp", quality=40))
    assert _delivered(result).record.format == "webp"
