"""Fixtures of the executor's unit tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.executor.tasks import Bench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A runner in this process with a store of its own."""
    bench = Bench(tmp_path)
    yield bench
    bench.runner.close()
