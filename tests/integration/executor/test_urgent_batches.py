"""Urgent batches go ahead of others, also of one that has begun, and nobody starves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pixloom.v1 import executor_pb2 as pb
from pixloom.v1 import job_pb2
from pixloom_executor.children import ChildPool
from tests.support.child_pools import child_settings
from tests.unit.executor.tasks import batch_of, call, inline, item, sliced

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TASK_S = 0.02


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[ChildPool]:
    pool = ChildPool(slots=1, settings=child_settings(tmp_path))
    await pool.start()
    yield pool
    await pool.stop()


def sleeps(tasks: int) -> pb.LeaseBatch:
    return batch_of(
        [call("debug.sleep", seconds=TASK_S)],
        [pb.Task(shard=shard, attempt=1, inputs=[sliced(inline(item(shard)))]) for shard in range(tasks)],
    )


async def test_an_urgent_batch_goes_ahead_of_one_that_has_begun(pool: ChildPool) -> None:
    order: list[str] = []
    results: list[pb.TaskResult] = []
    has_begun = asyncio.Event()

    def deliver(result: pb.TaskResult) -> None:
        results.append(result)
        has_begun.set()

    async def long(name: str) -> None:
        await pool.run(sleeps(60), deliver)
        order.append(name)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(long("begun"))
        group.create_task(long("sent ahead"))
        await has_begun.wait()
        await pool.run(sleeps(1), results.append, urgent=True)
        order.append("urgent")
        ended_before = len(results) - 1
    assert order in (["urgent", "begun", "sent ahead"], ["urgent", "sent ahead", "begun"])
    assert ended_before < 60
    assert len(results) == 121
    assert {result.outcome for result in results} == {job_pb2.ATTEMPT_OUTCOME_OK}


async def test_every_one_of_many_urgent_batches_goes_ahead_of_all_that_are_not(pool: ChildPool) -> None:
    order: list[str] = []

    async def long() -> None:
        await pool.run(sleeps(200), lambda _: None)
        order.append("long")

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(long())
        for pause in (5, 1, 0, 3, 0, 2, 1, 4):
            await asyncio.sleep(pause * TASK_S)
            await pool.run(sleeps(1), lambda _: None, urgent=True)
            order.append("urgent")
        pool.end(lambda _: True)
    assert order == ["urgent"] * 8 + ["long"] * 2


async def test_urgent_batches_one_after_another_starve_nobody(pool: ChildPool) -> None:
    ended = asyncio.Event()

    async def long() -> None:
        await pool.run(sleeps(10), lambda _: None)
        ended.set()

    async def urgent() -> None:
        while not ended.is_set():
            await pool.run(sleeps(1), lambda _: None, urgent=True)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(long())
        for _ in range(3):
            group.create_task(urgent())


async def test_a_batch_that_made_way_can_be_ended(pool: ChildPool) -> None:
    results: list[pb.TaskResult] = []
    has_begun = asyncio.Event()

    def deliver(result: pb.TaskResult) -> None:
        results.append(result)
        has_begun.set()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        long = group.create_task(pool.run(sleeps(200), deliver))
        await has_begun.wait()
        urgent = group.create_task(pool.run(sleeps(3), lambda _: None, urgent=True))
        await asyncio.sleep(TASK_S)
        pool.end(lambda batch: len(batch.tasks) == 200)
        await long
        await urgent
    outcomes = [result.outcome for result in results]
    assert len(outcomes) == 200
    assert outcomes.count(job_pb2.ATTEMPT_OUTCOME_CANCELLED) > 100


async def test_what_waits_behind_a_long_task_is_taken_back(pool: ChildPool) -> None:
    long, short = batch_of([call("debug.sleep", seconds=60)], [pb.Task(shard=0, attempt=1)]), sleeps(3)
    results: list[pb.TaskResult] = []
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        running = group.create_task(pool.run(long, lambda _: None))
        waiting = group.create_task(pool.run(short, results.append, urgent=True))
        while pool.urgent_batches:
            await asyncio.sleep(TASK_S)
            pool.take_back()
        pool.take_back()
        await waiting
        assert not running.done()
        assert [result.outcome for result in results] == 3 * [job_pb2.ATTEMPT_OUTCOME_CANCELLED]
        assert pool.batches == 1
        pool.end(lambda batch: batch is long)
    after: list[pb.TaskResult] = []
    async with asyncio.timeout(60):
        await pool.run(sleeps(2), after.append)
    assert [result.outcome for result in after] == 2 * [job_pb2.ATTEMPT_OUTCOME_OK]


async def test_the_rest_of_a_batch_is_taken_back_when_a_task_of_it_takes_long(pool: ChildPool) -> None:
    batch = batch_of([call("debug.sleep", seconds=2.5)], [pb.Task(shard=shard, attempt=1) for shard in range(4)])
    results: list[pb.TaskResult] = []
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        running = group.create_task(pool.run(batch, results.append))
        while not results:
            await asyncio.sleep(TASK_S)
            pool.take_back()
        assert not running.done()
        assert sorted(result.shard for result in results) == [1, 2, 3]
        assert {result.outcome for result in results} == {job_pb2.ATTEMPT_OUTCOME_CANCELLED}
        pool.take_back()
        await running
    assert [(result.shard, result.outcome) for result in results[3:]] == [(0, job_pb2.ATTEMPT_OUTCOME_OK)]
