"""Stages that go to an executor together, and what each of them has to give.

Every one gives a value that tells its node and its params, so that a value that comes to another node shows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import orjson
from google.protobuf.duration_pb2 import Duration

from pixloom.graph.catalogue import OpKind
from pixloom.graph.plan import NodePlan, OnError, Plan, RetryPolicy, StageKind, StagePlan
from pixloom.v1 import executor_pb2, op_pb2
from pixloom_scheduler.core.states import NodeState

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator

    from pixloom_scheduler.core.model import JobRun

__all__ = ["Place", "has_value", "places_of", "sibling_place", "unlike", "with_siblings", "write_value"]

OP: Final = "debug.fail@1"
"""Runs in them and nowhere else; that it can fail is up to the children."""

Place = tuple[int, int, int]
"""Stage, shard and attempt."""


def with_siblings(plan: Plan, rng: random.Random) -> Plan:
    """Return a plan with two to five stages more that do the same, some behind its source, and perhaps one behind them."""
    first = len(plan.nodes)
    count = rng.randint(2, 5)
    kind = rng.choice((OpKind.VALUE, OpKind.ITEM))
    retry = RetryPolicy(max_attempts=rng.choice((2, 3, 4)), initial_backoff_s=rng.choice((0.05, 0.5)))
    behind_source = rng.random() < 0.6
    afters: list[tuple[int, ...]] = [(0,) if behind_source else ()] * count
    if rng.random() < 0.5:
        afters.append(tuple(range(first, first + count)))
    nodes, stages = [*plan.nodes], [*plan.stages]
    for number, after in enumerate(afters, first):
        nodes.append(
            NodePlan(
                id=f"s{number}",
                op=OP,
                kind=kind,
                stage=len(stages),
                params={"number": number} if rng.random() < 0.7 else {},
                needs=after,
                on_error=OnError.QUARANTINE,
                timeout_s=2.0,
                cost_s=0.0005,
            )
        )
        stages.append(
            StagePlan(
                index=len(stages),
                kind=StageKind.WHOLE,
                nodes=(number,),
                inputs=(),
                retry=retry,
                after=after,
            )
        )
    return replace(plan, nodes=tuple(nodes), stages=tuple(stages))


def sibling_place(stage: int, shard: int, attempt: int, *, are_siblings: bool) -> Place:
    """Return where a task is that messages name by its shard: of siblings, that is the stage."""
    return (shard, 0, attempt) if are_siblings else (stage, shard, attempt)


def places_of(stage: int, tasks: Iterable[Any], *, are_siblings: bool) -> list[Place]:
    """Return where tasks are, given the stage that their message names."""
    return [sibling_place(stage, task.shard, task.attempt, are_siblings=are_siblings) for task in tasks]


def has_value(batch: executor_pb2.LeaseBatch) -> bool:
    """Return whether the tasks of a batch give a value, alone or with siblings."""
    return batch.calls[0].op == OP


def write_value(batch: executor_pb2.LeaseBatch, result: executor_pb2.TaskResult) -> None:
    """Write what a task gives."""
    call = batch.calls[0]
    node, params = call.node, call.params_json
    for sibling in batch.siblings:
        if sibling.stage == result.shard:
            node, params = sibling.node, sibling.params_json or params
    counts = result.counts.add(node=node, elapsed=Duration(nanos=500_000))
    counts.ok = int(batch.kind == op_pb2.OP_KIND_ITEM)
    result.value_json = orjson.dumps(_value(node, orjson.loads(params)))


def unlike(run: JobRun) -> Iterator[str]:
    """Yield what is wrong about the values of a job's nodes."""
    for node in run.nodes:
        plan = node.plan
        if plan.op == OP and node.state is NodeState.COMPLETED and node.value != _value(plan.id, plan.params):
            yield f"node {plan.id} has {node.value}"


def _value(node: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"node": node, "params": params}
