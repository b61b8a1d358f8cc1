"""What is in a lease batch: its tasks, as messages, or, if all of them are ordinary, as columns; or siblings.

*Siblings* are the only tasks of several stages of a job that run the same op. A sibling's stage stands in for its shard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pixloom.v1 import executor_pb2

__all__ = ["is_sound", "keep_tasks", "node_of", "task_count", "task_keys"]

_FIRST_ATTEMPT: Final = 1


def is_sound(batch: executor_pb2.LeaseBatch) -> bool:
    """Return whether columns are of one length, name what there is to read, and have no messages beside them."""
    columns = batch.ordinary
    rows = len(columns.shards)
    others = (columns.attempts, columns.places, columns.offsets, columns.counts)
    return (
        not (rows and batch.tasks)
        and all(len(column) == rows for column in others)
        and max(columns.places, default=-1) < len(columns.sources)
    )


def task_count(batch: executor_pb2.LeaseBatch) -> int:
    """Return the number of tasks in a batch."""
    return len(batch.tasks) + len(batch.ordinary.shards) + len(batch.siblings)


def task_keys(batch: executor_pb2.LeaseBatch) -> tuple[tuple[int, int], ...]:
    """Return shard and attempt of the tasks in a batch, in their order."""
    columns = batch.ordinary
    if columns.shards:
        return tuple(zip(columns.shards, columns.attempts, strict=True))
    if batch.siblings:
        return tuple((sibling.stage, _FIRST_ATTEMPT) for sibling in batch.siblings)
    return tuple((task.shard, task.attempt) for task in batch.tasks)


def node_of(batch: executor_pb2.LeaseBatch, shard: int, call: int) -> str:
    """Return the node that a call of a batch stands for in one of its tasks; for a batch without that task, the call's."""
    for sibling in batch.siblings:
        if sibling.stage == shard:
            return sibling.node
    return batch.calls[call].node


def keep_tasks(batch: executor_pb2.LeaseBatch, kept: Mapping[int, int]) -> None:
    """Take tasks out of a batch.

    Args:
        batch: The batch.
        kept: Attempt by shard of those that stay.
    """
    tasks = [task for task in batch.tasks if kept.get(task.shard) == task.attempt]
    del batch.tasks[:]
    batch.tasks.extend(tasks)
    columns = batch.ordinary
    if columns.shards:
        rows = [row for row, (shard, attempt) in enumerate(task_keys(batch)) if kept.get(shard) == attempt]
        for column in (columns.shards, columns.attempts, columns.places, columns.offsets, columns.counts):
            column[:] = [column[row] for row in rows]
    if batch.siblings:
        siblings = [sibling for sibling in batch.siblings if sibling.stage in kept]
        del batch.siblings[:]
        batch.siblings.extend(siblings)
