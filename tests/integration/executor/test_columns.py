"""Tasks and results in columns through real child processes: each result once, whatever goes wrong."""

from __future__ import annotations

import asyncio
import shutil
from itertools import chain
from typing import TYPE_CHECKING

import pytest
import pyvips

from pixloom.v1 import executor_pb2 as pb
from pixloom.v1 import item_pb2
from tests.support.child_pools import CANCELLED, FAILED, OK, run
from tests.unit.executor.tasks import batch_of, call, inline, item, sliced

if TYPE_CHECKING:
    from pathlib import Path

    from pixloom_executor.children import ChildPool
    from tests.support.child_pools import ChildGate


class Delivered:
    """Results by shard, however they came; each once."""

    def __init__(self) -> None:
        self.items: dict[int, list[str]] = {}
        self.columns: list[list[int]] = []
        self.messages: dict[int, pb.TaskResult] = {}
        self._news = asyncio.Event()

    def deliver(self, result: pb.TaskResult) -> None:
        assert result.shard not in self.items
        self.messages[result.shard] = result
        self._note(result.shard, result.output.inline)

    def deliver_ordinary(self, results: pb.OrdinaryResults) -> None:
        self.columns.append(list(results.shards))
        for shard, attempt, output in zip(results.shards, results.attempts, results.outputs, strict=True):
            assert shard not in self.items
            assert attempt == 1
            self._note(shard, output)

    def _note(self, shard: int, output: bytes) -> None:
        self.items[shard] = [entry.key for entry in item_pb2.ItemBatch.FromString(output).items]
        self._news.set()

    async def of(self, shard: int) -> None:
        """Wait for the result of a shard."""
        async with asyncio.timeout(60):
            while shard not in self.items:
                self._news.clear()
                await self._news.wait()

    async def run(self, pool: ChildPool, made: pb.LeaseBatch) -> None:
        async with asyncio.timeout(60):
            await pool.run(made, self.deliver, deliver_ordinary=self.deliver_ordinary)


def wide(calls: list[pb.OpCall], tasks: int, *, first: int = 0) -> pb.LeaseBatch:
    """Return a batch of tasks in columns, each with the item of its shard's number."""
    made = batch_of(calls, [])
    made.ordinary.CopyFrom(
        pb.OrdinaryTasks(
            shards=range(first, first + tasks),
            attempts=[1] * tasks,
            places=[0] * tasks,
            offsets=range(tasks),
            counts=[1] * tasks,
            sources=[sliced(inline(*map(item, range(first, first + tasks))))],
        )
    )
    return made


def named(*shards: int) -> dict[int, list[str]]:
    return {shard: [f"item-{shard}"] for shard in shards}


@pytest.mark.parametrize("form", ["columns", "messages"])
async def test_ordinary_results_come_as_columns_each_once(pool: ChildPool, form: str) -> None:
    delivered = Delivered()
    calls = [call("debug.noop")]
    await asyncio.gather(
        *(
            delivered.run(pool, wide(calls, 300, first=first) if form == "columns" else numbered(calls, first, 300))
            for first in range(0, 1500, 300)
        )
    )
    assert delivered.items == named(*range(1500))
    assert delivered.messages == {}
    assert len(delivered.columns) < 50


def numbered(calls: list[pb.OpCall], first: int, tasks: int) -> pb.LeaseBatch:
    return batch_of(
        calls,
        [pb.Task(shard=n, attempt=1, inputs=[sliced(inline(item(n)))]) for n in range(first, first + tasks)],
    )


async def test_results_of_tasks_in_columns_come_as_messages_to_who_wants_them(pool: ChildPool) -> None:
    results = await run(pool, wide([call("debug.noop")], 100))
    assert [(result.shard, result.outcome, result.output.count) for result in results] == [
        (shard, OK, 1) for shard in range(100)
    ]


async def test_a_crash_in_the_middle_of_columns_costs_one_item_and_no_result_comes_twice(pool: ChildPool) -> None:
    delivered = Delivered()
    await delivered.run(pool, wide([call("debug.noop", "a"), call("debug.crash", "b", at=[333])], 400))
    crashed = delivered.messages.pop(333)
    assert (crashed.outcome, dict(crashed.counts[1].rejected)) == (OK, {"CRASHED": 1})
    assert delivered.messages == {}
    assert delivered.items == named(*range(400)) | {333: []}


async def test_columns_that_are_cancelled_end_once_each(flaky: ChildPool, gate: ChildGate) -> None:
    delivered = Delivered()
    running = asyncio.create_task(delivered.run(flaky, wide([gate.call()], 50)))
    await gate.until_reached()
    flaky.end(lambda _: True, running=False)
    gate.open()
    await running
    assert list(chain.from_iterable(delivered.columns)) == [0, 1]
    assert {shard: result.outcome for shard, result in delivered.messages.items()} == dict.fromkeys(
        range(2, 50), CANCELLED
    )


async def test_columns_behind_a_long_task_are_taken_back_once_each(flaky: ChildPool, gate: ChildGate) -> None:
    delivered = Delivered()
    running = asyncio.create_task(delivered.run(flaky, wide([gate.call()], 50)))
    await gate.until_reached()
    async with asyncio.timeout(60):
        while len(delivered.messages) < 48:
            flaky.take_back()  # takes nothing before the task has taken long
            await asyncio.sleep(0.01)
    gate.open()
    await running
    assert sorted(chain.from_iterable(delivered.columns)) == [0, 1]
    assert {result.outcome for result in delivered.messages.values()} == {CANCELLED}
    assert sorted(delivered.messages) == list(range(2, 50))


async def test_results_in_columns_that_cannot_be_made_durable_have_failed(flaky: ChildPool, tmp_path: Path) -> None:
    photos = []
    for number in range(3):
        photo = tmp_path / f"{number}.png"
        pyvips.Image.black(8, 8 + number).write_to_file(str(photo))
        photos.append(item(number, uri=photo.as_uri()))
    made = wide([call("image.flip"), call("user.lose_store", store=str(tmp_path / "store"), at=2)], 3)
    made.ordinary.sources[0].manifest.CopyFrom(inline(*photos))
    delivered = Delivered()
    await delivered.run(flaky, made)
    assert delivered.columns == []
    assert [(result.outcome, result.reason, result.retryable) for result in delivered.messages.values()] == [
        (FAILED, "NOT_FOUND", True)
    ] * 3
    shutil.rmtree(tmp_path / "store")
    made.calls[1].params_json = made.calls[1].params_json.replace(b"2", b"9")
    again = Delivered()
    await again.run(flaky, made)
    assert again.items == named(0, 1, 2)
    assert again.messages == {}


async def test_results_of_a_quick_batch_do_not_wait_for_a_long_one_behind_it(flaky: ChildPool, gate: ChildGate) -> None:
    delivered = Delivered()
    quick = call("debug.noop")
    await delivered.run(flaky, wide([quick], 1, first=1000))
    # The child has both before it begins the first one, and the second one lasts until the first has been heard of.
    one = asyncio.create_task(delivered.run(flaky, wide([quick], 2)))
    other = asyncio.create_task(delivered.run(flaky, wide([gate.call()], 2, first=7)))
    await delivered.of(1)
    gate.open()
    await asyncio.gather(one, other)
    assert delivered.items == named(1000, 0, 1, 7, 8)
