"""The params of a node against the JSON Schema of its op.

A value that holds `${…}` is not known yet: it is checked as far as possible now (that it may be there, that what it
refers to fits by type) and completely when it has been resolved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pixloom.errors import InvalidError, Problem
from pixloom.graph.expressions import ConditionKind, compile_condition
from pixloom.graph.json_schemas import schema_errors, types_of, validator_of_op
from pixloom.graph.pointers import pointer
from pixloom.graph.references import Reference, ReferenceKind, has_reference, references_in, whole_reference
from pixloom.graph.suggestions import Suggester

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jsonschema.exceptions import ValidationError

    from pixloom.graph.catalogue import OpSpec
    from pixloom.graph.spec import ParamSpec

__all__ = ["check_op_params", "check_references", "describe_error", "subschema"]

Path = tuple[str | int, ...]

# What can be said of an object or array although something inside it is not known yet.
_DECIDABLE: Final = frozenset({"type", "required", "additionalProperties", "propertyNames", "minItems", "maxItems"})


def check_op_params(
    op: OpSpec, params: Mapping[str, Any], *, at: Path = (), final: bool = False, suggester: Suggester | None = None
) -> list[Problem]:
    """Return what is wrong with the params of an op.

    Args:
        op: The op.
        params: Its params; values that hold `${…}` are left out of the check where they decide it.
        at: Path of the params in the document, for the pointers.
        final: Whether everything has been resolved, so that `${` is text like any other.
        suggester: Finds names for misspelt ones.
    """
    suggester = suggester or Suggester()
    schema = op.params_schema
    known: dict[str, Any] = schema.get("properties", {})
    # Ops that say nothing about further params have none.
    open_ended = schema.get("additionalProperties", False) is not False or "patternProperties" in schema
    problems: list[Problem] = []
    if not open_ended:
        for name in params:
            if name not in known:
                takes = f"; it takes {', '.join(sorted(known))}" if known else "; it takes none"
                hint = suggester.hint(name, known) or takes
                problems.append(Problem(pointer(*at, name), f"{op.ref} has no param `{name}`{hint}", "UNKNOWN_PARAM"))
    for error in schema_errors(validator_of_op(op), params) if schema else ():
        path = tuple(error.absolute_path)
        if not path and error.validator == "additionalProperties":
            continue
        undecided = isinstance(error.instance, str) or error.validator not in _DECIDABLE
        if not final and undecided and has_reference(error.instance):
            continue
        if error.validator == "required" and not path:
            wanted: Any = error.validator_value
            missing = [name for name in wanted if name not in params]
            problems.extend(
                Problem(pointer(*at), f"{op.ref} needs the param `{name}`", "MISSING_PARAM") for name in missing
            )
            continue
        problems.append(Problem(pointer(*at, *path), describe_error(error), "INVALID_PARAM"))
    problems.extend(_check_conditions(known, params, at, final=final))
    return list(dict.fromkeys(problems))


def check_references(
    op: OpSpec | None,
    params: Mapping[str, Any],
    *,
    at: Path,
    declared: Mapping[str, ParamSpec | None],
    suggester: Suggester,
) -> list[Problem]:
    """Return what is wrong with the references in the params of a node, apart from the nodes they name.

    Args:
        op: Its op, if it is known.
        params: Its params.
        at: Path of the params in the document.
        declared: Params of the workflow; None where one could not be read.
        suggester: Finds names for misspelt ones.
    """
    problems: list[Problem] = []
    for path, reference in references_in(dict(params)):
        here = pointer(*at, *path)
        if not isinstance(reference, Reference):
            problems.append(Problem(here, reference.detail, "INVALID_REFERENCE"))
        elif reference.kind is ReferenceKind.PARAM:
            if reference.name not in declared:
                hint = suggester.hint(reference.name, declared) or "; declare it under /params"
                detail = f"{reference.text}: the workflow declares no param `{reference.name}`{hint}"
                problems.append(Problem(here, detail, "UNKNOWN_PARAM_REFERENCE"))
            elif op is not None and (param := declared[reference.name]) is not None:
                problems.extend(_check_type(op, _at(params, path), path, reference, param, here=here))
    return problems


def subschema(schema: Mapping[str, Any], path: Path) -> Any:
    """Return the schema of the value at `path`, as far as it is found by properties and items; else None."""
    found: Any = schema
    for part in path:
        if not isinstance(found, dict):
            return None
        if isinstance(part, str):
            found = found.get("properties", {}).get(part)
        else:
            prefix = found.get("prefixItems", [])
            found = prefix[part] if part < len(prefix) else found.get("items")
    return found


def describe_error(error: ValidationError) -> str:
    """Return a sentence for an error of a JSON Schema, with what would be right."""
    shown = _shown(error.instance)
    limit: Any = error.validator_value
    match error.validator:
        case "type":
            types = [limit] if isinstance(limit, str) else list(limit)
            return f"{shown} is not of type {' or '.join(types)}"
        case "enum":
            return f"{shown} is not one of {', '.join(_shown(value) for value in limit)}"
        case "const":
            return f"{shown} is not {_shown(limit)}"
        case "minimum":
            return f"{shown} is below the minimum of {limit:g}"
        case "maximum":
            return f"{shown} is above the maximum of {limit:g}"
        case "exclusiveMinimum":
            return f"{shown} is not above {limit:g}"
        case "exclusiveMaximum":
            return f"{shown} is not below {limit:g}"
        case "multipleOf":
            return f"{shown} is not a multiple of {limit:g}"
        case "minLength":
            return f"{shown} is shorter than {limit} characters"
        case "maxLength":
            return f"{shown} is longer than {limit} characters"
        case "minItems":
            return f"{shown} has fewer than {limit} elements"
        case "maxItems":
            return f"{shown} has more than {limit} elements"
        case "uniqueItems":
            return f"{shown} has repeated elements"
        case "anyOf" | "oneOf" if error.context:
            # That an optional param may be null helps nobody who gave something else.
            named = [branch for branch in error.context if branch.validator_value != "null"]
            return ", and ".join(dict.fromkeys(describe_error(branch) for branch in named or error.context))
        case "pattern":
            return f"{shown} does not match the pattern {_shown(limit)}"
        case _:
            return error.message if len(error.message) <= 400 else error.message[:399] + "…"


def _shown(value: Any) -> str:
    import json

    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:79] + "…"


def _at(value: Any, path: Path) -> Any:
    for part in path:
        value = value[part]
    return value


def _check_type(
    op: OpSpec, text: str, path: Path, reference: Reference, declared: ParamSpec, *, here: str
) -> list[Problem]:
    wanted = types_of(subschema(op.params_schema, path))
    if whole_reference(text) is None:
        # Embedded in text, so the result is a string whatever the param is.
        if wanted and "string" not in wanted:
            detail = f"`{text}` gives a string, but {op.ref} takes {' or '.join(sorted(wanted))} here"
            return [Problem(here, detail, "TYPE_MISMATCH")]
        return []
    given = types_of(subschema(declared.json_schema(), tuple(reference.path)))
    if wanted and given and not given & wanted:
        detail = (
            f"{reference.text} is of type {' or '.join(sorted(given))}, "
            f"but {op.ref} takes {' or '.join(sorted(wanted))} here"
        )
        return [Problem(here, detail, "TYPE_MISMATCH")]
    return []


def _check_conditions(known: Mapping[str, Any], params: Mapping[str, Any], at: Path, *, final: bool) -> list[Problem]:
    """Return what is wrong with params whose schema has `format: cel`: predicates over the item record."""
    problems: list[Problem] = []
    for name, schema in known.items():
        text = params.get(name)
        if not isinstance(schema, dict) or schema.get("format") != "cel" or not isinstance(text, str):
            continue
        if not final and has_reference(text):
            continue
        try:
            compile_condition(text, ConditionKind.ITEM)
        except InvalidError as error:
            problems.append(Problem(pointer(*at, name), error.message, "INVALID_CONDITION"))
    return problems
