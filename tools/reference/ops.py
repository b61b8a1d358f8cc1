"""ops.md: the built-in ops, from the catalogue that their code declares."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING, Any

from pixloom.graph import OpKind, builtin_catalogue
from tools.reference.markdown import code, page, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pixloom.graph import OpSpec

__all__ = ["ops_page"]

_KINDS = {
    OpKind.SOURCE: "gives the items of a collection",
    OpKind.ITEM: "runs once for every item",
    OpKind.COLLECTION: "runs once for a whole collection",
    OpKind.VALUE: "makes a JSON value of JSON values",
}


def _type_of(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Return a type as people write it, such as `one of "jpeg", "png"` or `list of integer`."""
    if "$ref" in schema:
        return _type_of(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(_type_of(one, definitions) for one in schema[several]))
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(json.dumps(value) for value in schema["enum"])
    kind = schema.get("type", "anything")
    if kind == "array":
        if "prefixItems" in schema:
            return "list of " + ", ".join(_type_of(one, definitions) for one in schema["prefixItems"])
        return f"list of {_type_of(schema.get('items', {}), definitions)}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _range_of(schema: Mapping[str, Any]) -> str:
    """Return the bounds of a number, a text or a list; empty if there are none."""
    said = {
        "minimum": "≥",
        "exclusiveMinimum": ">",
        "maximum": "≤",
        "exclusiveMaximum": "<",
        "minLength": "length ≥",
        "maxLength": "length ≤",
        "minItems": "entries ≥",
        "maxItems": "entries ≤",
    }
    branches = [schema, *schema.get("anyOf", ())]
    words = [f"{sign} {branch[key]}" for branch in branches for key, sign in said.items() if key in branch]
    return ", ".join(dict.fromkeys(words))


def _params(op: OpSpec) -> str:
    schema = op.params_schema
    required = schema.get("required", ())
    definitions = schema.get("$defs", {})
    rows = [
        (
            code(name),
            _type_of(param, definitions),
            _range_of(param),
            "required" if name in required else code(json.dumps(param.get("default"), ensure_ascii=False)),
            param.get("description", ""),
        )
        for name, param in schema.get("properties", {}).items()
    ]
    return table(("param", "type", "range", "default", "meaning"), rows) or "It has no params."


def _op(op: OpSpec) -> list[str]:
    ports = ", ".join(f"`{port.name}` ({port.type}{', optional' if port.optional else ''})" for port in op.inputs)
    facts = [
        f"**{op.kind}** op: {_KINDS[op.kind]}",
        f"inputs: {ports or 'none'}",
        f"output: {op.output}",
        f"pool: `{op.pool}`",
        f"default timeout: {op.default_timeout_s:g} s",
    ]
    if not op.deterministic:
        facts.append("not deterministic: its results are never reused")
    if op.external_effect:
        facts.append("changes something outside Pixloom")
    if op.expands:
        facts.append("may make several items of one: a stage ends behind it")
    return [f"### {op.name}@{op.version}", op.documentation, " · ".join(facts), _params(op)]


def ops_page() -> str:
    """Return the page."""
    ops = sorted(builtin_catalogue(), key=lambda op: (op.name, op.version))
    groups = {name: list(group) for name, group in groupby(ops, key=lambda op: op.name.partition(".")[0])}
    overview = table(("op", "kind", "does"), ((code(op.name), str(op.kind), op.summary) for op in ops))
    parts = [part for name, group in groups.items() for part in (f"## {name}", *(p for op in group for p in _op(op)))]
    return page("Built-in ops", overview, *parts)
