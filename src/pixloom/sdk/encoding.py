"""Files to pixels and pixels to files, through libvips.

Decoding fails on the first error (`fail_on=error`) instead of giving grey areas. Encoding for delivery turns the image
upright and removes all metadata but the ICC profile, so that no position or owner leaves with a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from pixloom.sdk.outcome import Reject

__all__ = ["MEDIA_TYPES", "Encoded", "Encoding", "decode_file", "encode_for_delivery", "rejection_from"]

MEDIA_TYPES: Final = MappingProxyType(
    {
        "jpeg": "image/jpeg",
        "png": "image/png",
        "webp": "image/webp",
        "gif": "image/gif",
        "tiff": "image/tiff",
        "heif": "image/avif",
    }
)

# Savers of libvips with the options sharp uses by default (its documentation of jpeg(), png(), webp(), avif(), tiff()).
_SAVERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "jpeg": (".jpg", {"Q": 80}),
    "png": (".png", {"compression": 6}),
    "webp": (".webp", {"Q": 80}),
    "gif": (".gif", {}),
    "tiff": (".tif", {"compression": "deflate", "predictor": "horizontal"}),
    "heif": (".avif", {"Q": 50, "effort": 4, "compression": "av1"}),
}

_TRUNCATION_WORDS: Final = ("premature end", "truncat", "unexpected end", "end of stream", "not enough", "out of data")


@dataclass(frozen=True, slots=True)
class Encoding:
    """How an image is to be delivered.

    Attributes:
        format: jpeg, png, webp, gif, tiff or heif (AVIF).
        options: Names and values of options of the libvips saver, sorted by name.
    """

    format: str
    options: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Encoded:
    """A file in memory.

    Attributes:
        data: The bytes.
        format: Format as libvips names it.
        width: Width in pixels; 0 if it is that of the record.
        height: Height in pixels; 0 if it is that of the record.
        has_alpha: Whether the file has an alpha channel; None if that is as in the record.
    """

    data: bytes
    format: str
    width: int = 0
    height: int = 0
    has_alpha: bool | None = None


def decode_file(data: bytes, *, format: str = "", fail_on: str = "error") -> Any:  # noqa: A002 - the record's name
    """Decode the first frame of a file whole into memory.

    Args:
        data: The bytes of the file; its header was probed before.
        format: Format that the probe found; empty lets libvips look for itself.
        fail_on: Lowest kind of damage that fails: none, truncated, error or warning.

    Returns:
        A pyvips image in memory.

    Raises:
        Reject: with TRUNCATED or DECODE_ERROR.
    """
    import pyvips

    try:
        if format:
            return pyvips.Operation.call(f"{format}load_buffer", data, fail_on=fail_on).copy_memory()
        return pyvips.Image.new_from_buffer(data, "", fail_on=fail_on).copy_memory()
    except pyvips.Error as error:
        raise rejection_from(error) from error


def rejection_from(error: Exception) -> Reject:
    """Return the rejection that an error of libvips while decoding means.

    Raises:
        MemoryError: if libvips ran out of memory, which says nothing about the image alone.
    """
    text = " ".join(str(error).split())[:500]
    if "out of memory" in text.lower():
        raise MemoryError(text) from error
    truncated = any(word in text.lower() for word in _TRUNCATION_WORDS)
    if truncated:
        return Reject("TRUNCATED", f"the file ends before the image does: {text}")
    return Reject("DECODE_ERROR", f"the image cannot be decoded: {text}")


def encode_for_delivery(vips: Any, encoding: Encoding) -> Encoded:
    """Encode pixels as a file without metadata, turned upright.

    Args:
        vips: A pyvips image.
        encoding: Format and saver options.

    Returns:
        The file.

    Raises:
        Reject: with ENCODE_ERROR if the format cannot hold the image.
    """
    import pyvips

    saver = _SAVERS.get(encoding.format)
    if saver is None:
        raise Reject("ENCODE_ERROR", f"there is no encoder for {encoding.format!r}; use one of {', '.join(_SAVERS)}")
    suffix, defaults = saver
    options = {"keep": "icc", **defaults, **dict(encoding.options)}
    if options.get("lossless"):
        options.pop("Q", None)
    try:
        upright = vips.autorot() if vips.get_typeof("orientation") and vips.get("orientation") != 1 else vips
        data = upright.write_to_buffer(suffix, **options)
    except pyvips.Error as error:
        text = " ".join(str(error).split())[:500]
        raise Reject("ENCODE_ERROR", f"the image cannot be written as {encoding.format}: {text}") from error
    return Encoded(
        data=data,
        format=encoding.format,
        width=upright.width,
        height=upright.height,
        has_alpha=bool(upright.hasalpha()) and encoding.format != "jpeg",
    )
