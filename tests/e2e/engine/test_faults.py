"""Parts that are killed in the middle of a job: it ends COMPLETED, with every item accounted for exactly once."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.engine import Engine, node_of

if TYPE_CHECKING:
    from pixloom.resources import Job

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("engine-faults")]

COUNT = 200
SECONDS = 0.02


async def begun(engine: Engine, *, count: int = COUNT) -> Job:
    """Submit a job of many short tasks and return when it is in the middle of them."""
    job = await engine.submit(
        {"id": "numbers", "op": "debug.range", "params": {"count": count}},
        {
            "id": "wait",
            "op": "debug.sleep",
            "inputs": {"items": "numbers"},
            "params": {"seconds": SECONDS},
            "shard_size": 1,
        },
    )
    await engine.until(job.id, lambda snapshot: node_of(snapshot, "wait").items.ok >= count // 10)
    return job


async def require_completed(engine: Engine, job: Job, *, within_s: float, count: int = COUNT) -> list[Any]:
    since = time.monotonic()
    ended = await engine.finish(job.id, within_s=within_s)
    assert (ended.state, ended.error) == ("COMPLETED", None), time.monotonic() - since
    assert (ended.items.ok, ended.items.filtered, ended.items.rejected) == (count, 0, 0)
    return await engine.require_each_once(job.id, "wait", count)


async def test_job_outlives_an_executor_that_is_killed(engine: Engine) -> None:
    job = await begun(engine)
    pid = engine.stack.kill("executor-1")
    attempts = await require_completed(engine, job, within_s=20)
    lost = [attempt for attempt in attempts if attempt.outcome == "LOST"]
    assert lost
    assert len({attempt.executor_id for attempt in lost}) == 1
    assert {attempt.outcome for attempt in attempts} == {"OK", "LOST"}
    await engine.stack.wait_replaced("executor-1", pid)


async def test_job_outlives_the_scheduler_that_is_killed(engine: Engine) -> None:
    job = await begun(engine)
    executors = [engine.stack.pid(f"executor-{number}") for number in (1, 2)]
    pid = engine.stack.kill("scheduler")
    await engine.stack.wait_replaced("scheduler", pid)
    attempts = await require_completed(engine, job, within_s=25)
    # What the executors were on was adopted, not done again.
    assert {attempt.outcome for attempt in attempts} == {"OK"}
    assert len(attempts) == COUNT
    assert executors == [engine.stack.pid(f"executor-{number}") for number in (1, 2)]


async def test_job_outlives_nats_that_is_killed(engine: Engine) -> None:
    job = await begun(engine)
    await engine.stack.wait_replaced("nats", engine.stack.kill("nats"))
    attempts = await require_completed(engine, job, within_s=20)
    assert {attempt.outcome for attempt in attempts} == {"OK"}


async def test_job_outlives_a_wiped_nats(engine: Engine) -> None:
    job = await begun(engine)
    await engine.stack.stop_part("nats")
    store = engine.stack.options.data_dir / "nats" / "jetstream"
    assert store.is_dir()
    await asyncio.to_thread(shutil.rmtree, store)
    await engine.stack.start_part("nats")
    attempts = await require_completed(engine, job, within_s=20)
    assert {attempt.outcome for attempt in attempts} == {"OK"}


async def test_job_outlives_postgres_that_stops_at_once(engine: Engine) -> None:
    job = await begun(engine)
    # SIGQUIT is PostgreSQL's immediate shutdown: no checkpoint, so the next start recovers from the log.
    await engine.stack.wait_replaced("postgres", engine.stack.kill("postgres", signal.SIGQUIT))
    attempts = await require_completed(engine, job, within_s=30)
    assert {attempt.outcome for attempt in attempts} <= {"OK", "LOST"}


async def test_an_executor_that_is_asked_to_end_gives_back_what_it_has_not_started(engine: Engine) -> None:
    job = await begun(engine)
    pid = engine.stack.kill("executor-2", signal.SIGTERM)
    attempts = await require_completed(engine, job, within_s=20)
    assert {attempt.outcome for attempt in attempts} == {"OK"}
    assert len(attempts) == COUNT
    await engine.stack.wait_replaced("executor-2", pid)
    assert any(line.startswith("executor-2") and "exit code 0" in line for line in engine.lines)
