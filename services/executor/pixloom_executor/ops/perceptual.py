"""Perceptual hashes of a luma plane: PDQ, the DCT hash and the difference hash.

All three reduce the plane with linear filters, so they are matrix products here. Bits are written most significant
first; two pictures are as far apart as the number of bits in which their hashes differ.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from pixloom_executor.ops.resampling import area_resampled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["dhash64", "pdq256", "pdq_coefficients", "phash64"]

# The hashing PDF of PDQ (Facebook, 2019) fixes the 64x64 plane, 16x16 coefficients, two passes of the tent filter and
# the smallest side that can be hashed.
_PDQ_PLANE: Final = 64
_PDQ_COEFFICIENTS: Final = 16
_PDQ_MIN_SIDE: Final = 5
# Sums of floating-point products differ in the last digits between processors; rounding keeps an even area at 0.
_DECIMALS: Final = 6


def pdq256(plane: NDArray[np.generic]) -> tuple[str, int]:
    """Return the PDQ hash, 64 hexadecimal digits, and its quality.

    Source: Facebook, PDQ and TMK+PDQF, 2019 (the hashing paper in the ThreatExchange repository): luma, tent filter in
    two box passes, decimation to 64x64, 16x16 DCT coefficients without the constant ones, compared with their median.

    Args:
        plane: Luma, 0 to 255, height x width; below 5x5 the hash is all zeros with quality 0.

    Returns:
        The hash, bit 255 first as in the reference implementation, and the quality 0 (even area) to 100; hashes with a
        quality below 50 should not be matched.
    """
    import numpy as np

    if min(plane.shape) < _PDQ_MIN_SIDE:
        return "0" * 64, 0
    small, coefficients = pdq_coefficients(plane)
    median = np.partition(coefficients.ravel(), 127)[127]
    bits = (coefficients > median).ravel()
    steps = [np.abs(np.trunc(np.diff(small, axis=axis) * 100 / 255)).sum() for axis in (0, 1)]
    return _hexadecimal(bits[::-1]), min(100, int(sum(steps)) // 90)


def pdq_coefficients(plane: NDArray[np.generic]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the 64x64 reduction of a plane and the 16x16 DCT coefficients that PDQ compares."""
    import numpy as np

    rows, columns = plane.shape
    small = plane.astype(np.float64)
    if plane.shape != (_PDQ_PLANE, _PDQ_PLANE):
        small = _tent_decimation(rows) @ small @ _tent_decimation(columns).T
    dct = _dct_rows(_PDQ_PLANE, _PDQ_COEFFICIENTS)
    return small, np.round(dct @ small @ dct.T, _DECIMALS)


def phash64(plane: NDArray[np.generic]) -> str:
    """Return the DCT hash, 16 hexadecimal digits.

    Source: C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, section 3.2.1: 32x32
    reduction, DCT-II, coefficients 1 to 8 of both directions compared with their median. The reduction here is the mean
    of the area covered, which takes the place of the 7x7 mean filter.

    Args:
        plane: Luma, height x width.
    """
    import numpy as np

    dct = _dct_rows(32, 8)
    coefficients = np.round(dct @ area_resampled(plane, 32, 32) @ dct.T, _DECIMALS)
    return _hexadecimal((coefficients > np.median(coefficients)).ravel())


def dhash64(plane: NDArray[np.generic]) -> str:
    """Return the difference hash, 16 hexadecimal digits.

    Source: N. Krawetz, Kind of Like That, 2013: 9x8 reduction, a bit for every sample that is brighter than its left
    neighbour.

    Args:
        plane: Luma, height x width.
    """
    import numpy as np

    small = np.round(area_resampled(plane, 8, 9), _DECIMALS)
    return _hexadecimal((small[:, 1:] > small[:, :-1]).ravel())


def _hexadecimal(bits: NDArray[np.bool_]) -> str:
    import numpy as np

    return np.packbits(bits).tobytes().hex()


@lru_cache(maxsize=4)
def _dct_rows(size: int, count: int) -> NDArray[np.float64]:
    """Return rows 1 to `count` of the orthonormal DCT-II matrix of `size` points."""
    import numpy as np

    frequency = np.arange(1, count + 1)[:, None]
    position = np.arange(size)[None, :]
    matrix: NDArray[np.float64] = np.sqrt(2.0 / size) * np.cos(np.pi / (2 * size) * frequency * (2 * position + 1))
    return matrix


@lru_cache(maxsize=32)
def _tent_decimation(length: int) -> NDArray[np.float64]:
    """Return the matrix 64 x `length` that filters twice with a box and takes 64 samples.

    The box is ceil(length / 128) samples wide, reaches (width + 2) // 2 - 1 samples ahead, and at the ends of the line
    is the mean of the samples that exist.
    """
    import numpy as np

    window = (length + 2 * _PDQ_PLANE - 1) // (2 * _PDQ_PLANE)
    ahead = (window + 2) // 2
    position = np.arange(length)
    offset = position[None, :] - position[:, None]
    box = ((offset >= ahead - window) & (offset < ahead)).astype(np.float64)
    box /= box.sum(axis=1, keepdims=True)
    taken = ((np.arange(_PDQ_PLANE) + 0.5) * length / _PDQ_PLANE).astype(np.intp)
    matrix: NDArray[np.float64] = box[taken] @ box
    return matrix
