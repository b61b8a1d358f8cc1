"""Measures of a picture as attributes: `analyse.stats`, `.sharpness`, `.brightness`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from pixloom.sdk.op import Image, op
from pixloom_executor.ops.colour import plain_srgb
from pixloom_executor.ops.luma import luma_of
from pixloom_executor.ops.resampling import area_resampled

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
    import numpy as np

    plain = plain_srgb(image.vips)
    colours = plain.extract_band(0, n=plain.bands - 1) if plain.hasalpha() else plain
    # One column each: minimum, maximum, sum, sum of squares, mean, deviation of the sample (vips_stats).
    table = colours.stats().numpy().reshape(-1, 10)[1:]
    count = colours.width * colours.height
    mean = table[:, 2] / count
    variance = np.maximum(table[:, 3] / count - mean**2, 0.0)
    shares = np.bincount(luma_of(image).ravel(), minlength=256) / count
    shares = shares[shares > 0]
    return {
        "stats_min": [int(value) for value in table[:, 0]],
        "stats_max": [int(value) for value in table[:, 1]],
        "stats_mean": [round(float(value), 4) for value in mean],
        "stats_stddev": [round(float(value), 4) for value in np.sqrt(variance)],
        "stats_entropy": round(abs(float(-(shares * np.log2(shares)).sum())), 4),
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
    - **Tolerance:** 5 % between encodings of one photograph; rounded to 4 decimals.
    - **Source:** J. L. Pech-Pacheco and others, Diatom autofocusing in brightfield microscopy, 2000,
      doi:10.1109/ICPR.2000.903548.
    """
    width, height = image.record.width, image.record.height
    longer, shorter = max(width, height, 1), min(width, height)
    scale = min(1.0, max_side / longer)
    plane: NDArray[np.generic] = luma_of(image, min_side=max(1, int(shorter * scale)) if scale < 1 else 0)
    rows, columns = plane.shape
    scale = min(1.0, max_side / max(rows, columns))
    if scale < 1:
        plane = area_resampled(plane, max(1, int(rows * scale + 0.5)), max(1, int(columns * scale + 0.5)))
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


def laplacian_variance(plane: NDArray[np.generic]) -> float:
    """Return the variance of the 4-neighbour Laplacian over the inner pixels of a plane; 0 below 3x3."""
    import numpy as np

    if min(plane.shape) < 3:
        return 0.0
    grey = plane.astype(np.float32)
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    return float(laplacian.var(dtype=np.float64))
