"""Ordinary tasks and their results as columns: nearly all of a wide stage, without a message for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pixloom.batches import task_keys
from pixloom.v1 import executor_pb2 as pb
from pixloom.v1 import job_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pixloom.v1 import item_pb2

__all__ = ["OrdinaryColumns", "OrdinaryTask", "rows_of", "tasks_of", "without_columns"]


@dataclass(slots=True)
class OrdinaryTask:
    """A task that came in a column.

    Attributes:
        shard: Its shard.
        attempt: Number of the attempt.
        source: What it reads of, the same object for all tasks that read of the same.
        offset: First of its items there.
        count: Number of its items.
    """

    shard: int
    attempt: int
    source: item_pb2.InputSlice
    offset: int
    count: int


def tasks_of(batch: pb.LeaseBatch) -> Sequence[pb.Task | OrdinaryTask]:
    """Return the tasks of a batch in their order."""
    columns = batch.ordinary
    if batch.siblings:
        return [pb.Task(shard=shard, attempt=attempt) for shard, attempt in task_keys(batch)]
    if not columns.shards:
        return batch.tasks
    sources = list(columns.sources)
    return [
        OrdinaryTask(shard, attempt, sources[place], offset, count)
        for shard, attempt, place, offset, count in zip(
            columns.shards, columns.attempts, columns.places, columns.offsets, columns.counts, strict=True
        )
    ]


class OrdinaryColumns:
    """Collects results of one batch until they are taken."""

    __slots__ = ("_attempts", "_elapsed_ns", "_ended_us", "_items", "_outputs", "_shards", "_started_us")

    def __init__(self) -> None:
        self._shards: list[int] = []
        self._attempts: list[int] = []
        self._started_us: list[int] = []
        self._ended_us: list[int] = []
        self._items: list[int] = []
        self._outputs: list[bytes] = []
        self._elapsed_ns: list[int] = []

    def __len__(self) -> int:
        return len(self._shards)

    def add(
        self,
        task: pb.Task | OrdinaryTask,
        *,
        started_ns: int,
        ended_ns: int,
        output: item_pb2.Manifest,
        spent_ns: Sequence[int],
    ) -> None:
        """Add the result of a task all of whose items passed.

        Args:
            task: The task.
            started_ns: When it started, nanoseconds since 1970.
            ended_ns: When it ended, nanoseconds since 1970.
            output: Its items; they travel inside.
            spent_ns: Nanoseconds spent in each op.
        """
        self._shards.append(task.shard)
        self._attempts.append(task.attempt)
        self._started_us.append(started_ns // 1000)
        self._ended_us.append(ended_ns // 1000)
        self._items.append(output.count)
        self._outputs.append(output.inline)
        if len(spent_ns) == len(self._elapsed_ns):
            for place, spent in enumerate(spent_ns):
                self._elapsed_ns[place] += spent
        else:
            self._elapsed_ns = list(spent_ns)

    def take(self) -> bytes:
        """Return what was added since the last call as a serialised message; empty if nothing was."""
        if not self._shards:
            return b""
        message = pb.OrdinaryResults(
            shards=self._shards,
            attempts=self._attempts,
            started_us=self._started_us,
            ended_us=self._ended_us,
            items=self._items,
            outputs=self._outputs,
            elapsed_ns=self._elapsed_ns,
        )
        for column in (self._shards, self._attempts, self._started_us, self._ended_us, self._items, self._outputs):
            column.clear()
        self._elapsed_ns = []
        return message.SerializeToString()


def rows_of(results: pb.OrdinaryResults, places: Sequence[int]) -> pb.OrdinaryResults:
    """Return some rows, and the time that all of them took."""
    return pb.OrdinaryResults(
        shards=[results.shards[place] for place in places],
        attempts=[results.attempts[place] for place in places],
        started_us=[results.started_us[place] for place in places],
        ended_us=[results.ended_us[place] for place in places],
        items=[results.items[place] for place in places],
        outputs=[results.outputs[place] for place in places],
        elapsed_ns=[spent * len(places) // len(results.shards) for spent in results.elapsed_ns],
    )


def without_columns(report: pb.Report, batch: pb.LeaseBatch) -> pb.Report:
    """Return a report with a message for each result, for a scheduler that reads no columns; each has its share of time.

    Args:
        report: The report.
        batch: The batch that it is about.
    """
    plain = pb.Report()
    plain.CopyFrom(report)
    plain.ClearField("ordinary")
    columns = report.ordinary
    for row, items in enumerate(columns.items):
        result = plain.results.add(
            shard=columns.shards[row], attempt=columns.attempts[row], outcome=job_pb2.ATTEMPT_OUTCOME_OK
        )
        result.start_time.FromMicroseconds(columns.started_us[row])
        result.end_time.FromMicroseconds(columns.ended_us[row])
        result.output.count, result.output.inline = items, columns.outputs[row]
        for call, spent_ns in zip(batch.calls, columns.elapsed_ns, strict=True):
            result.counts.add(node=call.node, ok=items).elapsed.FromNanoseconds(spent_ns // len(columns.shards))
    return plain
