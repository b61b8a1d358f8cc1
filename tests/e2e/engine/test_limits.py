"""Limits on what runs at once, and why the others wait."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.support.engine import Engine, node_of, running_engine
from tests.support.gate import Gate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime
    from pathlib import Path

    from pixloom.resources import Job

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("engine-limits")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    limits = {"PIXLOOM_LIMITS": "jobs=3, op.debug.sleep=1, op.tests.pass_gate=1"}
    folder = tmp_path_factory.mktemp("limits")
    async with running_engine(folder, environment=limits, imports=["tests.support.user_ops"]) as made:
        yield made


NUMBERS = {"id": "numbers", "op": "debug.range", "params": {"count": 2}}


def sleeps(count: int, seconds: float, **more: Any) -> list[dict[str, Any]]:
    return [
        {"id": "numbers", "op": "debug.range", "params": {"count": count}},
        {
            "id": "step",
            "op": "debug.sleep",
            "inputs": {"items": "numbers"},
            "params": {"seconds": seconds},
            "shard_size": 1,
            "timeout_s": 900,
            **more,
        },
    ]


async def spans_of(engine: Engine, *jobs: Job) -> list[tuple[datetime, datetime]]:
    """Return when the attempts at `step` began and ended, in order."""
    attempts = [attempt for job in jobs for attempt in await engine.attempts(job.id, "step")]
    return sorted((each.start_time, each.end_time) for each in attempts if each.start_time and each.end_time)


async def test_a_limited_op_never_runs_more_often_at_once(engine: Engine) -> None:
    first, second = await asyncio.gather(engine.submit(*sleeps(8, 0.05)), engine.submit(*sleeps(8, 0.05)))
    ended = [await engine.finish(job.id) for job in (first, second)]
    assert [(job.state, job.items.ok) for job in ended] == [("COMPLETED", 8)] * 2
    spans = await spans_of(engine, first, second)
    assert len(spans) == 16
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


async def test_a_full_limit_of_an_op_is_the_reason_and_stops_nothing_else(engine: Engine) -> None:
    running = await engine.submit(*sleeps(1, 600))
    await engine.until(running.id, lambda snapshot: node_of(snapshot, "step").state == "RUNNING")
    waiting = await engine.submit(*sleeps(1, 0))
    await engine.until_waits(waiting.id, "step", "limit 1 reached: op debug.sleep")
    assert (await engine.run({"id": "other", "op": "debug.noop"})).state == "COMPLETED"
    await engine.client.cancel_job(running.id, now=True)
    assert (await engine.finish(waiting.id)).state == "COMPLETED"


async def test_jobs_beyond_the_limit_wait_for_those_in_flight(engine: Engine) -> None:
    running = [await engine.submit(*sleeps(1, 600)) for _ in range(3)]
    for job in running:
        await engine.until(job.id, lambda snapshot: node_of(snapshot, "numbers").state == "COMPLETED")
    late = await engine.submit({"id": "only", "op": "debug.noop"})
    urgent = await engine.submit({"id": "only", "op": "debug.noop"}, name="urgent")
    await engine.until_waits(late.id, "only", "limit 3 reached: jobs in flight")
    await engine.until_waits(urgent.id, "only", "limit 3 reached: jobs in flight, 1 job first")
    await engine.client.cancel_job(running.pop().id, now=True)
    assert {(await engine.finish(job.id)).state for job in (late, urgent)} == {"COMPLETED"}
    for job in running:
        await engine.client.cancel_job(job.id, now=True)
        await engine.finish(job.id)


async def test_limits_hold_over_a_restart_of_the_scheduler(engine: Engine, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    running = await engine.submit(NUMBERS, gate.node("step"))
    await engine.until(running.id, lambda snapshot: node_of(snapshot, "step").state == "RUNNING")
    await engine.stack.wait_replaced("scheduler", engine.stack.kill("scheduler"))
    await engine.stack.wait_ready()
    other = await engine.submit(NUMBERS, gate.node("step"))
    await engine.until_waits(other.id, "step", "limit 1 reached: op tests.pass_gate")
    gate.open()
    assert {(await engine.finish(job.id)).state for job in (running, other)} == {"COMPLETED"}
    spans = await spans_of(engine, running, other)
    assert len(spans) == 4
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
