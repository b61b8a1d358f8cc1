"""Area resampling of planes with numpy: every output sample is the mean of the area it covers."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["area_resampled"]


def area_resampled(plane: NDArray[np.generic], rows: int, columns: int) -> NDArray[np.float64]:
    """Return a plane of `rows` x `columns`, each sample the mean of its share of the area.

    Args:
        plane: Array height x width.
        rows: Height of the result.
        columns: Width of the result.
    """
    import numpy as np

    result: NDArray[np.float64] = (
        _shares(plane.shape[0], rows) @ plane.astype(np.float64) @ _shares(plane.shape[1], columns).T
    )
    return result


@lru_cache(maxsize=64)
def _shares(source: int, target: int) -> NDArray[np.float64]:
    """Return the matrix target x source that averages `source` samples to `target`."""
    import numpy as np

    edges = np.arange(target + 1) * (source / target)
    low, high = edges[:-1, None], edges[1:, None]
    position = np.arange(source)[None, :]
    overlap = np.clip(np.minimum(high, position + 1) - np.maximum(low, position), 0.0, None)
    matrix: NDArray[np.float64] = overlap / overlap.sum(axis=1, keepdims=True)
    return matrix
