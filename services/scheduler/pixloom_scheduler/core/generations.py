"""Opens the next generation of a job that has ended: what has to be done again, and what is carried over.

Work is carried over shard by shard. A stage has one of three fates:

- *carried*: nothing about it changes. Its nodes keep their ends, its outputs are read as before.
- *reopened*: what it has done stays done, and it goes on with what it has not: tasks that failed, were cancelled or never
  started, and items that are to be tried again. Only sources and mapped stages can be reopened.
- *reset*: it starts from the beginning, as what it reads is not what it was, or because it was asked for. What earlier
  generations gave of it is not read any more.

Whatever reads from a reset stage is reset. Whatever reads from a reopened one is reopened if it takes its items shard by
shard, and else reset: a contact sheet of more photographs is another sheet.

A job that is made of an old one, from a node on, begins with a journal that the old one's gives: what it says of stages
that are carried, in its order, as if the others had not begun yet (`carried_change`).
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING

from pixloom.graph.plan import StageKind
from pixloom_scheduler.core.changes import AttemptEnded, GenerationOpened, NodeEnded, NodeReleased
from pixloom_scheduler.core.model import NodeRun, ShardTable, TaskRun
from pixloom_scheduler.core.reasons import counted_as
from pixloom_scheduler.core.states import NodeState

if TYPE_CHECKING:
    from collections.abc import Collection

    from pixloom.graph.plan import Plan
    from pixloom_scheduler.core.changes import Durable, RetriedItems
    from pixloom_scheduler.core.model import JobRun, StageRun

__all__ = ["carried_change", "is_carried_end", "next_generation", "nodes_from", "open_generation", "stages_from"]

_BAD = (NodeState.FAILED, NodeState.SKIPPED, NodeState.CANCELLED)
_OWN_CHOICE = ("WHEN_FALSE", "UPSTREAM_SKIPPED")
"""Reasons for which a node is SKIPPED although nothing went wrong."""


class _Fate(Enum):
    CARRIED = 0
    REOPENED = 1
    RESET = 2


def next_generation(
    job: JobRun, *, again: Collection[int] = (), retried: tuple[RetriedItems, ...] = ()
) -> GenerationOpened:
    """Return what the next generation of a job does again.

    Args:
        job: The job, which has ended; only read.
        again: Nodes that run again from the beginning, with all behind them.
        retried: Items that were rejected and are tried again.
    """
    asked = {job.nodes[node].plan.stage for node in again}
    tried = {items.stage for items in retried}
    fates: list[_Fate] = []
    for stage in job.stages:
        fate = _Fate.RESET if stage.plan.index in asked else _own_fate(job, stage)
        if stage.plan.index in tried and fate is _Fate.CARRIED:
            fate = _Fate.REOPENED
        fates.append(max(fate, _inherited_fate(job, stage, fates), key=lambda each: each.value))
    return GenerationOpened(
        reset=tuple(index for index, fate in enumerate(fates) if fate is _Fate.RESET),
        reopened=tuple(index for index, fate in enumerate(fates) if fate is _Fate.REOPENED),
        retried=tuple(items for items in retried if fates[items.stage] is _Fate.REOPENED),
    )


def is_carried_end(state: NodeState, reason: str) -> bool:
    """Return whether what a node gave is complete: it COMPLETED, or was left out as the workflow wants it."""
    return state is NodeState.COMPLETED or reason in _OWN_CHOICE


def nodes_from(plan: Plan, node: int) -> frozenset[int]:
    """Return a node and all that come after it, by data, `dependencies`, conditions or references."""
    found = {node}
    for stage in plan.stages:
        for index in stage.nodes:
            if not found.isdisjoint(plan.nodes[index].needs):
                found.add(index)
    return frozenset(found)


def stages_from(plan: Plan, node: int) -> frozenset[int]:
    """Return the stages that run again when a node does: its own, with all nodes that share it, and all behind these."""
    found = {plan.nodes[node].stage}
    for stage in plan.stages:
        needs = {need for index in stage.nodes for need in plan.nodes[index].needs}.union(stage.after)
        if not found.isdisjoint(plan.nodes[need].stage for need in needs):
            found.add(stage.index)
    return frozenset(found)


def carried_change(change: Durable, plan: Plan, again: frozenset[int]) -> Durable | None:
    """Return what a change of an old job is in the journal of a job made of it; None if it has no place there.

    Generations stay as they were, so that shards keep their numbers and items that were retried stay so. Stages that run
    again are reset by each of them, as they have not begun.

    Args:
        change: A change of the old job.
        plan: Its plan.
        again: Stages that run again (`stages_from`); what the others gave is complete.
    """
    match change:
        case AttemptEnded() | NodeReleased():
            return None if change.stage in again else change
        case NodeEnded():
            return None if plan.nodes[change.node].stage in again else change
        case GenerationOpened():
            return GenerationOpened(
                reset=tuple(sorted(again.union(change.reset))),
                reopened=tuple(index for index in change.reopened if index not in again),
                retried=tuple(items for items in change.retried if items.stage not in again),
            )
        case _:
            return None


def _own_fate(job: JobRun, stage: StageRun) -> _Fate:
    """Return what becomes of a stage by the way it ended."""
    nodes = [job.nodes[node] for node in stage.plan.nodes]
    if all(is_carried_end(node.state, node.error[0]) for node in nodes):
        return _Fate.CARRIED
    if stage.plan.kind is StageKind.WHOLE:
        return _Fate.RESET
    # Every shard ended well and a node failed all the same: too many of its items were rejected.
    too_many_rejects = stage.sealed and not stage.open and not stage.failed and stage.done
    return _Fate.RESET if too_many_rejects else _Fate.REOPENED


def _inherited_fate(job: JobRun, stage: StageRun, fates: list[_Fate]) -> _Fate:
    """Return what becomes of a stage by what becomes of those it depends on, which come before it."""
    fate = _Fate.CARRIED
    producers = {edge.producer for edge in stage.plan.inputs}
    for producer in producers:
        if fates[producer] is _Fate.RESET:
            return _Fate.RESET
        if fates[producer] is _Fate.REOPENED:
            if stage.plan.kind is not StageKind.MAPPED:
                return _Fate.RESET
            fate = _Fate.REOPENED
    first = job.plan.nodes[stage.plan.nodes[0]]
    for need in {*first.needs, *stage.plan.after}:
        other = job.nodes[need].plan.stage
        if other not in producers and other != stage.plan.index and fates[other] is not _Fate.CARRIED:
            # What it waits for, or its condition speaks of, may end otherwise this time.
            if stage.released or stage.plan.kind is StageKind.WHOLE:
                return _Fate.RESET
            fate = _Fate.REOPENED
    return fate


def open_generation(job: JobRun, change: GenerationOpened) -> None:
    """Put a generation into a job, in place."""
    job.generation += 1
    job.recovery = None
    reset = set(change.reset)
    for index in change.reset:
        _reset(job, job.stages[index], reset)
    for index in change.reopened:
        _reopen(job, job.stages[index])
    for items in change.retried:
        _try_again(job, items)
    job.ended_nodes = sum(node.state.is_terminal for node in job.nodes)
    for index in (*change.reset, *change.reopened):
        stage = job.stages[index]
        needs = job.plan.nodes[stage.plan.nodes[0]].needs
        stage.awaited = sum(not job.nodes[node].state.is_terminal for node in set(stage.plan.after))
        stage.may_be_blocked = any(job.nodes[node].state in _BAD for node in needs)
    job.unsettled.clear()
    job.unsettled.update((*change.reset, *change.reopened))


def _reset(job: JobRun, stage: StageRun, reset: set[int]) -> None:
    """Start a stage from the beginning; cuts of what carried stages gave stay as they are."""
    for node in stage.plan.nodes:
        job.nodes[node] = NodeRun(job.plan.nodes[node], generation=job.generation)
    old, kept = stage.shards, ShardTable()
    if stage.plan.kind is StageKind.MAPPED:
        kept_edges = {place for place, edge in enumerate(stage.plan.inputs) if edge.producer not in reset}
        for shard in range(len(old)):
            # What was split off another shard is in that one again.
            if old.edge[shard] in kept_edges and shard not in old.subsets:
                kept.append(old.edge[shard], old.source[shard], old.offset[shard], old.count[shard])
    stage.shards = kept
    stage.released = False
    stage.since = job.generation
    stage.items_out = stage.next_ordinal = 0
    stage.warnings = []
    stage.retried = {}
    stage.cursor = 0
    stage.page_cursor = ""
    _go_on(stage, is_sealed=False)


def _reopen(job: JobRun, stage: StageRun) -> None:
    """Let a stage go on where it was: what ended well stays."""
    for index in stage.plan.nodes:
        node = job.nodes[index]
        node.state, node.end, node.error = NodeState.PENDING, 0.0, ("", "")
        node.generation = job.generation
    for shard in stage.failed_shards:
        stage.shards.ended[shard] = 0
    _go_on(stage, is_sealed=stage.sealed and stage.plan.kind is StageKind.SOURCE)


def _go_on(stage: StageRun, *, is_sealed: bool) -> None:
    """Make everything that has not ended ready once more."""
    shards = stage.shards
    stage.failed_shards = []
    stage.failed = stage.active = stage.backing_off = 0
    stage.failure = ("", "", 0)
    stage.done = sum(shards.ended)
    stage.open = len(shards) - stage.done
    stage.tasks = {}
    stage.ready = deque(shard for shard in range(stage.cursor) if not shards.ended[shard])
    stage.sealed = is_sealed
    stage.ended = stage.resolving = False
    if stage.plan.kind is StageKind.SOURCE and stage.open:
        stage.tasks[len(shards) - 1] = TaskRun(cursor=stage.page_cursor)


def _try_again(job: JobRun, items: RetriedItems) -> None:
    """Add a shard of rejected items, and take them out of what was counted."""
    stage = job.stages[items.stage]
    shards = stage.shards
    shard = len(shards)
    parent = items.shard
    shards.append(shards.edge[parent], shards.source[parent], shards.offset[parent], shards.count[parent])
    shards.subsets[shard] = items.indexes
    stage.open += 1
    stage.retried[parent] = stage.retried.get(parent, frozenset()).union(items.places)
    for place, reason in items.rejected:
        node = job.nodes[stage.plan.nodes[place]]
        node.rejected -= 1
        counted = counted_as(reason, node.reasons)
        node.reasons[counted] -= 1
        if not node.reasons[counted]:
            del node.reasons[counted]
        for before in stage.plan.nodes[:place]:
            job.nodes[before].ok -= 1
