"""Plans as JSON, as they are stored with jobs."""

from __future__ import annotations

import orjson

from pixloom.graph.catalogue import OpKind
from pixloom.graph.plan import Edge, NodePlan, OnError, Plan, RetryPolicy, StageKind, StagePlan

__all__ = ["plan_from_json", "plan_to_json"]


def plan_to_json(plan: Plan) -> bytes:
    """Return the plan as JSON; `plan_from_json` is its inverse."""
    return orjson.dumps(plan)


def plan_from_json(text: bytes | str) -> Plan:
    """Return the plan that `plan_to_json` made `text` of.

    Raises:
        orjson.JSONDecodeError: If it is no JSON.
    """
    data = orjson.loads(text)
    nodes = tuple(
        NodePlan(
            **{
                **node,
                "kind": OpKind(node["kind"]),
                "needs": tuple(node["needs"]),
                "dependencies": tuple(node["dependencies"]),
                "on_error": OnError(node["on_error"]),
            }
        )
        for node in data["nodes"]
    )
    stages = tuple(
        StagePlan(
            **{
                **stage,
                "kind": StageKind(stage["kind"]),
                "nodes": tuple(stage["nodes"]),
                "inputs": tuple(Edge(**edge) for edge in stage["inputs"]),
                "retry": RetryPolicy(**stage["retry"]),
                "after": tuple(stage["after"]),
            }
        )
        for stage in data["stages"]
    )
    return Plan(nodes=nodes, stages=stages, outputs=dict(data["outputs"]), timeout_s=data["timeout_s"])
