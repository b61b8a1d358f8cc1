"""Checks that decide whether an image goes on: `check.decode` and `check.size`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from pixloom.sdk.encoding import decode_file, rejection_from
from pixloom.sdk.op import Filtered, Image, op
from pixloom_executor.ops.orientation import orientation_of, swaps_sides
from pixloom_executor.ops.scaled_jpeg import is_jpeg, jpeg_is_flawless

__all__ = ["decode", "size"]


@op("check.decode", version=1, cost_hint_s=0.01)
def decode(
    image: Image,
    *,
    level: Annotated[
        Literal["header", "full"], Field(description="header: what the file claims to be; full: every pixel")
    ] = "full",
    fail_on: Annotated[
        Literal["none", "truncated", "error", "warning"],
        Field(description="Least damage that rejects at level full; ops that need the pixels never accept errors"),
    ] = "error",
) -> Image:
    """Reject images that cannot be decoded.

    - **Colour, alpha, orientation:** unchanged; the image passes as it is, with its bytes.
    - **Rejects:** TRUNCATED if the file ends too early, DECODE_ERROR for any other damage.
    - **Animations:** the first frame.
    - **Source:** `fail_on` of the libvips loaders; a JPEG that libjpeg-turbo decodes without any warning passes at once.
    """
    data = image.source_bytes
    if data is None:
        return image
    if level == "header":
        _read_header(data)
    elif not (is_jpeg(data) and jpeg_is_flawless(data)):
        if fail_on == "error":
            _touch(image.vips)
        else:
            decode_file(data, format=image.record.format, fail_on=fail_on)
    return image


@op("check.size", version=1, cost_hint_s=0.0005)
def size(
    image: Image,
    *,
    min_width: Annotated[int, Field(ge=0, description="Least width in pixels, upright")] = 0,
    min_height: Annotated[int, Field(ge=0, description="Least height in pixels, upright")] = 0,
    max_pixels: Annotated[int | None, Field(ge=1, description="Greatest width x height")] = None,
    min_bytes: Annotated[int, Field(ge=0, description="Least length of the file in bytes")] = 0,
    max_bytes: Annotated[int | None, Field(ge=1, description="Greatest length of the file in bytes")] = None,
) -> Image:
    """Filter out images that are too small or too large.

    - **Pixels:** not decoded; width and height come from the header.
    - **Orientation:** respected: width and height are those of the upright picture.
    - **Filters:** TOO_NARROW, TOO_LOW, TOO_MANY_PIXELS, FILE_TOO_SMALL, FILE_TOO_LARGE; the first that fits, in this
      order. Lengths are those of the file the image comes from; without a file they are not checked.
    """
    width, height = _upright_size(image)
    if width < min_width:
        raise Filtered("TOO_NARROW", f"{width} px wide, at least {min_width} px wanted")
    if height < min_height:
        raise Filtered("TOO_LOW", f"{height} px high, at least {min_height} px wanted")
    if max_pixels is not None and width * height > max_pixels:
        raise Filtered("TOO_MANY_PIXELS", f"{width}x{height} are {width * height} pixels, at most {max_pixels} wanted")
    length = image.record.size_bytes or (len(image.source_bytes) if image.source_bytes is not None else None)
    if length is None:
        return image
    if length < min_bytes:
        raise Filtered("FILE_TOO_SMALL", f"{length} bytes, at least {min_bytes} wanted")
    if max_bytes is not None and length > max_bytes:
        raise Filtered("FILE_TOO_LARGE", f"{length} bytes, at most {max_bytes} wanted")
    return image


def _upright_size(image: Image) -> tuple[int, int]:
    width, height = image.record.width, image.record.height
    if not (width and height):
        width, height = image.vips.width, image.vips.height
    return (height, width) if swaps_sides(orientation_of(image)) else (width, height)


def _read_header(data: bytes) -> None:
    import pyvips

    try:
        _touch(pyvips.Image.new_from_buffer(data, ""))
    except pyvips.Error as error:
        raise rejection_from(error) from error


def _touch(vips: Any) -> int:
    return int(vips.width)
