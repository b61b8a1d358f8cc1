"""The params of a run against what the workflow declares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pixloom.errors import InvalidError, Problem
from pixloom.graph.json_schemas import schema_errors, schema_mistakes, validator_of
from pixloom.graph.op_params import describe_error
from pixloom.graph.pointers import in_document_order, pointer
from pixloom.graph.suggestions import Suggester

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pixloom.graph.spec import ParamSpec, WorkflowSpec

__all__ = ["check_declarations", "resolve_params"]


def resolve_params(spec: WorkflowSpec, given: Mapping[str, Any], *, complete: bool = True) -> dict[str, Any]:
    """Return the params of a run with defaults filled in.

    Args:
        spec: A valid workflow.
        given: What the run gives.
        complete: Whether all of them must be there; otherwise those that are missing are left out.

    Raises:
        InvalidError: They do not fit (reason INVALID_PARAMS); `problems` has all places, as pointers into a request
            whose field `params` holds them, with the reasons UNKNOWN_PARAM, MISSING_PARAM and INVALID_PARAM.
    """
    suggester = Suggester()
    problems: list[Problem] = []
    for name in given:
        if name not in spec.params:
            known = f"; it takes {', '.join(sorted(spec.params))}" if spec.params else "; it takes none"
            hint = suggester.hint(name, spec.params) or known
            detail = f"the workflow {spec.name} has no param `{name}`{hint}"
            problems.append(Problem(pointer("params", name), detail, "UNKNOWN_PARAM"))
    resolved: dict[str, Any] = {}
    for name, declared in spec.params.items():
        if name in given:
            resolved[name] = given[name]
            problems.extend(_check(declared, given[name], ("params", name), "INVALID_PARAM"))
        elif declared.has_default:
            resolved[name] = declared.default
        elif complete:
            meaning = f" ({declared.description})" if declared.description else ""
            detail = f"the workflow {spec.name} needs the param `{name}`{meaning}"
            problems.append(Problem(pointer("params"), detail, "MISSING_PARAM"))
    if problems:
        ordered = in_document_order(problems, {"params": dict(given)})
        raise InvalidError(
            "; ".join(_line(problem) for problem in ordered[:3]), reason="INVALID_PARAMS", problems=ordered
        )
    return resolved


def check_declarations(declared: Mapping[str, ParamSpec | None]) -> list[Problem]:
    """Return what is wrong with the params that a workflow declares: their schemas and their defaults."""
    problems: list[Problem] = []
    for name, param in declared.items():
        if param is None:
            continue
        mistakes = [
            Problem(pointer("params", name, *path), detail, "INVALID_SCHEMA")
            for path, detail in schema_mistakes(param.json_schema())
        ]
        if not mistakes and param.has_default:
            mistakes = _check(param, param.default, ("params", name, "default"), "INVALID_DEFAULT")
        problems.extend(mistakes)
    return problems


def _check(declared: ParamSpec, value: Any, path: tuple[str | int, ...], reason: str) -> list[Problem]:
    return [
        Problem(pointer(*path, *error.absolute_path), describe_error(error), reason)
        for error in schema_errors(validator_of(declared.json_schema()), value)
    ]


def _line(problem: Problem) -> str:
    return f"{problem.pointer}: {problem.detail}"
