"""Pools of real child processes and a gate in them, for the tests that need no other ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pixloom_executor.children import ChildPool
from tests.support.child_pools import ChildGate, child_settings, flaky_pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[ChildPool]:
    """Two children with the built-in ops."""
    pool = ChildPool(slots=2, settings=child_settings(tmp_path))
    await pool.start()
    yield pool
    await pool.stop()


@pytest.fixture
async def flaky(tmp_path: Path) -> AsyncIterator[ChildPool]:
    """One child, also with ops that go wrong."""
    async with flaky_pool(tmp_path) as made:
        yield made


@pytest.fixture
def gate(tmp_path: Path) -> ChildGate:
    """A closed gate, for the child of `flaky`."""
    return ChildGate(tmp_path)
