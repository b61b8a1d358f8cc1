"""What a plan would do, stage by stage: the content of `pixloom plan`."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from pixloom.graph.catalogue import PortType
from pixloom.graph.plan import StageKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pixloom.graph.catalogue import Catalogue
    from pixloom.graph.plan import Plan, StagePlan

__all__ = ["COUNT_KEYWORD", "StageSummary", "expected_duration_s", "stage_summaries"]

# About what the scheduler starts from: two seconds of work, at most 256 items.
_SHARD_S: Final = 2.0
_SHARD_ITEMS: Final = 256

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
        items: Items that enter it (or that a source gives); None when nothing is known before the run.
        tasks: Tasks it is cut into; None when nothing is known before the run.
        estimated: Whether `items` and `tasks` are estimates: ops before it may drop items or make several, and the
            scheduler cuts shards by the cost it measures.
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
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class _Count:
    """A number of items, and whether it is an estimate."""

    items: int
    estimated: bool = False


def stage_summaries(
    plan: Plan, catalogue: Catalogue | None = None, *, source_items: Mapping[str, int] = MappingProxyType({})
) -> list[StageSummary]:
    """Return a summary of each stage, in the order of the plan.

    Items are counted from the sources on, as if every op gave what it got: what ops drop or make is not known before
    the run, so behind the first op every count is an estimate.

    Args:
        plan: The plan.
        catalogue: The ops; with it the items of sources that say how many they give are counted.
        source_items: Items that sources give as far as the caller has counted them, by node; they count as estimates,
            since files come and go.
    """
    given: list[_Count | None] = []
    summaries = []
    for stage in plan.stages:
        count = _items(plan, stage, given, catalogue, source_items)
        given.append(_given(plan, stage, count, catalogue))
        cost_s = sum(plan.nodes[place].cost_s for place in stage.nodes)
        tasks = _tasks(stage, count, cost_s)
        summaries.append(
            StageSummary(
                index=stage.index,
                kind=stage.kind,
                nodes=tuple(plan.nodes[place].id for place in stage.nodes),
                pool=stage.pool,
                inputs=tuple(sorted({edge.producer for edge in stage.inputs})),
                shard_size=stage.shard_size,
                items=count.items if count is not None else None,
                tasks=tasks.items if tasks is not None else None,
                cost_s=cost_s,
                boundary=stage.boundary,
                estimated=any(entry is not None and entry.estimated for entry in (count, tasks)),
            )
        )
    return summaries


def expected_duration_s(plan: Plan, summaries: Sequence[StageSummary], slots: Callable[[str], int]) -> float | None:
    """Return the seconds a run is expected to take; None when it has stages of which nothing is known before.

    Items are worked on by all slots of a pool together. What runs once, and stages whose author says how long they take
    (`estimated_duration_s`), count along the longest path.

    Args:
        plan: The plan.
        summaries: Its stages.
        slots: Returns the slots of a pool.
    """
    shared_s, paths = 0.0, list[float]()
    for stage, summary in zip(plan.stages, summaries, strict=True):
        before = {*(plan.nodes[node].stage for node in stage.after), *(edge.producer for edge in stage.inputs)}
        alone_s = sum(plan.nodes[node].estimated_duration_s or 0.0 for node in stage.nodes)
        if not alone_s and stage.kind is StageKind.MAPPED:
            if summary.items is None:
                return None
            shared_s += summary.cost_s * summary.items / max(1, slots(stage.pool))
        elif not alone_s:
            alone_s = summary.cost_s
        paths.append(alone_s + max((paths[other] for other in before), default=0.0))
    return shared_s + max(paths, default=0.0)


def _given(plan: Plan, stage: StagePlan, count: _Count | None, catalogue: Catalogue | None) -> _Count | None:
    """Return how many items a stage gives, if each of its ops gives what it gets."""
    if count is None or stage.kind is StageKind.SOURCE:
        return count
    last = catalogue.get(plan.nodes[stage.nodes[-1]].op) if catalogue is not None else None
    if stage.kind is StageKind.WHOLE and (last is None or last.output is PortType.VALUE):
        return None
    return _Count(count.items, estimated=True)


def _items(
    plan: Plan,
    stage: StagePlan,
    given: list[_Count | None],
    catalogue: Catalogue | None,
    source_items: Mapping[str, int],
) -> _Count | None:
    if stage.kind is StageKind.SOURCE:
        return _source_items(plan, stage, catalogue, source_items)
    entering = [given[edge.producer] for edge in stage.inputs]
    known = [count for count in entering if count is not None]
    if not known or len(known) < len(entering):
        return None
    return _Count(sum(count.items for count in known), estimated=any(count.estimated for count in known))


def _source_items(
    plan: Plan, stage: StagePlan, catalogue: Catalogue | None, source_items: Mapping[str, int]
) -> _Count | None:
    node = plan.nodes[stage.nodes[0]]
    if node.id in source_items:
        return _Count(source_items[node.id], estimated=True)
    op = catalogue.get(node.op) if catalogue is not None else None
    if op is None:
        return None
    for name, schema in op.params_schema.get("properties", {}).items():
        if isinstance(schema, dict) and schema.get(COUNT_KEYWORD) is True:
            count = node.params.get(name, schema.get("default"))
            return _Count(count) if isinstance(count, int) else None
    return None


def _tasks(stage: StagePlan, count: _Count | None, cost_s: float) -> _Count | None:
    if stage.kind is StageKind.WHOLE:
        return _Count(1)
    if stage.kind is not StageKind.MAPPED or count is None:
        return None
    if stage.shard_size and len(stage.inputs) == 1:
        return _Count(-(-count.items // stage.shard_size), estimated=count.estimated)
    size = stage.shard_size or max(1, min(_SHARD_ITEMS, int(_SHARD_S / max(cost_s, 1e-6))))
    return _Count(-(-count.items // size), estimated=True)
