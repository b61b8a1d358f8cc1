"""A scheduler that serves verbs over a real PostgreSQL, for the tests that need no other one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pixloom_scheduler.journal import schema
from tests.support.scheduler_verbs import Scheduler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    made = schema.create_engine(database_url)
    await schema.upgrade(made)
    await schema.add_days(made)
    yield made
    await made.dispose()


@pytest.fixture
async def tasks() -> AsyncIterator[asyncio.TaskGroup]:
    async with asyncio.TaskGroup() as group:
        yield group


@pytest.fixture
async def scheduler(database_url: str, engine: AsyncEngine, tasks: asyncio.TaskGroup) -> AsyncIterator[Scheduler]:
    made = Scheduler(database_url, engine)
    await made.start(tasks)
    yield made
    await made.stop()
