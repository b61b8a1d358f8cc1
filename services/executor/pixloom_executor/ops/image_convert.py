"""`image.convert`: the format and options an image is delivered in.

The op fits the pixels to the format and notes how they are to be encoded; the file itself is written once, where the
workflow delivers the image.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from pixloom.sdk.op import Image, op
from pixloom_executor.ops.colour import flattened, hex_colour, plain_srgb

__all__ = ["convert", "saver_options"]

Format = Literal["jpeg", "png", "webp", "avif", "tiff", "gif"]

# The record names formats as libvips does, which calls AVIF by its container.
_LOADER_NAME: Final = {"avif": "heif"}
# Highest `effort` that the libvips saver takes: webpsave, heifsave, gifsave, pngsave.
_MAX_EFFORT: Final = {"webp": 6, "avif": 9, "gif": 10, "png": 10}
_DEEP: Final = ("uchar", "ushort")


@op("image.convert", version=1, cost_hint_s=0.02)
def convert(
    image: Image,
    *,
    format: Annotated[Format, Field(description="Format to deliver")],  # noqa: A002 - the name users know
    quality: Annotated[
        int | None, Field(ge=1, le=100, description="Quality of lossy formats; the default depends on the format")
    ] = None,
    effort: Annotated[
        int | None,
        Field(ge=0, le=10, description="0 fast to 10 small: WebP, AVIF, GIF, PNG palette; clamped to the format"),
    ] = None,
    lossless: Annotated[bool, Field(description="Lossless coding in WebP and AVIF")] = False,
    chroma_subsampling: Annotated[
        Literal["4:4:4", "4:2:0"] | None, Field(description="JPEG and AVIF; by default decided by the quality")
    ] = None,
    progressive: Annotated[bool, Field(description="Interlaced JPEG, PNG and GIF")] = False,
    background: Annotated[
        str, Field(pattern=r"^#[0-9a-fA-F]{6}$", description="Colour put behind transparency in JPEG: #rrggbb")
    ] = "#ffffff",
) -> Image:
    """Deliver the picture in another format.

    - **Colour:** JPEG, WebP, AVIF and GIF get 8-bit sRGB or grey, an embedded profile applied; PNG and TIFF keep 8 or
      16 bits and the profile, and turn CMYK, Lab and float into sRGB.
    - **Alpha:** kept, except in JPEG, where it is put over `background`.
    - **Orientation:** kept as a tag; the delivered file is upright.
    - **Animations:** the first frame.
    - **Options:** one that a format does not have is ignored. TIFF is deflate-compressed.
    - **Tolerance:** PNG and TIFF are lossless, WebP and AVIF with `lossless`.
    - **Source:** jpegsave, pngsave, webpsave, heifsave, tiffsave, gifsave (libvips).
    """
    vips = image.vips
    pixels = _fitting(vips, format, hex_colour(background)[:3])
    prepared = image if pixels is vips else image.with_vips(pixels.copy_memory())
    options = saver_options(
        format,
        quality=quality,
        effort=effort,
        lossless=lossless,
        chroma_subsampling=chroma_subsampling,
        progressive=progressive,
    )
    return prepared.with_encoding(_LOADER_NAME.get(format, format), **options)


def saver_options(
    format: Format,  # noqa: A002
    *,
    quality: int | None = None,
    effort: int | None = None,
    lossless: bool = False,
    chroma_subsampling: str | None = None,
    progressive: bool = False,
) -> dict[str, Any]:
    """Return the options of the libvips saver; what the format does not have is left out."""
    options: dict[str, Any] = {}
    if quality is not None and format in ("jpeg", "webp", "avif"):
        options["Q"] = quality
    if effort is not None and format in _MAX_EFFORT:
        options["effort"] = min(max(effort, 1 if format in ("gif", "png") else 0), _MAX_EFFORT[format])
    if lossless and format in ("webp", "avif"):
        options["lossless"] = True
    if chroma_subsampling is not None and format in ("jpeg", "avif"):
        options["subsample_mode"] = "on" if chroma_subsampling == "4:2:0" else "off"
    if progressive and format in ("jpeg", "png", "gif"):
        options["interlace"] = True
    return options


def _fitting(vips: Any, format: Format, background: tuple[int, int, int]) -> Any:  # noqa: A002
    """Return pixels that the format can hold; the same object if they already fit."""
    match format:
        case "png" | "tiff":
            kept = vips.format in _DEEP and vips.interpretation in ("srgb", "b-w", "rgb16", "grey16", "rgb")
            return vips if kept else plain_srgb(vips)
        case "jpeg":
            return flattened(plain_srgb(vips), background)
        case _:
            return plain_srgb(vips)
