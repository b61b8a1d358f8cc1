"""What a plan would do, stage by stage: the content of `pixloom plan`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pixloom.graph.plan import StageKind

if TYPE_CHECKING:
    from pixloom.graph.catalogue import Catalogue
    from pixloom.graph.plan import Plan, StagePlan

__all__ = ["COUNT_KEYWORD", "StageSummary", "stage_summaries"]

COUNT_KEYWORD: Final = "x-pixloom-count"
"""JSON Schema keyword by which a source op marks the param that says how many items it gives at most."""


@dataclass(frozen=True, slots=True)
class StageSummary:
    """A stage for people.

    Attributes:
        index: Place in the plan, from 0.
        kind: How it is cut into tasks.
        nodes: Ids of its nodes in order of execution.
        pool: Pool it runs in.
        inputs: Indexes of the stages it reads from, ascending.
        shard_size: Items in each shard; 0 when it runs as a whole or the scheduler decides by cost.
        items: Items that enter it (or that a source gives); None when that cannot be known before the run.
        tasks: Tasks it is cut into; None when that cannot be known before the run.
        cost_s: Expected seconds an item, or a run, of all its nodes together.
        boundary: Why it begins where it does.
    """

    index: int
    kind: StageKind
    nodes: tuple[str, ...]
    pool: str
    inputs: tuple[int, ...]
    shard_size: int
    items: int | None
    tasks: int | None
    cost_s: float
    boundary: str


def stage_summaries(plan: Plan, catalogue: Catalogue | None = None) -> list[StageSummary]:
    """Return a summary of each stage, in the order of the plan.

    Args:
        plan: The plan.
        catalogue: The ops; with it the items of sources that say how many they give are counted.
    """
    given: list[int | None] = []
    summaries = []
    for stage in plan.stages:
        items = _items(plan, stage, given, catalogue)
        # Only a source's own count holds: ops may drop items or make several.
        given.append(items if stage.kind is StageKind.SOURCE else None)
        summaries.append(
            StageSummary(
                index=stage.index,
                kind=stage.kind,
                nodes=tuple(plan.nodes[place].id for place in stage.nodes),
                pool=stage.pool,
                inputs=tuple(sorted({edge.producer for edge in stage.inputs})),
                shard_size=stage.shard_size,
                items=items,
                tasks=_tasks(stage, items),
                cost_s=sum(plan.nodes[place].cost_s for place in stage.nodes),
                boundary=stage.boundary,
            )
        )
    return summaries


def _items(plan: Plan, stage: StagePlan, given: list[int | None], catalogue: Catalogue | None) -> int | None:
    if stage.kind is StageKind.SOURCE:
        return _source_items(plan, stage, catalogue)
    entering = [given[edge.producer] for edge in stage.inputs]
    known = [count for count in entering if count is not None]
    return sum(known) if known and len(known) == len(entering) else None


def _source_items(plan: Plan, stage: StagePlan, catalogue: Catalogue | None) -> int | None:
    node = plan.nodes[stage.nodes[0]]
    op = catalogue.get(node.op) if catalogue is not None else None
    if op is None:
        return None
    for name, schema in op.params_schema.get("properties", {}).items():
        if isinstance(schema, dict) and schema.get(COUNT_KEYWORD) is True:
            count = node.params.get(name, schema.get("default"))
            return count if isinstance(count, int) else None
    return None


def _tasks(stage: StagePlan, items: int | None) -> int | None:
    if stage.kind is StageKind.WHOLE:
        return 1
    if stage.kind is StageKind.MAPPED and stage.shard_size and items is not None and len(stage.inputs) == 1:
        return -(-items // stage.shard_size)
    return None
