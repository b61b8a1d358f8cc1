"""`image.thumbnail`: the fastest correct way from a file to a small sRGB picture.

A JPEG is decoded by libjpeg-turbo at m/8 of its size, chosen so that a good reduction (Lanczos 3) is left to do; a WebP
by libvips' scale-on-load; everything else is decoded whole. The way depends only on the bytes the image comes from,
never on which ops ran before in the same process, so that fused and unfused stages give equal pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field

from pixloom.sdk.encoding import rejection_from
from pixloom.sdk.op import Image, op
from pixloom_executor.ops.colour import has_profile, plain_srgb, without_profile
from pixloom_executor.ops.orientation import ORIENTATION_FIELD, orientation_of, swaps_sides, upright
from pixloom_executor.ops.scaled_jpeg import scaled_pixels

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["scaled_size", "thumbnail"]

Size = Literal["both", "up", "down", "force"]

# Decoding to at least this multiple of the target leaves Lanczos something to filter, so that detail does not alias.
_MARGIN: Final = 1.25


@op("image.thumbnail", version=1, cost_hint_s=0.008)
def thumbnail(
    image: Image,
    *,
    width: Annotated[int, Field(ge=1, le=16384, description="Width of the box in pixels")],
    height: Annotated[
        int | None, Field(ge=1, le=16384, description="Height of the box in pixels; the width if not given")
    ] = None,
    size: Annotated[
        Size,
        Field(
            description="both: enlarge or reduce; up: only enlarge; down: only reduce; force: ignore the aspect ratio"
        ),
    ] = "both",
    crop: Annotated[
        Literal["none", "centre", "entropy", "attention"],
        Field(description="none: fit inside the box; else fill the box and cut what stands out, keeping this part"),
    ] = "none",
    linear: Annotated[bool, Field(description="Reduce in linear light: slower, right for fine bright detail")] = False,
    no_rotate: Annotated[bool, Field(description="Leave the EXIF orientation as it is")] = False,
) -> Image:
    """Make a small sRGB picture.

    - **Colour:** 8-bit sRGB or grey without a profile; an embedded profile is applied, CMYK, 16-bit, float and Lab are
      converted.
    - **Alpha:** kept, premultiplied while reducing.
    - **Orientation:** applied unless `no_rotate`, in which case the tag stays and the box refers to the stored axes.
    - **Borders:** edge pixels are repeated by the resampling kernel.
    - **Animations:** the first frame.
    - **Size:** sides are rounded half up, at least 1 px.
    - **Tolerance:** against a full decode reduced by libvips, PSNR of at least 32 dB on photographs.
    - **Source:** `vips_thumbnail` (libvips) for the meaning of the params; DCT-domain scaling of libjpeg-turbo;
      Lanczos 3: C. E. Duchon, 1979, doi:10.1175/1520-0450(1979)018<1016:LFIOAT>2.0.CO;2.
    """
    record = image.record
    stored = (record.width, record.height) if record.width and record.height else (image.vips.width, image.vips.height)
    orientation = 1 if no_rotate else orientation_of(image)
    turned = swaps_sides(orientation)
    box = (width, height or width)
    upright_size = scaled_size(stored[::-1] if turned else stored, box, size=size, cover=crop != "none")
    target = upright_size[::-1] if turned else upright_size
    small = _reduced(image, stored, target, linear=linear)
    if not no_rotate:
        small = upright(small, orientation)
    elif orientation_of(image) > 1 and not small.get_typeof(ORIENTATION_FIELD):
        small = _tagged(small, orientation_of(image))
    if crop != "none" and size != "force":
        window = (min(box[0], small.width), min(box[1], small.height))
        if window != (small.width, small.height):
            small = small.smartcrop(*window, interesting=crop)
    return image.with_vips(_decoded(small.copy_memory))


def scaled_size(source: tuple[int, int], box: tuple[int, int], *, size: Size, cover: bool) -> tuple[int, int]:
    """Return width and height after scaling, before cropping.

    Args:
        source: Width and height of the image, upright.
        box: Width and height of the box.
        size: Which directions of scaling are allowed; force gives the box itself.
        cover: Whether the box is to be covered instead of the image to fit inside it.
    """
    if size == "force":
        return box
    ratios = (box[0] / source[0], box[1] / source[1])
    scale = max(ratios) if cover else min(ratios)
    if size == "down":
        scale = min(scale, 1.0)
    elif size == "up":
        scale = max(scale, 1.0)
    return max(1, int(source[0] * scale + 0.5)), max(1, int(source[1] * scale + 0.5))


def _reduced(image: Image, stored: tuple[int, int], target: tuple[int, int], *, linear: bool) -> Any:
    """Return sRGB pixels of exactly the target size along the stored axes."""
    wanted = {"min_width": int(target[0] * _MARGIN), "min_height": int(target[1] * _MARGIN)}
    fits = target[0] <= stored[0] and target[1] <= stored[1]
    decoded = scaled_pixels(image, **wanted) if fits and not linear else None
    if decoded is not None:
        exact = _scaled_exactly(decoded, stored, target)
        return plain_srgb(exact) if has_profile(exact) else exact
    if _is_webp(image.source_bytes):
        return _decoded(lambda: _webp(image.source_bytes, target, linear=linear))
    vips = image.vips
    options = _colour_options(vips)
    return without_profile(
        vips.thumbnail_image(target[0], height=target[1], size="force", no_rotate=True, linear=linear, **options)
    )


def _scaled_exactly(decoded: Any, stored: tuple[int, int], target: tuple[int, int]) -> Any:
    """Return pixels decoded at m/8 of the size, scaled to the target.

    The decoder rounds sizes up, so the last row and column may lie mostly outside the picture. Scaling what it gave by
    target / decoded would shift the picture by up to one pixel; here the factor is that of the whole picture.
    """
    if (decoded.width, decoded.height) == target:
        return decoded
    longer = 0 if stored[0] >= stored[1] else 1
    eighths = max(1, (decoded.width, decoded.height)[longer] * 8 // stored[longer])
    width, height = (side * eighths / 8 for side in stored)
    inside = decoded.crop(0, 0, max(1, round(width)), max(1, round(height)))
    scaled = inside.resize(target[0] / width, vscale=target[1] / height, kernel="lanczos3")
    if (scaled.width, scaled.height) == target:
        return scaled
    return inside.resize(target[0] / inside.width, vscale=target[1] / inside.height, kernel="lanczos3")


def _webp(data: bytes | None, target: tuple[int, int], *, linear: bool) -> Any:
    import pyvips

    options = _colour_options(pyvips.Image.new_from_buffer(data, ""))
    return without_profile(
        pyvips.Image.thumbnail_buffer(
            data, target[0], height=target[1], size="force", no_rotate=True, linear=linear, fail_on="error", **options
        ).copy_memory()
    )


def _colour_options(vips: Any) -> dict[str, Any]:
    """Return the options of `vips_thumbnail` that end in sRGB; grey without a profile stays grey."""
    if has_profile(vips) or vips.interpretation == "cmyk":
        return {"output_profile": "srgb", "intent": "relative"}
    return {}


def _decoded(compute: Callable[[], Any]) -> Any:
    import pyvips

    try:
        return compute()
    except pyvips.Error as error:
        raise rejection_from(error) from error


def _is_webp(data: bytes | None) -> bool:
    return data is not None and data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def _tagged(vips: Any, orientation: int) -> Any:
    import pyvips

    tagged = vips.copy()
    tagged.set_type(pyvips.GValue.gint_type, ORIENTATION_FIELD, orientation)
    return tagged
