"""Parts that are killed in the middle of a job: it ends COMPLETED, with every item accounted for exactly once."""

from __future__ import annotations

import asyncio
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.gate import Gate

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.engine import Engine


pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("engine-faults")]

COUNT = 200
SECONDS = 0.02


async def test_job_outlives_an_executor_that_is_killed(engine: Engine, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    job = await engine.submit(
        {"id": "numbers", "op": "debug.range", "params": {"count": COUNT}}, gate.node("wait", free=COUNT // 4)
    )
    await gate.until_waiting(2)  # one at each executor
    pid = engine.stack.kill("executor-1")
    gate.open()
    attempts = await engine.require_completed(job, count=COUNT)
    lost = [attempt for attempt in attempts if attempt.outcome == "LOST"]
    assert lost
    assert len({attempt.executor_id for attempt in lost}) == 1
    assert {attempt.outcome for attempt in attempts} == {"OK", "LOST"}
    await engine.stack.wait_replaced("executor-1", pid)


async def test_job_outlives_the_scheduler_that_is_killed(engine: Engine) -> None:
    job = await engine.begin(count=COUNT, seconds=SECONDS)
    executors = [engine.stack.pid(f"executor-{number}") for number in (1, 2)]
    pid = engine.stack.kill("scheduler")
    await engine.stack.wait_replaced("scheduler", pid)
    attempts = await engine.require_completed(job, count=COUNT)
    # What the executors were on was adopted, not done again.
    assert {attempt.outcome for attempt in attempts} == {"OK"}
    assert len(attempts) == COUNT
    assert executors == [engine.stack.pid(f"executor-{number}") for number in (1, 2)]


async def test_job_outlives_nats_that_is_killed(engine: Engine) -> None:
    job = await engine.begin(count=COUNT, seconds=SECONDS)
    await engine.stack.wait_replaced("nats", engine.stack.kill("nats"))
    attempts = await engine.require_completed(job, count=COUNT)
    assert {attempt.outcome for attempt in attempts} == {"OK"}


async def test_job_outlives_a_wiped_nats(engine: Engine) -> None:
    job = await engine.begin(count=COUNT, seconds=SECONDS)
    await engine.stack.stop_part("nats")
    store = engine.stack.options.data_dir / "nats" / "jetstream"
    assert store.is_dir()
    await asyncio.to_thread(shutil.rmtree, store)
    await engine.stack.start_part("nats")
    attempts = await engine.require_completed(job, count=COUNT)
    assert {attempt.outcome for attempt in attempts} == {"OK"}


async def test_job_outlives_postgres_that_stops_at_once(engine: Engine) -> None:
    job = await engine.begin(count=COUNT, seconds=SECONDS)
    # SIGQUIT is PostgreSQL's immediate shutdown: no checkpoint, so the next start recovers from the log.
    await engine.stack.wait_replaced("postgres", engine.stack.kill("postgres", signal.SIGQUIT))
    attempts = await engine.require_completed(job, count=COUNT)
    assert {attempt.outcome for attempt in attempts} <= {"OK", "LOST"}


async def test_an_executor_that_is_asked_to_end_gives_back_what_it_has_not_started(engine: Engine) -> None:
    job = await engine.begin(count=COUNT, seconds=SECONDS)
    pid = engine.stack.kill("executor-2", signal.SIGTERM)
    attempts = await engine.require_completed(job, count=COUNT)
    assert {attempt.outcome for attempt in attempts} == {"OK"}
    assert len(attempts) == COUNT
    await engine.stack.wait_replaced("executor-2", pid)
    assert any(line.startswith("executor-2") and "exit code 0" in line for line in engine.lines)
