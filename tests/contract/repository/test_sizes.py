"""Modules stay small enough to be read in one go."""

from __future__ import annotations

from statistics import median, quantiles
from typing import TYPE_CHECKING

import pytest

from tests.support.repository import ROOT, modules

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_LINES = 500
USUAL_LINES = 300
USUAL_MEDIAN = 130


def lines_of(*folders: str) -> dict[str, int]:
    counts = {}
    for path in modules(*folders):
        with path.open("rb") as file:
            counts[path.relative_to(ROOT).as_posix()] = sum(1 for _ in file)
    return counts


@pytest.mark.parametrize("folders", [("src", "services", "tools"), ("tests",)], ids=["code", "tests"])
def test_modules_are_small(folders: tuple[str, ...], record_property: Callable[[str, object], None]) -> None:
    counts = lines_of(*folders)
    sizes = list(counts.values())
    record_property("median_lines", median(sizes))
    assert [f"{path} has {lines} lines" for path, lines in counts.items() if lines > MOST_LINES] == []
    assert quantiles(sizes, n=10)[-1] <= USUAL_LINES
    assert median(sizes) <= USUAL_MEDIAN
