from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from tests.support.engine import Engine, running_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    """A stack for one module of tests."""
    async with running_engine(tmp_path_factory.mktemp("engine"), imports=["tests.support.user_ops"]) as made:
        yield made
