"""Batches through real child processes: what crashes, hangs or asks for too much costs one item."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import structlog

from pixloom.artifacts import open_store
from pixloom.artifacts.manifest import read_items
from pixloom.errors import InternalError, InvalidError
from pixloom.v1 import executor_pb2 as pb
from pixloom.v1 import item_pb2, op_pb2
from pixloom_executor.children import ChildPool
from pixloom_executor.children.oom_kills import cause_of_kill, count_oom_kills
from tests.support.child_pools import (
    CANCELLED,
    FAILED,
    LOST,
    OK,
    ChildGate,
    child_settings,
    flaky_pool,
    importing_pool,
    run,
)
from tests.unit.executor.tasks import batch_of, call, inline, item, sliced

if TYPE_CHECKING:
    from collections.abc import Iterator


def batch(calls: list[pb.OpCall], *, tasks: int = 1, items: int = 1) -> pb.LeaseBatch:
    return batch_of(
        calls,
        [
            pb.Task(
                shard=shard,
                attempt=1,
                inputs=[sliced(inline(*(item(shard * items + place) for place in range(items))))],
            )
            for shard in range(tasks)
        ],
    )


def descendants(pid: int) -> set[int]:
    """Return the processes below one, by the parent that the kernel names."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found: set[int] = set()
    while new := {child for child, parent in parents.items() if parent in found | {pid}} - found:
        found |= new
    return found


async def test_built_in_ops_are_announced(tmp_path: Path) -> None:
    pool = ChildPool(slots=1, settings=child_settings(tmp_path))
    specs = await pool.start()
    await pool.stop()
    assert {"debug.noop@1", "flow.filter@1", "source.folder@1"} <= {spec.ref for spec in specs}
    assert all(spec.digest for spec in specs)


async def test_what_was_never_finished_is_removed_at_the_start(tmp_path: Path) -> None:
    unfinished = tmp_path / "store" / "tmp"
    unfinished.mkdir(parents=True)
    (unfinished / "old").write_bytes(b"half a thumb")
    os.utime(unfinished / "old", (time.time() - 90_000,) * 2)
    (unfinished / "young").write_bytes(b"half a thumb")
    pool = ChildPool(slots=1, settings=child_settings(tmp_path))
    await pool.start()
    await pool.stop()
    assert os.listdir(unfinished) == ["young"]  # noqa: PTH208


async def test_every_task_gets_its_result(pool: ChildPool) -> None:
    batches = [batch([call("debug.noop")], tasks=100) for _ in range(6)]
    for results in await asyncio.gather(*(run(pool, made) for made in batches)):
        assert [result.shard for result in results] == list(range(100))
        assert {result.outcome for result in results} == {OK}
    assert pool.busy == 0


@pytest.mark.parametrize(
    ("mode", "reason"), [("signal", "CRASHED"), ("exit", "CRASHED"), ("alloc", "OUT_OF_MEMORY"), ("hang", "TIMEOUT")]
)
async def test_what_takes_a_child_down_costs_its_item(pool: ChildPool, tmp_path: Path, mode: Any, reason: Any) -> None:
    made = batch(
        [call("debug.noop", "a"), call("debug.crash", "b", mode=mode, at=[2, 5], timeout_s=0.8)], tasks=3, items=3
    )
    results = await run(pool, made)
    assert [result.outcome for result in results] == [OK, OK, OK]
    assert [result.output.count for result in results] == [2, 2, 3]
    assert [dict(result.counts[1].rejected) for result in results] == [{reason: 1}, {reason: 1}, {}]
    reject = read_items(results[0].rejects, open_store((tmp_path / "store").as_uri()))[0]
    assert (reject.key, reject.reason, reject.node) == ("item-2", reason, "b")
    assert "twice" in reject.detail


KILLED = """
import os
import signal

from pixloom import Item, op


@op("user.killed")
def killed(item: Item) -> None:
    if item.key == "item-1":
        os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_a_child_that_is_killed_is_out_of_memory_only_where_the_kernel_may_have_done_it(tmp_path: Path) -> None:
    async with importing_pool(tmp_path, "killed_ops", KILLED) as pool:
        results = await run(pool, batch([call("user.killed")], items=3))
    reason, detail = cause_of_kill(count_oom_kills())
    assert dict(results[0].counts[0].rejected) == {reason: 1}
    reject = read_items(results[0].rejects, open_store((tmp_path / "store").as_uri()))[0]
    assert (reject.key, reject.reason) == ("item-1", reason)
    assert detail in reject.detail


async def test_on_error_fail_holds_for_crashes(pool: ChildPool) -> None:
    results = await run(pool, batch([call("debug.crash", "b", at=[1], on_error=pb.ON_ERROR_FAIL)], items=3))
    assert (results[0].outcome, results[0].reason, results[0].retryable) == (FAILED, "CRASHED", False)


async def test_a_crash_that_does_not_come_again_costs_nothing(flaky: ChildPool, tmp_path: Path) -> None:
    results = await run(flaky, batch([call("user.crash_once", marker=str(tmp_path / "seen"))], items=4))
    assert (results[0].outcome, results[0].output.count) == (OK, 4)


async def test_ops_of_a_users_module_run_plain_and_async(flaky: ChildPool) -> None:
    results = await run(flaky, batch([call("user.shout", suffix="?")]))
    output = item_pb2.ItemBatch.FromString(results[0].output.inline).items[0]
    assert b"ITEM-0?" in output.attributes_json


async def test_children_see_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXLOOM_DATABASE_URL", "canary")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    made = batch_of([call("user.environment")], [pb.Task(shard=0, attempt=1)], op_pb2.OP_KIND_VALUE)
    async with flaky_pool(tmp_path) as pool:
        results = await run(pool, made)
    assert b"canary" not in results[0].value_json
    assert b"OMP_NUM_THREADS" in results[0].value_json


async def test_a_module_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    pool = ChildPool(slots=1, settings=child_settings(tmp_path, imports=("no_such_module",)))
    with pytest.raises(InvalidError, match="no_such_module"):
        await pool.start()
    await pool.stop()


async def test_a_hung_collection_op_fails_its_task(pool: ChildPool) -> None:
    made = batch_of([call("debug.crash", mode="hang", timeout_s=0.2)], [pb.Task(shard=0, attempt=1)])
    results = await run(pool, made)
    assert (results[0].outcome, results[0].reason, results[0].retryable) == (FAILED, "TIMEOUT", True)


async def test_the_deadline_of_a_task_holds(pool: ChildPool) -> None:
    made = batch([call("debug.sleep", seconds=0.4)], items=2)
    made.deadline.FromMilliseconds(100)
    results = await run(pool, made)
    assert dict(results[0].counts[0].rejected) == {"TIMEOUT": 2}


async def test_a_running_batch_is_ended_at_once(pool: ChildPool) -> None:
    running = asyncio.create_task(run(pool, batch([call("debug.sleep", "slow", seconds=60)], tasks=3)))
    other = asyncio.create_task(run(pool, batch([call("debug.sleep", "other", seconds=0.3)], tasks=2)))
    await asyncio.sleep(0)  # both have been handed over
    assert pool.busy == 2
    pool.end(lambda made: made.calls[0].node == "slow")
    assert [result.outcome for result in await running] == [CANCELLED] * 3
    assert [result.outcome for result in await other] == [OK] * 2


async def test_tasks_that_have_not_started_are_ended_without_a_kill(flaky: ChildPool, gate: ChildGate) -> None:
    running = asyncio.create_task(run(flaky, batch([gate.call()], tasks=50)))
    await gate.until_reached()
    flaky.end(lambda _: True, running=False)
    gate.open()
    # The one it was on is finished, and no other is begun.
    assert [result.outcome for result in await running] == 2 * [OK] + 48 * [CANCELLED]


async def test_a_batch_that_waits_is_ended_too(tmp_path: Path) -> None:
    pool = ChildPool(slots=1, settings=child_settings(tmp_path))
    await pool.start()
    try:
        running = asyncio.create_task(run(pool, batch([call("debug.sleep", "a", seconds=0.3)])))
        waiting = asyncio.create_task(run(pool, batch([call("debug.sleep", "b", seconds=60)])))
        await asyncio.sleep(0)
        pool.end(lambda made: made.calls[0].node == "b")
        assert [result.outcome for result in await waiting] == [CANCELLED]
        assert [result.outcome for result in await running] == [OK]
    finally:
        await pool.stop()


async def test_cancelling_the_caller_ends_the_batch(pool: ChildPool) -> None:
    running = asyncio.create_task(run(pool, batch([call("debug.sleep", seconds=60)])))
    await asyncio.sleep(0)  # it has been handed over
    assert pool.busy == 1
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await run(pool, batch([call("debug.noop")], tasks=3)))[2].outcome == OK


async def test_nothing_is_left_after_stop(tmp_path: Path) -> None:
    before = descendants(os.getpid())
    pool = ChildPool(slots=3, settings=child_settings(tmp_path))
    await pool.start()
    await run(pool, batch([call("debug.crash", at=[1])], items=2))
    running = asyncio.create_task(run(pool, batch([call("debug.sleep", seconds=60)])))
    await asyncio.sleep(0)  # it has been handed over
    assert pool.busy == 1
    assert descendants(os.getpid()) - before
    await pool.stop()
    await pool.stop()
    assert [result.outcome for result in await running] == [CANCELLED]
    assert descendants(os.getpid()) - before == set()
    assert list((tmp_path / "scratch").iterdir()) == []


async def test_the_pool_goes_on_when_its_template_is_killed(pool: ChildPool) -> None:
    await run(pool, batch([call("debug.noop")]))
    # Servers of other tests descend from this process as well.
    template_and_children = [
        process for process in psutil.Process().children(recursive=True) if "forkserver" in " ".join(process.cmdline())
    ]
    assert template_and_children
    for process in template_and_children:
        process.kill()
    results = await run(pool, batch([call("debug.noop")], tasks=5))
    assert [result.outcome for result in results] == [OK] * 5


@contextmanager
def no_free_handles() -> Iterator[None]:
    """Let this process open nothing more."""
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/dev/fd"))) + 1, hard))  # noqa: PTH208
    try:
        with suppress(OSError):
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for handle in opened:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


class Log:
    """Waits for what is logged."""

    def __init__(self) -> None:
        self._heard: asyncio.Queue[str] = asyncio.Queue()

    def __call__(self, logger: Any, name: str, event: dict[str, Any]) -> dict[str, Any]:
        del logger, name
        self._heard.put_nowait(event["event"])
        raise structlog.DropEvent

    async def says(self, event: str) -> None:
        async with asyncio.timeout(60):
            while await self._heard.get() != event:
                pass


@pytest.fixture
def log() -> Iterator[Log]:
    heard = Log()
    processors = structlog.get_config()["processors"]
    before = list(processors)
    processors[:] = [heard]  # in place: loggers that are in use hold on to the list
    yield heard
    processors[:] = before


async def test_a_child_that_the_system_refuses_is_started_later(pool: ChildPool, log: Log) -> None:
    await run(pool, batch([call("debug.noop")]))
    running = asyncio.create_task(run(pool, batch([call("debug.sleep", seconds=60, timeout_s=0.2)])))
    await asyncio.sleep(0)  # it has been handed over
    with no_free_handles():
        await log.says("child not started")
    assert dict((await running)[0].counts[0].rejected) == {"TIMEOUT": 1}


async def test_children_that_die_before_they_work_lose_their_batch_and_keep_nobody_busy(
    pool: ChildPool, tmp_path: Path, log: Log
) -> None:
    await run(pool, batch([call("debug.noop")]))
    scratch = tmp_path / "scratch"
    shutil.rmtree(scratch)
    scratch.touch()  # so that no child can make its folder
    results = await run(pool, batch([call("debug.crash")], tasks=3))
    assert [result.outcome for result in results] == [LOST] * 3
    await log.says("child did not start to work")
    scratch.unlink()
    scratch.mkdir()
    assert [result.outcome for result in await run(pool, batch([call("debug.noop")], tasks=5))] == [OK] * 5


async def test_a_defect_leaves_nobody_waiting(tmp_path: Path) -> None:
    pool = ChildPool(slots=1, settings=child_settings(tmp_path))
    with pytest.raises(InternalError, match="not running"):
        await run(pool, batch([call("debug.noop")]))
    await pool.start()

    def deliver(result: pb.TaskResult) -> None:
        raise ValueError(result.shard)

    with pytest.raises(InternalError, match="has stopped"):
        await pool.run(batch([call("debug.noop")]), deliver)
    # The executor ends then, instead of claiming work for children that it does not have.
    with pytest.raises(InternalError, match="has stopped"):
        await pool.watch()
    await pool.stop()


async def test_artifacts_are_in_the_store_when_results_are_delivered(pool: ChildPool, tmp_path: Path) -> None:
    source = batch_of([call("debug.range", count=1000)], [pb.Task(shard=0, attempt=1)], op_pb2.OP_KIND_SOURCE)
    results = await run(pool, source)
    assert results[0].output.WhichOneof("content") == "artifact"
    items = read_items(results[0].output, open_store((tmp_path / "store").as_uri()))
    assert len(items) == 1000


async def test_many_small_tasks_cost_little(pool: ChildPool, capsys: pytest.CaptureFixture[str]) -> None:
    batches = [batch([call("debug.noop")], tasks=250) for _ in range(20)]
    started = time.perf_counter()
    await asyncio.gather(*(run(pool, made) for made in batches))
    rate = 5000 / (time.perf_counter() - started)
    with capsys.disabled():
        sys.stdout.write(f" debug.noop: {rate:,.0f} tasks/s ")
    assert rate > 2_000
