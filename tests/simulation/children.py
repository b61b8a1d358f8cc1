"""Children that take any time, fail, crash and hang: what an executor's supervisor hands its batches to."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson
from google.protobuf.duration_pb2 import Duration

from pixloom.v1 import executor_pb2, job_pb2, op_pb2
from tests.simulation.columns import as_columns, tasks_of
from tests.simulation.items import fate, manifest_of, page_items, pages, slice_ids
from tests.simulation.siblings import has_value, write_value

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.timestamp_pb2 import Timestamp

    from tests.simulation.world import World

__all__ = ["ChildFaults", "SimulatedChildren"]

LONG_TASK_S = 0.6

OK = job_pb2.ATTEMPT_OUTCOME_OK
FAILED = job_pb2.ATTEMPT_OUTCOME_FAILED


@dataclass(slots=True)
class ChildFaults:
    """How often children do what they should not.

    Attributes:
        fail_rate: Attempts that fail and may be tried again.
        refuse_rate: Attempts that fail for good.
        partial_rate: Attempts that leave some items to be tried again.
        crash_rate: Attempts that lose their child.
        hang_rate: Attempts that take a minute or three.
        poison_rate: Attempts whose result the database will not take.
        hand_over: Whether they ever say that there is room for more.
        columns: Whether their executor reads tasks and writes results as columns.
        siblings: Whether most executors read batches of siblings.
    """

    fail_rate: float = 0.0
    refuse_rate: float = 0.0
    partial_rate: float = 0.0
    crash_rate: float = 0.0
    hang_rate: float = 0.0
    poison_rate: float = 0.0
    hand_over: bool = True
    columns: bool = True
    siblings: bool = False


class _Run:
    """A batch under way."""

    def __init__(
        self,
        batch: executor_pb2.LeaseBatch,
        deliver: Callable[[executor_pb2.TaskResult], None],
        deliver_ordinary: Callable[[executor_pb2.OrdinaryResults], None] | None,
        done: asyncio.Future[None],
    ) -> None:
        self.batch = batch
        self.deliver = deliver
        self.deliver_ordinary = deliver_ordinary
        self.done = done
        self.left = deque(tasks_of(batch))
        self.work: asyncio.Task[None] | None = None
        self.is_running = False
        self.since = 0.0

    def end(self, *, running: bool) -> None:
        """Deliver what has not started as cancelled, and what is running too if asked."""
        stays = 1 if self.is_running and not running else 0
        while len(self.left) > stays:
            task = self.left.pop()
            self.deliver(
                executor_pb2.TaskResult(
                    shard=task.shard,
                    attempt=task.attempt,
                    outcome=job_pb2.ATTEMPT_OUTCOME_CANCELLED,
                    reason="CANCELLED",
                    retryable=True,
                )
            )
        if not stays:
            if self.work is not None:
                self.work.cancel()
            if not self.done.done():
                self.done.set_result(None)


class SimulatedChildren:
    """The pool: a few slots, each with one batch after another."""

    def __init__(self, world: World, faults: ChildFaults, *, slots: int, executor: str) -> None:
        self._world = world
        self._faults = faults
        self._slots = slots
        self._executor = executor
        self._waiting: deque[_Run] = deque()
        self._running: dict[_Run, None] = {}
        self._executions = 0

    @property
    def busy(self) -> int:
        """Number of slots that are working."""
        return len(self._running)

    @property
    def urgent_batches(self) -> int:
        """Number of slots that no long task holds up, as schedulers are told."""
        return self._open_slots() if self._faults.hand_over else 0

    def _open_slots(self) -> int:
        now = self._world.now()
        return self._slots - sum(run.is_running and now - run.since > LONG_TASK_S for run in self._running)

    async def run(
        self,
        batch: executor_pb2.LeaseBatch,
        deliver: Callable[[executor_pb2.TaskResult], None],
        *,
        urgent: bool = False,
        deliver_ordinary: Callable[[executor_pb2.OrdinaryResults], None] | None = None,
    ) -> None:
        """Run the tasks of a batch one after another; an urgent one goes ahead of those that wait."""
        run = _Run(batch, deliver, deliver_ordinary, asyncio.get_running_loop().create_future())
        (self._waiting.appendleft if urgent else self._waiting.append)(run)
        self._start()
        await run.done

    def end(self, predicate: Callable[[executor_pb2.LeaseBatch], bool], *, running: bool = True) -> None:
        """End batches."""
        for run in [*self._waiting, *self._running]:
            if predicate(run.batch):
                run.end(running=running)
                if run in self._waiting:
                    self._waiting.remove(run)

    def take_back(self) -> None:
        """Take back what waits while long tasks hold up every slot."""
        while self._waiting and not self._open_slots():
            self._waiting.popleft().end(running=False)

    def _start(self) -> None:
        while self._waiting and len(self._running) < self._slots:
            run = self._waiting.popleft()
            self._running[run] = None
            run.work = asyncio.get_running_loop().create_task(self._work(run))
            run.work.add_done_callback(lambda _, run=run: self._ended(run))  # type: ignore[misc]

    def _ended(self, run: _Run) -> None:
        self._running.pop(run, None)
        if not run.done.done():
            run.done.set_result(None)
        self._start()

    async def _work(self, run: _Run) -> None:
        while run.left:
            run.is_running = True
            task = run.left[0]
            start = run.since = self._world.now()
            if self._world.chance(self._faults.hang_rate):
                await asyncio.sleep(self._world.rng.uniform(30, 200))
            else:
                await asyncio.sleep(self._world.rng.expovariate(20))
            if not run.left or run.left[0] is not task:
                return
            run.left.popleft()
            run.is_running = False
            result = self._result(run.batch, task)
            _set(result.start_time, start)
            _set(result.end_time, self._world.now())
            self._executions += 1
            result.warnings.append(f"{self._executor}/{self._executions}")
            outcome = job_pb2.AttemptOutcome.Name(result.outcome).removeprefix("ATTEMPT_OUTCOME_")
            self._world.log(
                "ran", self._executor, f"{run.batch.job_id[-4:]}.{run.batch.stage}.{task.shard}.{task.attempt}", outcome
            )
            if self._faults.columns and run.deliver_ordinary is not None and _is_ordinary(run.batch, result):
                run.deliver_ordinary(as_columns(result))
            else:
                run.deliver(result)

    # -- Results ----------------------------------------------------------------------------------------------------

    def _result(self, batch: executor_pb2.LeaseBatch, task: executor_pb2.Task) -> executor_pb2.TaskResult:
        world, faults = self._world, self._faults
        result = executor_pb2.TaskResult(shard=task.shard, attempt=task.attempt, outcome=OK, retryable=True)
        if world.chance(faults.crash_rate):
            result.outcome, result.reason = job_pb2.ATTEMPT_OUTCOME_LOST, "CHILD_LOST"
        elif world.chance(faults.fail_rate):
            result.outcome, result.reason = FAILED, "STORE_ERROR"
        elif world.chance(faults.refuse_rate):
            result.outcome, result.reason, result.retryable = FAILED, "OP_ERROR", False
        elif has_value(batch):
            write_value(batch, result)
        elif batch.kind == op_pb2.OP_KIND_SOURCE:
            page = int(task.cursor or 0)
            ids = page_items(batch.job_id, batch.stage, page)
            result.output.CopyFrom(manifest_of(ids))
            result.end = page + 1 >= pages(batch.job_id, batch.stage)
            result.next_cursor = "" if result.end else str(page + 1)
        elif batch.kind == op_pb2.OP_KIND_ITEM:
            self._map(batch, task, result)
        else:
            ids = sorted(item for part in task.inputs for item in slice_ids(part))
            result.kept.append(executor_pb2.KeptItems(node="read", items=manifest_of(ids)))
            result.output.CopyFrom(manifest_of(f"w{batch.stage}-{index}" for index in range((len(ids) + 1) // 2)))
            result.value_json = orjson.dumps({"items": len(ids)}) if not ids else b""
        if world.chance(faults.poison_rate):
            result.detail = "poison"
        return result

    def _map(self, batch: executor_pb2.LeaseBatch, task: executor_pb2.Task, result: executor_pb2.TaskResult) -> None:
        ids = [item for part in task.inputs for item in slice_ids(part)]
        retried: list[int] = []
        if not task.last_attempt and len(ids) > 1 and self._world.chance(self._faults.partial_rate):
            retried = sorted(self._world.rng.sample(range(len(ids)), self._world.rng.randint(1, len(ids) - 1)))
            result.outcome, result.reason = job_pb2.ATTEMPT_OUTCOME_PARTIAL, "STORE_ERROR"
            result.retry_indexes.extend(retried)
        left = [item for index, item in enumerate(ids) if index not in retried]
        dropped: list[str] = []
        for call in batch.calls:
            counts = executor_pb2.NodeCounts(node=call.node, elapsed=Duration(nanos=1_000_000 * len(left)))
            passed = []
            for item in left:
                match fate(batch.job_id, call.node, item):
                    case "ok":
                        passed.append(item)
                    case "filtered":
                        counts.filtered["DUPLICATE"] += 1
                        dropped.append(item)
                    case _ if call.on_error == executor_pb2.ON_ERROR_SKIP:
                        counts.filtered["TRUNCATED"] += 1
                        dropped.append(item)
                    case _:
                        counts.rejected["TRUNCATED"] += 1
                        dropped.append(item)
            counts.ok = len(passed)
            left = passed
            result.counts.append(counts)
        result.output.CopyFrom(manifest_of(left))
        result.rejects.CopyFrom(manifest_of(dropped))


def _is_ordinary(batch: executor_pb2.LeaseBatch, result: executor_pb2.TaskResult) -> bool:
    passed = result.output.count
    return (
        batch.kind == op_pb2.OP_KIND_ITEM
        and result.outcome == OK
        and passed > 0
        and not (result.rejects.count or result.detail)
        and all(counts.ok == passed for counts in result.counts)
    )


def _set(field: Timestamp, seconds: float) -> None:
    field.FromMicroseconds(round(seconds * 1e6))
