"""Tasks and results that travel as columns, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixloom.v1 import executor_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["as_columns", "keys_of", "reported", "tasks_of"]


def tasks_of(batch: executor_pb2.LeaseBatch) -> list[executor_pb2.Task]:
    """Return the tasks of a batch as messages; of siblings, the stage stands in for the shard."""
    tasks = list(batch.tasks)
    tasks += [executor_pb2.Task(shard=sibling.stage, attempt=1) for sibling in batch.siblings]
    columns = batch.ordinary
    for shard, attempt, place, offset, count in zip(
        columns.shards, columns.attempts, columns.places, columns.offsets, columns.counts, strict=True
    ):
        task = executor_pb2.Task(shard=shard, attempt=attempt, inputs=[columns.sources[place]])
        task.inputs[0].offset, task.inputs[0].count = offset, count
        tasks.append(task)
    return tasks


def keys_of(claim: executor_pb2.Claim, grant: executor_pb2.Grant) -> list[executor_pb2.TaskKey]:
    """Return the tasks that were granted."""
    if not grant.all:
        return list(grant.tasks)
    columns = zip(claim.keys.shards, claim.keys.attempts, strict=True)
    return [executor_pb2.TaskKey(shard=shard, attempt=attempt) for shard, attempt in columns]


def as_columns(result: executor_pb2.TaskResult) -> executor_pb2.OrdinaryResults:
    """Return a result as a row of its own."""
    return executor_pb2.OrdinaryResults(
        shards=[result.shard],
        attempts=[result.attempt],
        started_us=[result.start_time.ToMicroseconds()],
        ended_us=[result.end_time.ToMicroseconds()],
        items=[result.output.count],
        outputs=[result.output.inline],
        elapsed_ns=[counts.elapsed.ToNanoseconds() for counts in result.counts],
    )


def reported(report: executor_pb2.Report) -> Iterator[executor_pb2.TaskResult]:
    """Yield the results in a report as messages."""
    yield from report.results
    columns = report.ordinary
    for shard, attempt, output in zip(columns.shards, columns.attempts, columns.outputs, strict=True):
        result = executor_pb2.TaskResult(shard=shard, attempt=attempt)
        result.output.inline = output
        yield result
