"""Reading a document into the model, keeping whatever can be read of one that has mistakes.

A document with a mistake in one field is still checked in all others, so that a person sees everything at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ValidationError

from pixloom.errors import Problem
from pixloom.graph.pointers import pointer
from pixloom.graph.spec import LimitsSpec, NodeSpec, ParamSpec, RetrySpec, WorkflowSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

    from pixloom.graph.suggestions import Suggester

__all__ = ["Draft", "read_draft"]


@dataclass(frozen=True, slots=True)
class Draft:
    """What could be read of a document.

    Attributes:
        spec: The whole workflow, if nothing is wrong with its form.
        nodes: The nodes by place; None where nothing could be read.
        ids: Their ids by place; None where there is none.
        params: The declared params by name; None where one could not be read.
        outputs: The outputs that could be read.
    """

    spec: WorkflowSpec | None
    nodes: tuple[NodeSpec | None, ...]
    ids: tuple[str | None, ...]
    params: Mapping[str, ParamSpec | None]
    outputs: Mapping[str, str]


def read_draft(document: dict[str, Any], suggester: Suggester) -> tuple[Draft, list[Problem]]:
    """Return what can be read of a document, and what is wrong with its form."""
    try:
        spec = WorkflowSpec.model_validate(document)
    except ValidationError as error:
        problems = [_problem(detail, document, suggester) for detail in error.errors(include_url=False)]
        return _partial(document), _joined(problems)
    ids = tuple(node.id for node in spec.nodes)
    return Draft(spec, tuple(spec.nodes), ids, spec.params, spec.outputs), []


def _joined(problems: list[Problem]) -> list[Problem]:
    """Return the problems with the several complaints about one value (one for each type it may have) made one."""
    found: dict[tuple[str, str], Problem] = {}
    for problem in problems:
        key = (problem.pointer, problem.detail if problem.reason != "INVALID_FIELD" else "")
        known = found.get(key)
        detail = problem.detail if known is None else f"{known.detail}, or {problem.detail}"
        found[key] = Problem(problem.pointer, detail, problem.reason)
    return list(found.values())


def _partial(document: dict[str, Any]) -> Draft:
    raw_nodes = document.get("nodes")
    listed = raw_nodes if isinstance(raw_nodes, list) else []
    ids = tuple(node["id"] if isinstance(node, dict) and isinstance(node.get("id"), str) else None for node in listed)
    raw_params = document.get("params")
    raw_outputs = document.get("outputs")
    declared = raw_params if isinstance(raw_params, dict) else {}
    outputs = raw_outputs if isinstance(raw_outputs, dict) else {}
    return Draft(
        spec=None,
        nodes=tuple(_readable_node(node) for node in listed),
        ids=ids,
        params={name: _readable_param(value) for name, value in declared.items()},
        outputs={name: value for name, value in outputs.items() if isinstance(value, str)},
    )


def _readable_param(raw: Any) -> ParamSpec | None:
    try:
        return ParamSpec.model_validate(raw)
    except ValidationError:
        return None


def _readable_node(raw: Any) -> NodeSpec | None:
    """Return the node without its unreadable fields, or None if it has no readable id and op."""
    try:
        return NodeSpec.model_validate(raw)
    except ValidationError as error:
        bad = {detail["loc"][0] for detail in error.errors(include_url=False) if detail["loc"]}
    if not isinstance(raw, dict):
        return None
    # An id that breaks the pattern still names its node.
    rest = {key: value for key, value in raw.items() if key not in bad - {"id"}}
    try:
        return NodeSpec.model_validate({**rest, "id": "unreadable"}).model_copy(update={"id": rest.get("id")})
    except ValidationError:
        return None


_OF: Final[Mapping[str, tuple[str, type[BaseModel]]]] = {
    "nodes": ("a node", NodeSpec),
    "params": ("a param", ParamSpec),
    "retry": ("`retry`", RetrySpec),
    "limits": ("`limits`", LimitsSpec),
}


def _problem(error: ErrorDetails, document: Any, suggester: Suggester) -> Problem:
    path = _path(error, document)
    here = pointer(*path)
    match error["type"]:
        case "extra_forbidden":
            what, model = _owner(path)
            known = [field.alias or name for name, field in model.model_fields.items()]
            hint = suggester.hint(str(path[-1]), known) or f"; it has {', '.join(known)}"
            return Problem(here, f"`{path[-1]}` is not a field of {what}{hint}", "UNKNOWN_FIELD")
        case "missing":
            return Problem(pointer(*path[:-1]), f"`{path[-1]}` is missing", "MISSING_FIELD")
        case "too_long" if path == ("nodes",):
            return Problem(here, error["msg"], "TOO_MANY_NODES")
        case _:
            message = error["msg"]
            return Problem(here, message[:1].lower() + message[1:], "INVALID_FIELD")


def _path(error: ErrorDetails, document: Any) -> tuple[str | int, ...]:
    """Return the place of an error in the document: its location without the names of union members."""
    path: list[str | int] = []
    value = document
    location = error["loc"]
    for place, part in enumerate(location):
        inside = part in value if isinstance(value, dict) else isinstance(value, list) and part in range(len(value))
        if inside:
            value = value[part]
        elif not (error["type"] == "missing" and place == len(location) - 1):
            continue
        path.append(part)
    return tuple(path)


def _owner(path: tuple[str | int, ...]) -> tuple[str, type[BaseModel]]:
    for part in reversed(path[:-1]):
        if isinstance(part, str) and part in _OF:
            return _OF[part]
    return "a workflow", WorkflowSpec
