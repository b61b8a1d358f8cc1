"""Two schedulers keep a limit together, and each tells what its share is."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from pixloom.sdk.aio import AsyncClient
from tests.e2e.engine.test_schedulers import level
from tests.support.engine import Engine, running_engine
from tests.support.gate import Gate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pixloom.resources import Attempt, Job

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("engine-shared-limits")]

LIMIT = 3
SLOTS = 4
NUMBERS = {"id": "numbers", "op": "debug.range", "params": {"count": 4}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    """A stack with two schedulers and more slots than the limit."""
    environment = {"PIXLOOM_LIMITS": f"op.tests.pass_gate={LIMIT}", "PIXLOOM_EXECUTOR_SLOTS": str(SLOTS)}
    folder = tmp_path_factory.mktemp("engine")
    async with running_engine(
        folder, environment=environment, imports=["tests.support.user_ops"], schedulers=2
    ) as made:
        yield made


def most_at_once(attempts: list[Attempt]) -> int:
    """Return how many attempts were under way at the same time at most."""
    steps = [(each.start_time, 1) for each in attempts] + [(each.end_time, -1) for each in attempts]
    now = most = 0
    for _, step in sorted((time, step) for time, step in steps if time is not None):
        now += step
        most = max(most, now)
    return most


async def test_two_schedulers_never_run_more_than_a_limit_allows(engine: Engine, tmp_path: Path) -> None:
    gates = [Gate(tmp_path), Gate(tmp_path)]
    async with contextlib.AsyncExitStack() as stack:
        database = await asyncpg.connect(engine.stack.wiring.database_url)
        stack.push_async_callback(database.close)
        await level(engine, database)
        running: list[Job] = []
        behind: list[Job] = []
        for port, gate in zip(engine.stack.wiring.scheduler_ports, gates, strict=True):
            # A job stays with the scheduler that took it.
            client = await stack.enter_async_context(AsyncClient(f"127.0.0.1:{port}"))
            spec = {"name": "test", "nodes": [NUMBERS, gate.node("step")]}
            running.append(await client.create_job(spec=spec))
            await engine.until(running[-1].id, lambda snapshot: snapshot.nodes[1].state == "RUNNING")
            behind.append(await client.create_job(spec=spec))
        reasons = await asyncio.gather(*(engine.until_waits(job.id, "step", "share") for job in behind))
        assert sorted(reasons) == [f"share {share} of limit {LIMIT} reached: op tests.pass_gate" for share in (1, 2)]
        shares = [int(reason.split()[1]) for reason in reasons]
        for share, gate in zip(shares, gates, strict=True):
            await gate.until_waiting(share)
            gate.open()
        attempts: list[Attempt] = []
        for job in (*running, *behind):
            assert (await engine.finish(job.id)).state == "COMPLETED"
            attempts += await engine.attempts(job.id, "step")
    assert len(attempts) == 16
    assert most_at_once(attempts) == LIMIT
