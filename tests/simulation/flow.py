"""Follows every item of a job through the payloads in its journal."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from pixloom.graph.plan import StageKind
from pixloom.v1 import executor_pb2
from pixloom_scheduler.core.states import NodeState
from tests.simulation.items import read_ids

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixloom_scheduler.core.model import JobRun, StageRun

__all__ = ["check_flow"]

_ATTEMPT, _ENDS_SHARD, _CARRIED = 7, 1, 8
_OK, _PARTIAL = 1, 2


def check_flow(run: JobRun, rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what is wrong: items that vanished, appeared or were counted twice.

    What a stage gave before it was reset does not count.
    """
    rows = [row for row in rows if row["kind"] == _ATTEMPT and row["generation"] >= run.stages[row["stage"]].since]
    produced: list[dict[int, list[str]]] = [{} for _ in run.stages]
    taken: list[Counter[str]] = [Counter() for _ in run.stages]
    for row in rows:
        stage = run.stages[row["stage"]]
        if row["outcome"] in (_OK, _PARTIAL):
            result = executor_pb2.TaskResult.FromString(row["payload"] or b"")
            output = read_ids(result.output)
            produced[row["stage"]][row["shard"]] = output
            if stage.plan.kind is StageKind.MAPPED:
                taken[row["stage"]].update([*output, *read_ids(result.rejects)])
            elif stage.plan.kind is StageKind.WHOLE:
                taken[row["stage"]].update(item for kept in result.kept for item in read_ids(kept.items))
    for row in rows:
        if row["flags"] & _CARRIED and row["flags"] & _ENDS_SHARD:
            stage = run.stages[row["stage"]]
            taken[row["stage"]].update(_read_by(stage, row["shard"], produced))
    for index, stage in enumerate(run.stages):
        yield from _check_stage(run, index, stage, produced, taken[index])


def _read_by(stage: StageRun, shard: int, produced: list[dict[int, list[str]]]) -> list[str]:
    shards = stage.shards
    producer = stage.plan.inputs[shards.edge[shard]].producer
    offset = shards.offset[shard]
    ids = produced[producer].get(shards.source[shard], [])[offset : offset + shards.count[shard]]
    subset = shards.subsets.get(shard)
    return ids if subset is None else [ids[index] for index in subset]


def _check_stage(
    run: JobRun, index: int, stage: StageRun, produced: list[dict[int, list[str]]], taken: Counter[str]
) -> Iterator[str]:
    given = Counter(item for edge in stage.plan.inputs for ids in produced[edge.producer].values() for item in ids)
    if stage.plan.kind is StageKind.SOURCE:
        every = [item for ids in produced[index].values() for item in ids]
        if len(every) != len(set(every)):
            yield f"stage {index} read a page twice"
        return
    extra = taken - given
    if extra:
        yield f"stage {index} took {sorted(extra)[:5]} more often than they were given"
    nodes = [run.nodes[node] for node in stage.plan.nodes]
    if any(node.state is not NodeState.COMPLETED for node in nodes):
        return
    missing = given - taken
    if missing:
        yield f"stage {index} completed without {sorted(missing)[:5]}"
    if stage.plan.kind is StageKind.MAPPED:
        before = given.total()
        for node in nodes:
            after = node.ok + node.filtered + node.rejected
            if after != before:
                yield f"node {node.plan.id} was given {before} items and counts {after}"
            before = node.ok
