"""Shrink-on-load for JPEG: libjpeg-turbo decodes straight to m/8 of the size.

Decoding through simplejpeg takes about half the time of libvips' streaming loader and gives, at full size, the same
pixels bit for bit. What it cannot do (CMYK, YCCK, damaged files) is left to libvips by returning None.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pixloom_executor.jpeg_header import read_jpeg_header

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pixloom.sdk.image import Image

__all__ = ["is_jpeg", "jpeg_is_flawless", "scaled_luma", "scaled_pixels"]

_MAGIC: Final = b"\xff\xd8\xff"


def is_jpeg(data: bytes | None) -> bool:
    """Return whether a file begins like a JPEG; None, for no file, does not."""
    return data is not None and data[:3] == _MAGIC


def jpeg_is_flawless(data: bytes) -> bool:
    """Return whether libjpeg-turbo decodes the whole JPEG without an error or a warning."""
    import simplejpeg

    try:
        simplejpeg.decode_jpeg(data, _colourspace(data) or "CMYK", strict=True)
    except ValueError:
        return False
    return True


def scaled_pixels(image: Image, *, min_width: int, min_height: int) -> Any | None:
    """Return an image decoded to the smallest m/8 of its size that is not smaller than asked.

    Args:
        image: The image; its `source_bytes` are decoded.
        min_width: Least width in pixels, along the stored axes.
        min_height: Least height in pixels, along the stored axes.

    Returns:
        A pyvips image, 8-bit grey or RGB as stored, any profile still to be applied (attached); None if there is no
        JPEG or libvips must decode it.
    """
    import pyvips

    data = image.source_bytes
    colourspace = _colourspace(data) if data is not None and is_jpeg(data) else None
    if data is None or colourspace is None:
        return None
    pixels = _decode(data, colourspace, min_width, min_height)
    if pixels is None:
        return None
    height, width, bands = pixels.shape
    vips = pyvips.Image.new_from_memory(pixels, width, height, bands, "uchar")
    vips = vips.copy(interpretation="b-w" if bands == 1 else "srgb")
    profile = _profile(data) if image.record.icc else None
    if profile is not None:
        vips.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    return vips


def scaled_luma(image: Image, *, min_side: int) -> NDArray[np.uint8] | None:
    """Return the Y plane of a JPEG, decoded to the smallest m/8 of its size with both sides at least `min_side`.

    Returns:
        An array height x width; None if there is no JPEG or libvips must decode it.
    """
    data = image.source_bytes
    if data is None or not is_jpeg(data) or _colourspace(data) is None:
        return None
    pixels = _decode(data, "GRAY", min_side, min_side)
    return None if pixels is None else pixels[:, :, 0]


def _profile(data: bytes) -> bytes | None:
    """Return the ICC profile embedded in a JPEG, None if there is none."""
    import pyvips

    header = read_jpeg_header(data)
    if header is not None:
        return header.profile
    unusual = pyvips.Operation.call("jpegload_buffer", data)
    return unusual.get("icc-profile-data") if unusual.get_typeof("icc-profile-data") else None


def _colourspace(data: bytes) -> str | None:
    import simplejpeg

    try:
        _, _, stored, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    return {"Gray": "GRAY", "YCbCr": "RGB"}.get(stored)


def _decode(data: bytes, colourspace: str, min_width: int, min_height: int) -> NDArray[np.uint8] | None:
    import simplejpeg

    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data, colourspace, min_width=min_width, min_height=min_height
        )
    except ValueError:
        return None
    return pixels
