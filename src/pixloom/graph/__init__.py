"""Pure: workflow documents, their validation and digest, the op catalogue, and the planner.

The walk of a document: `parse_json` or `parse_yaml` → `validate` (which converts older dialects) → `resolve_params` and
`plan` with the params of a run → at release, `compile_condition` and `resolve_node_params`.

Names are loaded when they are first used, so importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixloom.graph.builtin import builtin_catalogue
    from pixloom.graph.canonical import canonical_json, digest_of
    from pixloom.graph.catalogue import Catalogue, OpKind, OpSpec, Port, PortType
    from pixloom.graph.catalogue_codec import catalogue_from_json, catalogue_to_json
    from pixloom.graph.document import parse_json, parse_yaml
    from pixloom.graph.expressions import ConditionKind, Expression, compile_condition, item_bindings
    from pixloom.graph.op_params import check_op_params
    from pixloom.graph.plan import (
        Edge,
        NodePlan,
        OnError,
        Plan,
        RetryPolicy,
        StageKind,
        StagePlan,
    )
    from pixloom.graph.plan_codec import plan_from_json, plan_to_json
    from pixloom.graph.planner import plan as plan_workflow
    from pixloom.graph.references import resolve_node_params
    from pixloom.graph.run_params import resolve_params
    from pixloom.graph.spec import NodeSpec, ParamSpec, RetrySpec, WorkflowSpec, workflow_json_schema
    from pixloom.graph.summaries import StageSummary, expected_duration_s, stage_summaries
    from pixloom.graph.validation import ValidationResult, validate

__all__ = [
    "Catalogue",
    "ConditionKind",
    "Edge",
    "Expression",
    "NodePlan",
    "NodeSpec",
    "OnError",
    "OpKind",
    "OpSpec",
    "ParamSpec",
    "Plan",
    "Port",
    "PortType",
    "RetryPolicy",
    "RetrySpec",
    "StageKind",
    "StagePlan",
    "StageSummary",
    "ValidationResult",
    "WorkflowSpec",
    "builtin_catalogue",
    "canonical_json",
    "catalogue_from_json",
    "catalogue_to_json",
    "check_op_params",
    "compile_condition",
    "digest_of",
    "expected_duration_s",
    "item_bindings",
    "parse_json",
    "parse_yaml",
    "plan_from_json",
    "plan_to_json",
    "plan_workflow",
    "resolve_node_params",
    "resolve_params",
    "stage_summaries",
    "validate",
    "workflow_json_schema",
]

_HOMES = {
    "builtin": ("builtin_catalogue",),
    "canonical": ("canonical_json", "digest_of"),
    "catalogue": ("Catalogue", "OpKind", "OpSpec", "Port", "PortType"),
    "catalogue_codec": ("catalogue_from_json", "catalogue_to_json"),
    "document": ("parse_json", "parse_yaml"),
    "expressions": ("ConditionKind", "Expression", "compile_condition", "item_bindings"),
    "op_params": ("check_op_params",),
    "plan": (
        "Edge",
        "NodePlan",
        "OnError",
        "Plan",
        "RetryPolicy",
        "StageKind",
        "StagePlan",
    ),
    "plan_codec": ("plan_from_json", "plan_to_json"),
    "references": ("resolve_node_params",),
    "run_params": ("resolve_params",),
    "spec": ("NodeSpec", "ParamSpec", "RetrySpec", "WorkflowSpec", "workflow_json_schema"),
    "summaries": ("StageSummary", "expected_duration_s", "stage_summaries"),
    "validation": ("ValidationResult", "validate"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Return a public name from the module it lives in.

    Raises:
        AttributeError: There is no such public name.
    """
    # `pixloom.graph.plan` is the module of the plan's types, so the function has another name here.
    if name == "plan_workflow":
        return import_module("pixloom.graph.planner").plan
    if name not in _HOME_OF:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
