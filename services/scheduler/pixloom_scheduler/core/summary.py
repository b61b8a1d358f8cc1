"""Many ended attempts at once: what a restart puts into a job's memory instead of them, one after another.

Most rows of a long journal say the same of another shard: its first or a later attempt ended well, gave so many items,
and made shards of the stages behind it. Between two rows that say anything else, their order matters only where they
append to the same table of shards; all else they do are sums, a least and a greatest time. So a stretch of them can be
summed up, column by column, and `apply_summary` then leaves a job exactly as `apply` leaves it after each of them.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from operator import le
from typing import TYPE_CHECKING

from pixloom.graph.plan import StageKind

if TYPE_CHECKING:
    from pixloom_scheduler.core.changes import NodeTally
    from pixloom_scheduler.core.model import JobRun, StageRun

__all__ = ["CutColumns", "EndedShards", "Stretch", "TallyCount", "apply_summary"]


@dataclass(frozen=True, slots=True)
class CutColumns:
    """Cuts into one stage in the order of the journal, column by column.

    Attributes:
        stage: The consumer.
        edge: Which of its edges, of each cut.
        source: The shard whose output was cut, of each.
        items: Its number of items, of each.
        size: Items in each shard but the last, of each.
    """

    stage: int
    edge: array[int]
    source: array[int]
    items: array[int]
    size: array[int]


@dataclass(frozen=True, slots=True)
class EndedShards:
    """Shards of one mapped stage that ended well.

    Attributes:
        stage: The stage.
        shards: The shards, in any order.
        retries: How many of the attempts were not the first.
        items_out: Items that the last node gave.
        passed: Those of them that passed every node, as the attempts that gave them say nothing else.
        start: When the first of the attempts started, seconds; 0 if none says so.
        written: When the last of them became durable, seconds.
    """

    stage: int
    shards: array[int]
    retries: int
    items_out: int
    passed: int
    start: float
    written: float


@dataclass(frozen=True, slots=True)
class TallyCount:
    """Attempts of one stage that counted the same.

    Attributes:
        stage: The stage.
        tallies: What each of them counted, node by node.
        attempts: How many they are.
    """

    stage: int
    tallies: tuple[NodeTally, ...]
    attempts: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """Attempts that follow one another in a journal, of any stages, all of which ended their shards well.

    Attributes:
        rows: How many they are.
        ended: What they ended, one for each stage.
        tallies: What those counted that not merely passed items on.
        cuts: Shards that they made, one for each consumer.
    """

    rows: int
    ended: tuple[EndedShards, ...]
    tallies: tuple[TallyCount, ...]
    cuts: tuple[CutColumns, ...]


def apply_summary(job: JobRun, stretch: Stretch) -> None:
    """Put a stretch of the journal into a job that is being read, as `apply` would put its rows one by one."""
    job.seq += stretch.rows
    # What ends may have been made in the same stretch.
    for cuts in stretch.cuts:
        _cut(job.stages[cuts.stage], cuts)
    for ended in stretch.ended:
        _end(job, ended)
    for counted in stretch.tallies:
        _count(job, counted)


def _cut(consumer: StageRun, cuts: CutColumns) -> None:
    shards = consumer.shards
    before = len(shards)
    if all(map(le, cuts.items, cuts.size)):
        # One shard each, as in any stage whose shards are no smaller than those before it.
        shards.edge.extend(array("H", cuts.edge))
        shards.source.extend(array("I", cuts.source))
        shards.offset.extend(array("I", bytes(shards.offset.itemsize * len(cuts.edge))))
        shards.count.extend(array("I", cuts.items))
        shards.ended.extend(bytes(len(cuts.edge)))
    else:
        for edge, source, items, size in zip(cuts.edge, cuts.source, cuts.items, cuts.size, strict=True):
            shards.extend(edge, source, items, size)
    consumer.open += len(shards) - before


def _end(job: JobRun, ended: EndedShards) -> None:
    stage = job.stages[ended.stage]
    if stage.plan.kind is not StageKind.MAPPED:
        raise ValueError(f"stage {ended.stage} of job {job.id} is not mapped: its attempts cannot be summed up")
    flags = stage.shards.ended
    for shard in ended.shards:
        flags[shard] = 1
    stage.done += len(ended.shards)
    stage.open -= len(ended.shards)
    stage.items_out += ended.items_out
    # Only what failed or was lost before has a history.
    for shard in [shard for shard in stage.tasks if flags[shard]]:
        if stage.tasks.pop(shard).due:
            stage.backing_off -= 1
    for index in stage.plan.nodes:
        node = job.nodes[index]
        node.retry_count += ended.retries
        node.ok += ended.passed
        if ended.start and (not node.start or ended.start < node.start):
            node.start = ended.start
    job.updated = max(job.updated, ended.written)
    job.checkpoint = job.updated


def _count(job: JobRun, counted: TallyCount) -> None:
    times = counted.attempts
    for index, tally in zip(job.stages[counted.stage].plan.nodes, counted.tallies, strict=True):
        node = job.nodes[index]
        node.ok += tally.ok * times
        node.filtered += tally.filtered * times
        node.rejected += tally.rejected * times
        for reason, count in (tally.reasons or {}).items():
            node.reasons[reason] = node.reasons.get(reason, 0) + count * times
