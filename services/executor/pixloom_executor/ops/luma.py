"""The grey plane that hashes and measures look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pixloom_executor.ops.arrays import plane_array
from pixloom_executor.ops.colour import flattened, plain_srgb, without_profile
from pixloom_executor.ops.orientation import orientation_of, upright_array
from pixloom_executor.ops.scaled_jpeg import scaled_luma

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pixloom.sdk.image import Image

__all__ = ["luma_image", "luma_of", "luma_of_pixels"]

# ITU-R BT.601-7, section 2.5.1; JFIF uses the same weights for its Y.
_WEIGHTS: Final = (0.299, 0.587, 0.114)


def luma_of(image: Image, *, min_side: int = 0) -> NDArray[np.uint8]:
    """Return the BT.601 luma of an image, upright, alpha over white.

    The profile of an RGB image is not applied. A JPEG is decoded to the smallest m/8 of its size that still has both
    sides at least `min_side` (0: at full size), any other image at full size.

    Args:
        image: The image.
        min_side: Least side in pixels; 0 means full size.

    Returns:
        An array height x width.

    Raises:
        Reject: if the image cannot be decoded.
    """
    orientation = orientation_of(image)
    side = min_side or max(image.record.width, image.record.height)
    plane = scaled_luma(image, min_side=side) if side else None
    if plane is None:
        plane = luma_of_pixels(image.vips)
    turned: NDArray[np.uint8] = upright_array(plane, orientation)  # type: ignore[assignment]
    return turned


def luma_of_pixels(vips: Any) -> NDArray[np.uint8]:
    """Return the BT.601 luma of a pyvips image as stored, alpha over white, as an array height x width."""
    return plane_array(luma_image(vips))


def luma_image(vips: Any) -> Any:
    """Return the BT.601 luma of a pyvips image as stored, alpha over white, as an 8-bit pyvips image of one band."""
    plain = flattened(plain_srgb(vips if vips.interpretation == "cmyk" else without_profile(vips)))
    return plain[0:3].recomb([list(_WEIGHTS)]).rint().cast("uchar") if plain.bands >= 3 else plain[0]
