"""Simple transforms of pixels: `image.autorotate`, `.flip`, `.flop`, `.greyscale`, `.sharpen`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pixloom.sdk.op import Image, op
from pixloom_executor.ops.colour import plain_srgb, without_profile
from pixloom_executor.ops.orientation import orientation_of, upright

__all__ = ["autorotate", "flip", "flop", "greyscale", "sharpen"]


@op("image.autorotate", version=1, cost_hint_s=0.01)
def autorotate(image: Image) -> Image:
    """Turn the picture upright as its EXIF orientation says, and remove the tag.

    - **Colour, alpha:** unchanged.
    - **Orientation:** applied; an image that is upright already keeps its bytes.
    - **Tolerance:** exact: pixels are moved, never resampled. Running it again changes nothing.
    - **Source:** `vips_autorot` (libvips); Exif 3.0 (CIPA DC-008-2023), tag 0x0112.
    """
    orientation = orientation_of(image)
    if orientation == 1:
        return image
    return image.with_vips(upright(image.vips, orientation).copy_memory())


@op("image.flip", version=1, cost_hint_s=0.01)
def flip(image: Image) -> Image:
    """Mirror the picture top to bottom.

    - **Colour, alpha:** unchanged.
    - **Orientation:** pixels as stored; run `image.autorotate` before for the upright picture.
    - **Tolerance:** exact; doing it twice gives the original pixels.
    - **Source:** `vips_flip` (libvips).
    """
    return image.with_vips(image.vips.flipver().copy_memory())


@op("image.flop", version=1, cost_hint_s=0.01)
def flop(image: Image) -> Image:
    """Mirror the picture left to right.

    - **Colour, alpha:** unchanged.
    - **Orientation:** pixels as stored; run `image.autorotate` before for the upright picture.
    - **Tolerance:** exact; doing it twice gives the original pixels.
    - **Source:** `vips_flip` (libvips).
    """
    return image.with_vips(image.vips.fliphor().copy_memory())


@op("image.greyscale", version=1, cost_hint_s=0.01)
def greyscale(image: Image) -> Image:
    """Make the picture grey.

    - **Colour:** an embedded profile is applied; the result is 8-bit grey of the same luminance, without a profile.
    - **Alpha:** kept.
    - **Orientation:** unchanged.
    - **Tolerance:** one level; a grey picture stays as it is.
    - **Source:** `vips_colourspace` to b-w (libvips), luminance of sRGB as in IEC 61966-2-1.
    """
    if image.vips.interpretation == "b-w" and image.vips.format == "uchar":
        return image
    return image.with_vips(without_profile(plain_srgb(image.vips).colourspace("b-w")).copy_memory())


@op("image.sharpen", version=1, cost_hint_s=0.05)
def sharpen(
    image: Image,
    *,
    sigma: Annotated[float, Field(gt=0, le=10, description="Radius of the Gaussian mask in pixels")] = 0.5,
    x1: Annotated[float, Field(ge=0, le=100, description="L* difference from which an area counts as jagged")] = 2.0,
    m1: Annotated[float, Field(ge=0, le=100, description="Slope of sharpening in flat areas")] = 0.0,
    m2: Annotated[float, Field(ge=0, le=100, description="Slope of sharpening in jagged areas")] = 3.0,
) -> Image:
    """Sharpen the lightness of the picture.

    - **Colour:** works on L* of CIELAB at 16 bits, hue and chroma stay; CMYK becomes sRGB, depth and profile are kept.
    - **Alpha:** kept as it is.
    - **Orientation:** unchanged; the filter is the same in all directions.
    - **Borders:** edge pixels are repeated.
    - **Tolerance:** an even area stays within one level, because of the way through CIELAB.
    - **Source:** `vips_sharpen` (libvips); defaults as in libvips.
    """
    vips = image.vips
    if vips.interpretation == "cmyk":
        vips = plain_srgb(vips)
    return image.with_vips(vips.sharpen(sigma=sigma, x1=x1, m1=m1, m2=m2).copy_memory())
