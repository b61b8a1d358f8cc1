"""Measures of a picture as attributes: `analyse.stats`, `.sharpness`, `.brightness`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from pixloom.sdk.op import Image, op
from pixloom_executor.ops.arrays import plane_array
from pixloom_executor.ops.colour import plain_srgb
from pixloom_executor.ops.luma import luma_image, luma_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["brightness", "laplacian_variance", "sharpness", "stats"]


@op("analyse.stats", version=1, cost_hint_s=0.03)
def stats(image: Image) -> dict[str, Any]:
    """Measure every colour channel.

    - **Adds:** `stats_min`, `stats_max`, `stats_mean`, `stats_stddev`: one figure a channel (red, green, blue, or grey)
      on a scale of 0 to 255; `stats_entropy`: Shannon entropy of the luma in bits, 0 to 8.
    - **Colour:** 8-bit sRGB or grey, an embedded profile applied.
    - **Alpha:** left out: transparent pixels count with the colour they hide.
    - **Orientation:** does not matter.
    - **Tolerance:** standard deviation of the population, figures rounded to 4 decimals.
    - **Source:** `vips_stats` (libvips); entropy: C. E. Shannon, 1948, doi:10.1002/j.1538-7305.1948.tb01338.x.
    """
    plain = plain_srgb(image.vips)
    colours = plain.extract_band(0, n=plain.bands - 1) if plain.hasalpha() else plain
    measured = [_moments(channel) for channel in _histograms(colours)]
    minimum, maximum, mean, deviation = (list(column) for column in zip(*measured, strict=True))
    (grey,) = _histograms(luma_image(image.vips))
    return {
        "stats_min": minimum,
        "stats_max": maximum,
        "stats_mean": mean,
        "stats_stddev": deviation,
        "stats_entropy": _entropy(grey),
    }


@op("analyse.sharpness", version=1, cost_hint_s=0.008)
def sharpness(
    image: Image,
    *,
    max_side: Annotated[
        int,
        Field(
            ge=16, le=16384, description="Longer side in pixels to which larger pictures are reduced, to compare them"
        ),
    ] = 512,
) -> dict[str, Any]:
    """Measure how sharp the picture is: the variance of its Laplacian.

    - **Adds:** `sharpness`, 0 for an even area; below about 100 a photograph looks blurred.
    - **Colour:** BT.601 luma; the profile of an RGB image is not applied.
    - **Alpha:** over white.
    - **Orientation:** does not matter.
    - **Borders:** pixels on the edge have no Laplacian; a picture below 3x3 has sharpness 0.
    - **Tolerance:** 10 % between a photograph and its JPEG of quality 90; rounded to 4 decimals.
    - **Source:** J. L. Pech-Pacheco and others, Diatom autofocusing in brightfield microscopy, 2000,
      doi:10.1109/ICPR.2000.903548.
    """
    # At full size: reducing a JPEG while decoding would filter it differently from other formats.
    plane: NDArray[np.generic] = luma_of(image)
    scale = min(1.0, max_side / max(plane.shape))
    if scale < 1:
        plane = _reduced(plane, scale)
    return {"sharpness": round(laplacian_variance(plane), 4)}


@op("analyse.brightness", version=1, cost_hint_s=0.008)
def brightness(
    image: Image,
    *,
    dark_below: Annotated[
        int, Field(ge=0, le=255, description="Dark if 95 % of the pixels are at most this bright")
    ] = 64,
    light_above: Annotated[
        int, Field(ge=0, le=255, description="Light if 95 % of the pixels are at least this bright")
    ] = 192,
) -> dict[str, Any]:
    """Measure how bright the picture is.

    - **Adds:** `brightness_mean`; `brightness_p5`, `_p50`, `_p95`: levels not exceeded by so many percent of the pixels,
      0 to 255; `is_dark`, `is_light`.
    - **Colour:** BT.601 luma; the profile of an RGB image is not applied.
    - **Alpha:** over white.
    - **Orientation:** does not matter.
    - **Tolerance:** JPEGs are measured on a reduction to at least 256 px a side: two levels.
    - **Source:** percentiles by the nearest-rank method on the histogram.
    """
    import numpy as np

    plane = luma_of(image, min_side=256)
    histogram = np.bincount(plane.ravel(), minlength=256)
    cumulative = np.cumsum(histogram)
    p5, p50, p95 = (int(np.searchsorted(cumulative, np.ceil(plane.size * share))) for share in (0.05, 0.5, 0.95))
    return {
        "brightness_mean": round(float(histogram @ np.arange(256)) / plane.size, 4),
        "brightness_p5": p5,
        "brightness_p50": p50,
        "brightness_p95": p95,
        "is_dark": p95 <= dark_below,
        "is_light": p5 >= light_above,
    }


def _histograms(vips: Any) -> list[NDArray[np.int64]]:
    """Return how often each level 0 to 255 occurs, by band."""
    import numpy as np

    table = vips.hist_find().numpy().reshape(-1, vips.bands)
    counts = np.zeros((256, vips.bands), dtype=np.int64)
    counts[: len(table)] = table
    return list(counts.T)


def _moments(histogram: NDArray[np.int64]) -> tuple[int, int, float, float]:
    """Return least and greatest level, mean and standard deviation of the population."""
    import numpy as np

    levels = np.arange(256)
    present = np.flatnonzero(histogram)
    count = int(histogram.sum())
    mean = float(histogram @ levels) / count
    variance = float(histogram @ (levels - mean) ** 2) / count
    return int(present[0]), int(present[-1]), round(mean, 4), round(variance**0.5, 4)


def _entropy(histogram: NDArray[np.int64]) -> float:
    """Return the Shannon entropy of a histogram in bits."""
    import numpy as np

    shares = histogram[histogram > 0] / histogram.sum()
    return round(abs(float((shares * np.log2(shares)).sum())), 4)


def _reduced(plane: NDArray[np.generic], scale: float) -> NDArray[np.uint8]:
    """Return a plane of bytes scaled by Lanczos 3."""
    import pyvips

    rows, columns = plane.shape
    vips = pyvips.Image.new_from_memory(plane.tobytes(), columns, rows, 1, "uchar")
    target = max(1, int(rows * scale + 0.5)), max(1, int(columns * scale + 0.5))
    return plane_array(vips.resize(target[1] / columns, vscale=target[0] / rows))


def laplacian_variance(plane: NDArray[np.generic]) -> float:
    """Return the variance of the 4-neighbour Laplacian over the inner pixels of a plane; 0 below 3x3."""
    import numpy as np

    if min(plane.shape) < 3:
        return 0.0
    grey = plane.astype(np.float32)
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    return float(laplacian.var(dtype=np.float64))
