"""Pixels as numpy arrays of a shape one can rely on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["pixel_array", "plane_array"]


def pixel_array(vips: Any) -> NDArray[Any]:
    """Return the pixels of a pyvips image as an array height x width x bands, which pyvips squeezes when sides are 1."""
    pixels: NDArray[Any] = vips.numpy().reshape(vips.height, vips.width, vips.bands)
    return pixels


def plane_array(vips: Any) -> NDArray[np.uint8]:
    """Return an 8-bit pyvips image of one band as an array height x width."""
    plane: NDArray[np.uint8] = vips.numpy().reshape(vips.height, vips.width)
    return plane
