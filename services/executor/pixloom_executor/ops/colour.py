"""Colour, depth and alpha of pixels, made plain for ops that need 8-bit sRGB.

Every function takes and gives pyvips images and leaves the geometry and the EXIF orientation alone.
"""

from __future__ import annotations

import re
from typing import Any, Final

__all__ = ["ICC_FIELD", "flattened", "has_profile", "hex_colour", "plain_srgb", "without_profile"]

ICC_FIELD: Final = "icc-profile-data"
_RGB: Final = ("srgb", "rgb", "rgb16")
_GREY: Final = ("b-w", "grey16")
_HEX: Final = re.compile(r"#([0-9a-fA-F]{6})([0-9a-fA-F]{2})?")


def has_profile(vips: Any) -> bool:
    """Return whether an ICC profile is attached."""
    return bool(vips.get_typeof(ICC_FIELD))


def without_profile(vips: Any) -> Any:
    """Return the same pixels without their ICC profile, which is what untagged sRGB means."""
    if not has_profile(vips):
        return vips
    # Metadata of a copy can be changed without touching the original (libvips shares the pixels).
    plain = vips.copy()
    plain.remove(ICC_FIELD)
    return plain


def plain_srgb(vips: Any) -> Any:
    """Return 8-bit sRGB (3 bands) or grey (1 band), alpha kept as the last band, without a profile.

    An embedded profile is applied with relative colorimetric intent and black point compensation; CMYK without one goes
    through the CMYK profile of libvips. 16-bit, float, Lab and other spaces go through the colour conversions of libvips.

    Args:
        vips: A pyvips image of any interpretation.
    """
    import pyvips

    space = vips.interpretation
    if space == "cmyk" or has_profile(vips):
        try:
            return without_profile(
                vips.icc_transform(
                    "srgb",
                    embedded=True,
                    input_profile="cmyk" if space == "cmyk" else "srgb",
                    intent="relative",
                    black_point_compensation=True,
                    depth=8,
                )
            )
        except pyvips.Error:
            # A profile that does not fit the pixels (an RGB profile on a grey image) says nothing about them.
            vips = without_profile(vips)
    if vips.format == "uchar" and vips.interpretation in ("srgb", "b-w"):
        return vips
    grey = vips.interpretation in _GREY or (vips.interpretation == "multiband" and vips.bands <= 2)
    if vips.interpretation == "multiband":
        return _to_uchar(vips if vips.bands <= 4 else vips[0:3]).copy(interpretation="b-w" if grey else "srgb")
    return vips.colourspace("b-w" if grey else "srgb")


def flattened(vips: Any, background: tuple[int, int, int] = (255, 255, 255)) -> Any:
    """Return the image over an even background, without its alpha band.

    Args:
        vips: 8-bit sRGB or grey.
        background: sRGB colour, 0 to 255.
    """
    if not vips.hasalpha():
        return vips
    colour: list[float] = list(background)
    if vips.bands == 2:
        red, green, blue = background
        colour = [0.299 * red + 0.587 * green + 0.114 * blue]
    return vips.flatten(background=colour)


def hex_colour(text: str) -> tuple[int, int, int, int]:
    """Return red, green, blue and alpha, 0 to 255, of `#rrggbb` or `#rrggbbaa`.

    Raises:
        ValueError: if the text is no such colour.
    """
    match = _HEX.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no colour; write #rrggbb or #rrggbbaa")
    value = bytes.fromhex(match[1] + (match[2] or "ff"))
    return value[0], value[1], value[2], value[3]


def _to_uchar(vips: Any) -> Any:
    return vips if vips.format == "uchar" else vips.scaleimage()
