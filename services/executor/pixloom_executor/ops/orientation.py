"""EXIF orientation: what the eight values mean for sizes and pixels.

Source: CIPA DC-008-2023 (Exif 3.0), tag 0x0112.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pixloom.sdk.image import Image

__all__ = ["ORIENTATION_FIELD", "orientation_of", "swaps_sides", "upright", "upright_array"]

ORIENTATION_FIELD: Final = "orientation"


def orientation_of(image: Image) -> int:
    """Return the orientation 1 to 8 of an image, from its record if that was probed, else from the pixels."""
    value = image.record.orientation
    if not value and not image.record.width:
        vips = image.vips
        value = int(vips.get(ORIENTATION_FIELD)) if vips.get_typeof(ORIENTATION_FIELD) else 1
    return value if 1 <= value <= 8 else 1


def swaps_sides(orientation: int) -> bool:
    """Return whether width and height change places when the image is turned upright."""
    return orientation >= 5


def upright(vips: Any, orientation: int) -> Any:
    """Return pixels turned upright, the orientation tag removed.

    Args:
        vips: A pyvips image whose own tag is ignored.
        orientation: 1 to 8.
    """
    if orientation == 1:
        return vips.autorot() if vips.get_typeof(ORIENTATION_FIELD) else vips
    tagged = vips.copy()
    tagged.set_type(_int_type(), ORIENTATION_FIELD, orientation)
    return tagged.autorot()


def upright_array(pixels: NDArray[np.generic], orientation: int) -> NDArray[np.generic]:
    """Return an array (height x width, or with bands behind) turned upright."""
    import numpy as np

    match orientation:
        case 2:
            return np.fliplr(pixels)
        case 3:
            return np.rot90(pixels, 2)
        case 4:
            return np.flipud(pixels)
        case 5:
            return np.swapaxes(pixels, 0, 1)
        case 6:
            return np.rot90(pixels, -1)
        case 7:
            return np.rot90(np.swapaxes(pixels, 0, 1), 2)
        case 8:
            return np.rot90(pixels, 1)
        case _:
            return pixels


def _int_type() -> Any:
    import pyvips

    return pyvips.GValue.gint_type
