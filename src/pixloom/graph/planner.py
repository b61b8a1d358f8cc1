"""From a valid workflow and the params of a run to a plan: lifting, fusion, order.

*Lifting*: an item op fed by a collection is mapped over it; without one it runs once. *Fusion*: item ops in a row share
a stage where the rules of `pixloom.graph.fusion` allow it. *Order*: stages come out in topological order, those that
are free in the order of the document, so the same document and params always give the same plan.

A stage waits (`after`) for the nodes that its first node names in `dependencies`, `when` and `${nodes…}`, and for
values that flow into a mapped stage. A stage that must not run ahead (a collection or value op, or one with an effect
outside) also waits for the nearest stages before it that may still fail by `max_failed_ratio`; what lies before those
has ended when they have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pixloom.errors import InvalidError, Problem
from pixloom.graph.catalogue import OpKind, PortType
from pixloom.graph.cycles import topological_order
from pixloom.graph.expressions import ConditionKind, compile_condition
from pixloom.graph.fusion import Step, boundary_of, stage_kind
from pixloom.graph.op_params import check_op_params
from pixloom.graph.plan import Edge, NodePlan, OnError, Plan, StageKind, StagePlan
from pixloom.graph.pointers import pointer
from pixloom.graph.ports import COLLECTIONS, data_edges, split_source
from pixloom.graph.references import Reference, ReferenceKind, has_reference, references_in, substitute_params
from pixloom.graph.run_params import resolve_params
from pixloom.graph.suggestions import Suggester

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from pixloom.graph.catalogue import Catalogue, OpSpec
    from pixloom.graph.spec import NodeSpec, WorkflowSpec

__all__ = ["plan"]


def plan(spec: WorkflowSpec, params: Mapping[str, Any], catalogue: Catalogue, *, complete: bool = True) -> Plan:
    """Return the plan of a run.

    Args:
        spec: A workflow that `validate` found nothing wrong with, against the same catalogue.
        params: What the run gives; defaults are filled in here.
        catalogue: The ops.
        complete: Whether all params must be there. If not, nodes whose params read missing ones keep them as they are
            written: such a plan shows what will run and cannot be run.

    Raises:
        InvalidError: The params do not fit the workflow, or what they resolve to does not fit an op (reason
            INVALID_PARAMS), or an op is not in the catalogue (INVALID_WORKFLOW).
    """
    resolved = resolve_params(spec, params, complete=complete)
    steps = _steps(spec, catalogue)
    node_params = _node_params(steps, resolved, missing=spec.params.keys() - resolved.keys())
    stages = _ordered(steps, _chains(steps))
    stage_of = {place: index for index, (members, _) in enumerate(stages) for place in members}
    outputs = {name: split_source(source)[0] for name, source in spec.outputs.items()}
    places = {step.spec.id: step.place for step in steps}
    delivered = _delivered(steps, {places[node] for node in outputs.values()})
    readers_first = [place for members, _ in reversed(stages) for place in reversed(members)]
    feeding = _feeding_pixels(steps, readers_first, stage_of)
    return Plan(
        nodes=tuple(
            _node_plan(
                step,
                steps,
                stage=stage_of[step.place],
                params=node_params[step.place],
                deliver=step.place in delivered,
                feeds_pixels=step.place in feeding,
            )
            for step in steps
        ),
        stages=tuple(_stage_plans(steps, stages, stage_of)),
        outputs={name: places[node] for name, node in outputs.items()},
        timeout_s=spec.timeout_s,
    )


def _steps(spec: WorkflowSpec, catalogue: Catalogue) -> list[Step]:
    places = {node.id: place for place, node in enumerate(spec.nodes)}
    ops = [_op(node, place, catalogue) for place, node in enumerate(spec.nodes)]
    edges = [tuple(data_edges(node, op)) for node, op in zip(spec.nodes, ops, strict=True)]
    feeds: list[list[int]] = [[] for _ in spec.nodes]
    for place, incoming in enumerate(edges):
        for edge in incoming:
            feeds[places[edge.node]].append(place)
    return [
        Step(
            place=place,
            spec=node,
            op=ops[place],
            edges=edges[place],
            reads=tuple(places[edge.node] for edge in edges[place]),
            feeds=tuple(feeds[place]),
            waits=tuple(sorted({places[name] for name in _awaited(node)})),
        )
        for place, node in enumerate(spec.nodes)
    ]


def _op(node: NodeSpec, place: int, catalogue: Catalogue) -> OpSpec:
    op = catalogue.get(node.op)
    if op is None:
        problem = Problem(pointer("nodes", place, "op"), f"there is no op `{node.op}`", "UNKNOWN_OP")
        raise InvalidError(f"{problem.pointer}: {problem.detail}", reason="INVALID_WORKFLOW", problems=(problem,))
    return op


def _awaited(node: NodeSpec) -> Iterator[str]:
    yield from node.dependencies
    if node.when is not None:
        yield from compile_condition(node.when, ConditionKind.WHEN).node_ids
    yield from _values_read(node.params)


def _values_read(params: Mapping[str, Any]) -> Iterator[str]:
    return _names_read(params, ReferenceKind.NODE)


def _params_read(params: Mapping[str, Any]) -> Iterator[str]:
    return _names_read(params, ReferenceKind.PARAM)


def _names_read(params: Mapping[str, Any], kind: ReferenceKind) -> Iterator[str]:
    for _, reference in references_in(dict(params)):
        if isinstance(reference, Reference) and reference.kind is kind:
            yield reference.name


def _node_params(
    steps: Sequence[Step], params: Mapping[str, Any], *, missing: AbstractSet[str]
) -> list[tuple[dict[str, Any], bool]]:
    """Return the params of each node with `${params…}` replaced, and whether others are left for its release."""
    suggester = Suggester()
    found: list[tuple[dict[str, Any], bool]] = []
    problems: list[Problem] = []
    for step in steps:
        written = dict(step.spec.params)
        if not has_reference(written):
            found.append((written, False))
            continue
        at = ("nodes", step.place, "params")
        dynamic = any(_values_read(written))
        if missing and not missing.isdisjoint(_params_read(written)):
            found.append((written, dynamic))
            continue
        try:
            resolved = substitute_params(written, params)
        except InvalidError as error:
            problems.append(Problem(pointer(*at), error.message, "INVALID_PARAM"))
            continue
        problems.extend(check_op_params(step.op, resolved, at=at, final=not dynamic, suggester=suggester))
        found.append((resolved, dynamic))
    if problems:
        first = problems[0]
        raise InvalidError(f"{first.pointer}: {first.detail}", reason="INVALID_PARAMS", problems=tuple(problems))
    return found


def _chains(steps: Sequence[Step]) -> list[tuple[list[int], str]]:
    """Return the places of the nodes of each stage, and why it begins."""
    chains: list[tuple[list[int], str]] = []
    chain_of: dict[int, list[int]] = {}
    for place in topological_order([step.needs for step in steps]):
        step = steps[place]
        source = step.item_source
        if source is None:
            boundary = boundary_of(step, None, None)
        else:
            boundary = boundary_of(step, steps[source], steps[chain_of[source][0]])
        if boundary or source is None:
            chain_of[place] = [place]
            chains.append((chain_of[place], boundary))
        else:
            chain_of[place] = chain_of[source]
            chain_of[place].append(place)
    return chains


def _ordered(steps: Sequence[Step], chains: list[tuple[list[int], str]]) -> list[tuple[list[int], str]]:
    """Return the stages in topological order; those that are free in the order of the document."""
    # Numbered by their first node, so that ties are decided by the document.
    chains = sorted(chains, key=lambda chain: chain[0][0])
    number_of = {place: number for number, (members, _) in enumerate(chains) for place in members}
    needs = [
        sorted({number_of[other] for place in members for other in steps[place].needs} - {number})
        for number, (members, _) in enumerate(chains)
    ]
    return [chains[number] for number in topological_order(needs)]


def _stage_plans(
    steps: Sequence[Step], stages: Sequence[tuple[list[int], str]], stage_of: Mapping[int, int]
) -> Iterator[StagePlan]:
    # For each stage the nodes that a later stage must wait for, if it must not run ahead.
    may_fail: list[frozenset[int]] = []
    for index, (members, boundary) in enumerate(stages):
        head = steps[members[0]]
        kind = stage_kind(head)
        before = frozenset(place for source in head.reads for place in may_fail[stage_of[source]])
        after = set(head.waits)
        if head.must_wait:
            after |= before
        if kind is StageKind.MAPPED:
            pairs = zip(head.edges, head.reads, strict=True)
            after |= {place for edge, place in pairs if edge.port.type not in COLLECTIONS}
        if any(steps[place].spec.max_failed_ratio < 1 for place in members):
            may_fail.append(frozenset(members))
        else:
            may_fail.append(frozenset() if head.must_wait else before)
        yield StagePlan(
            index=index,
            kind=kind,
            nodes=tuple(members),
            pool=head.pool,
            inputs=tuple(
                Edge(producer=stage_of[source], port=edge.port.name, position=edge.place)
                for edge, source in zip(head.edges, head.reads, strict=True)
            ),
            shard_size=0 if kind is StageKind.WHOLE else head.spec.shard_size or 0,
            retry=head.retry,
            after=tuple(sorted(after)),
            boundary=boundary,
        )


def _delivered(steps: Sequence[Step], outputs: set[int]) -> set[int]:
    """Return the steps that give out files: kept ones, workflow outputs, and what those only choose among or sort."""
    delivered: set[int] = set()
    waiting = [step.place for step in steps if step.spec.keep or step.place in outputs]
    while waiting:
        place = waiting.pop()
        if place in delivered:
            continue
        delivered.add(place)
        op = steps[place].op
        if op.kind is OpKind.COLLECTION and op.output is not PortType.VALUE:
            waiting.extend(steps[place].reads)
    return delivered


def _feeding_pixels(steps: Sequence[Step], order: Iterable[int], stage_of: Mapping[int, int]) -> frozenset[int]:
    """Return the places of steps with an item op outside their own stage that opens pixels coming from them.

    Args:
        steps: The steps by place.
        order: Their places, readers first.
        stage_of: Index of the stage of each place.
    """
    feeding: set[int] = set()
    opened: set[int] = set()
    """Places from which pixels come that some op opens, in whatever stage."""
    for place in order:
        for reader in steps[place].feeds:
            is_opened = reader in opened or _opens_pixels(steps[reader])
            if is_opened:
                opened.add(place)
            if is_opened if stage_of[reader] != stage_of[place] else reader in feeding:
                feeding.add(place)
    return frozenset(feeding)


def _opens_pixels(step: Step) -> bool:
    return step.op.kind is OpKind.ITEM and any(edge.port.type is PortType.IMAGE for edge in step.edges)


def _node_plan(
    step: Step,
    steps: Sequence[Step],
    *,
    stage: int,
    params: tuple[dict[str, Any], bool],
    deliver: bool,
    feeds_pixels: bool,
) -> NodePlan:
    spec, op = step.spec, step.op
    return NodePlan(
        id=spec.id,
        op=op.ref,
        kind=op.kind,
        stage=stage,
        params=params[0],
        dynamic=params[1],
        when=spec.when or "",
        needs=tuple(step.needs),
        dependencies=tuple(steps[place].spec.id for place in step.waits if place not in step.reads),
        on_error=OnError(spec.on_error),
        max_failed_ratio=float(spec.max_failed_ratio),
        timeout_s=float(spec.timeout_s if spec.timeout_s is not None else op.default_timeout_s),
        deliver=deliver,
        feeds_pixels=feeds_pixels,
        estimated_duration_s=spec.estimated_duration_s,
        limits=spec.limits.model_dump(exclude_none=True) if spec.limits is not None else {},
        cost_s=op.cost_hint_s,
        expands=op.expands,
    )
