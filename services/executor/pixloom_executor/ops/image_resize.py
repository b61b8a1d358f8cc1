"""`image.resize` and `image.crop`: exact sizes from fully decoded pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from pixloom.sdk.op import Image, Reject, op
from pixloom_executor.ops.colour import hex_colour

__all__ = ["Placement", "crop", "placement", "resize"]

Fit = Literal["cover", "contain", "fill", "inside", "outside"]
Position = Literal[
    "centre",
    "top",
    "right top",
    "right",
    "right bottom",
    "bottom",
    "left bottom",
    "left",
    "left top",
    "entropy",
    "attention",
]
Kernel = Literal["nearest", "linear", "cubic", "mitchell", "lanczos2", "lanczos3"]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an image of one size ends up in another.

    Attributes:
        width: Width in pixels after scaling.
        height: Height in pixels after scaling.
        box_width: Width in pixels of the result.
        box_height: Height in pixels of the result.
    """

    width: int
    height: int
    box_width: int
    box_height: int


@op("image.resize", version=1, cost_hint_s=0.03)
def resize(
    image: Image,
    *,
    width: Annotated[
        int | None,
        Field(ge=1, le=65500, description="Width in pixels; from the height and the aspect ratio if not given"),
    ] = None,
    height: Annotated[
        int | None,
        Field(ge=1, le=65500, description="Height in pixels; from the width and the aspect ratio if not given"),
    ] = None,
    fit: Annotated[
        Fit,
        Field(
            description="cover: fill the box and cut; contain: fit and pad; fill: ignore the aspect ratio; "
            "inside: fit, no padding; outside: cover, no cutting"
        ),
    ] = "cover",
    position: Annotated[Position, Field(description="Part kept by cover, place taken in contain")] = "centre",
    kernel: Annotated[Kernel, Field(description="Resampling kernel")] = "lanczos3",
    without_enlargement: Annotated[bool, Field(description="Never scale up")] = False,
    background: Annotated[
        str,
        Field(pattern=r"^#[0-9a-fA-F]{6}([0-9a-fA-F]{2})?$", description="Padding of contain: #rrggbb or #rrggbbaa"),
    ] = "#000000",
) -> Image:
    """Scale to an exact size.

    - **Colour:** scaled in the image's own space and depth; its profile is kept.
    - **Alpha:** kept, premultiplied while scaling; a translucent `background` adds an alpha band.
    - **Orientation:** pixels as stored; run `image.autorotate` before if sides are to mean the upright picture.
    - **Borders:** edge pixels are repeated by the kernel.
    - **Size:** exact; free sides are rounded half up, at least 1 px.
    - **Rejects:** INVALID_PARAMS if neither side is given.
    - **Source:** `vips_resize` (libvips); names and meaning of the params as in sharp.
    """
    vips = image.vips
    if width is None and height is None:
        raise Reject("INVALID_PARAMS", "image.resize needs a width, a height or both")
    place = placement(
        (vips.width, vips.height), width=width, height=height, fit=fit, without_enlargement=without_enlargement
    )
    scaled = _scaled(vips, place.width, place.height, kernel)
    if (place.box_width, place.box_height) == (scaled.width, scaled.height):
        result = scaled
    elif fit == "contain":
        result = _padded(scaled, place, position, background)
    else:
        result = _cut(scaled, place, position)
    return image if result is vips else image.with_vips(result.copy_memory())


@op("image.crop", version=1, cost_hint_s=0.01)
def crop(
    image: Image,
    *,
    left: Annotated[int, Field(ge=0, description="Left edge in pixels")],
    top: Annotated[int, Field(ge=0, description="Top edge in pixels")],
    width: Annotated[int, Field(ge=1, description="Width in pixels")],
    height: Annotated[int, Field(ge=1, description="Height in pixels")],
) -> Image:
    """Cut out a rectangle.

    - **Colour, alpha:** unchanged.
    - **Orientation:** coordinates of the pixels as stored.
    - **Rejects:** OUT_OF_BOUNDS if the rectangle is not wholly inside the image.
    - **Source:** `vips_extract_area` (libvips).
    """
    vips = image.vips
    if left + width > vips.width or top + height > vips.height:
        raise Reject(
            "OUT_OF_BOUNDS",
            f"a rectangle of {width}x{height} at {left},{top} is not inside an image of {vips.width}x{vips.height}",
        )
    if (width, height) == (vips.width, vips.height):
        return image
    return image.with_vips(vips.crop(left, top, width, height).copy_memory())


def placement(
    source: tuple[int, int],
    *,
    width: int | None,
    height: int | None,
    fit: Fit,
    without_enlargement: bool = False,
) -> Placement:
    """Return the size after scaling and the size of the result.

    Args:
        source: Width and height of the image.
        width: Width asked for; None follows from the height.
        height: Height asked for; None follows from the width. One of the two is given.
        fit: How image and box go together.
        without_enlargement: Whether scales above 1 become 1.
    """
    ratio_x = width / source[0] if width else None
    ratio_y = height / source[1] if height else None
    limit = 1.0 if without_enlargement else float("inf")
    if ratio_x is None or ratio_y is None:
        scale = min(ratio_x or ratio_y or 1.0, limit)
        size = _size(source, scale, scale)
        exact = (width if width and scale == ratio_x else size[0], height if height and scale == ratio_y else size[1])
        return Placement(*exact, *exact)
    box = (width or 1, height or 1)
    if fit == "fill":
        size = _size(source, min(ratio_x, limit), min(ratio_y, limit))
        return Placement(*size, *size)
    scale = min(limit, max(ratio_x, ratio_y) if fit in ("cover", "outside") else min(ratio_x, ratio_y))
    size = _size(source, scale, scale)
    match fit:
        case "cover":
            return Placement(*size, min(box[0], size[0]), min(box[1], size[1]))
        case "contain":
            size = (min(size[0], box[0]), min(size[1], box[1]))
            return Placement(*size, *box)
        case _:
            return Placement(*size, *size)


def _size(source: tuple[int, int], scale_x: float, scale_y: float) -> tuple[int, int]:
    return max(1, int(source[0] * scale_x + 0.5)), max(1, int(source[1] * scale_y + 0.5))


def _scaled(vips: Any, width: int, height: int, kernel: Kernel) -> Any:
    if (width, height) == (vips.width, vips.height):
        return vips
    depth = vips.format
    translucent = bool(vips.hasalpha())
    pixels = vips.premultiply() if translucent else vips
    scaled = pixels.resize(width / vips.width, vscale=height / vips.height, kernel=kernel)
    return scaled.unpremultiply().cast(depth) if translucent else scaled


def _cut(vips: Any, place: Placement, position: Position) -> Any:
    if position in ("entropy", "attention"):
        return vips.smartcrop(place.box_width, place.box_height, interesting=position)
    left, top = _offset(vips.width - place.box_width, vips.height - place.box_height, position)
    return vips.crop(left, top, place.box_width, place.box_height)


def _padded(vips: Any, place: Placement, position: Position, background: str) -> Any:
    red, green, blue, alpha = hex_colour(background)
    if alpha < 255 and not vips.hasalpha():
        vips = vips.addalpha()
    peak = 257 if vips.format == "ushort" else 1
    colours = vips.bands - (1 if vips.hasalpha() else 0)
    colour = [red, green, blue] if colours >= 3 else [0.299 * red + 0.587 * green + 0.114 * blue]
    if vips.interpretation == "cmyk":
        colour = [255 - red, 255 - green, 255 - blue, 0]
    ink = [channel * peak for channel in (*colour, *([alpha] if vips.hasalpha() else []))]
    left, top = _offset(place.box_width - vips.width, place.box_height - vips.height, position)
    return vips.embed(left, top, place.box_width, place.box_height, extend="background", background=ink)


def _offset(room_x: int, room_y: int, position: Position) -> tuple[int, int]:
    words = position.split()
    left = 0 if "left" in words else room_x if "right" in words else room_x // 2
    top = 0 if "top" in words else room_y if "bottom" in words else room_y // 2
    return left, top
