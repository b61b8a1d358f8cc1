"""Hashes and measures of the photographs, compared with those recorded in photographs.json.

`PIXLOOM_UPDATE_GOLDEN=1 pytest tests/golden/ops` records them anew; look at the difference before it is kept.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pixloom_executor.ops.analyse import brightness, sharpness, stats
from pixloom_executor.ops.hashes import content, perceptual
from pixloom_executor.ops.image_thumbnail import thumbnail
from tests.unit.ops.photos import bits_between, image

RECORDED = Path(__file__).with_name("photographs.json")
NAMES = (
    "astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "horse.png", "hubble_deep_field.jpg",
    "ihc.png", "logo.png", "moon.png", "motorcycle_left.png", "page.png", "retina.jpg", "rocket.jpg", "text.png",
)  # fmt: skip
HASHES: Any = ("pdq256", "phash64", "dhash64")


def _measured(name: str) -> dict[str, Any]:
    photo = image(name)
    small = thumbnail(photo, width=256)
    result: dict[str, Any] = {"thumbnail": [small.vips.width, small.vips.height, small.vips.bands]}
    for found in (content(photo), brightness(photo), sharpness(photo), stats(photo)):
        result.update(found)
    for algorithm in HASHES:
        result.update(perceptual(photo, algorithm=algorithm))
    result["thumbnail_mean"] = stats(small)["stats_mean"]
    return result


@pytest.fixture(scope="module")
def recorded() -> dict[str, dict[str, Any]]:
    if os.environ.get("PIXLOOM_UPDATE_GOLDEN"):
        found = {name: _measured(name) for name in NAMES}
        RECORDED.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    result: dict[str, dict[str, Any]] = json.loads(RECORDED.read_text())
    return result


@pytest.mark.parametrize("name", NAMES)
def test_photograph_has_the_recorded_hashes_and_measures(name: str, recorded: Any) -> None:
    expected, measured = recorded[name], _measured(name)
    assert set(measured) == set(expected)
    for column, value in expected.items():
        if column in HASHES:
            # The last digits of floating-point sums differ between processors; a bit on the edge may fall the other way.
            assert bits_between(measured[column], value) <= 2, column
        elif isinstance(value, float) or (isinstance(value, list) and isinstance(value[0], float)):
            assert measured[column] == pytest.approx(value, rel=0.01, abs=0.05), column
        else:
            assert measured[column] == value, column
