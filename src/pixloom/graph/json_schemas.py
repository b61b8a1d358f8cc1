"""Checking values against JSON Schemas (2020-12), with patterns that match in linear time.

Schemas come from ops and from the params a workflow declares. `$ref` is not followed anywhere but inside the schema
itself, and regular expressions run in the Rust engine that comes with Pydantic, which never backtracks.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pixloom.graph.canonical import canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator
    from pydantic_core import SchemaValidator

    from pixloom.graph.catalogue import OpSpec

__all__ = ["schema_errors", "schema_mistakes", "types_of", "validator_of", "validator_of_op"]


def validator_of(schema: Mapping[str, Any]) -> Validator:
    """Return the validator of a schema; equal schemas share one."""
    return _validator(canonical_json(schema))


def validator_of_op(op: OpSpec) -> Validator:
    """Return the validator of the params of an op; the same op is looked up by identity."""
    return _validator_of_same(_Same(op))


def schema_errors(validator: Validator, value: Any) -> Iterator[ValidationError]:
    """Yield what is wrong with a value, in no order."""
    return iter(validator.iter_errors(value))


def schema_mistakes(schema: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield path and sentence of everything wrong with a schema that a document declares."""
    from jsonschema import Draft202012Validator

    for error in Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(dict(schema)):
        yield tuple(error.absolute_path), error.message
    yield from _forbidden(schema, ())


def types_of(schema: Any) -> frozenset[str]:
    """Return the JSON types a schema allows, as far as it says so directly; empty means any."""
    if not isinstance(schema, dict):
        return frozenset()
    types = schema.get("type")
    alternatives: list[Any] = schema.get("anyOf") or schema.get("oneOf") or []
    branches = [types_of(branch) for branch in alternatives]
    found: set[str] = set()
    if isinstance(types, str):
        found = {types}
    elif isinstance(types, list):
        found = set(types)
    elif "const" in schema:
        found = {_type_name(schema["const"])}
    elif "enum" in schema:
        found = {_type_name(value) for value in schema["enum"]}
    elif all(branches):
        found = {name for branch in branches for name in branch}
    return frozenset(found | {"integer"} if "number" in found else found)


def _type_name(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case None:
            return "null"
        case dict():
            return "object"
        case _:
            return "array"


def _forbidden(schema: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(schema, dict):
        for key, child in schema.items():
            if key in {"$ref", "$dynamicRef", "patternProperties"} and path[-1:] != ("properties",):
                yield (*path, key), f"`{key}` is not available in the params of a workflow"
            elif key == "pattern" and isinstance(child, str):
                try:
                    _pattern(child)
                except ValueError as error:
                    yield (*path, key), str(error)
            else:
                yield from _forbidden(child, (*path, key))
    elif isinstance(schema, list):
        for index, child in enumerate(schema):
            yield from _forbidden(child, (*path, index))


@lru_cache(maxsize=1024)
def _pattern(pattern: str) -> SchemaValidator:
    """Return a matcher.

    Raises:
        ValueError: The pattern cannot be compiled.
    """
    from pydantic_core import SchemaError, SchemaValidator, core_schema

    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern, strict=True))
    except SchemaError as error:
        detail = f"the pattern `{pattern}` cannot be used; it may have no look-around and no back-references"
        raise ValueError(detail) from error


class _Same:
    """An op as a key: ops hold mappings, so they have no hash of their own."""

    __slots__ = ("op",)

    def __init__(self, op: OpSpec) -> None:
        self.op = op

    def __hash__(self) -> int:
        return id(self.op)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.op is other.op


@lru_cache(maxsize=2048)
def _validator_of_same(same: _Same) -> Validator:
    return validator_of(same.op.params_schema)


@lru_cache(maxsize=1)
def _validator_class() -> type[Validator]:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError
    from jsonschema.validators import extend

    def matches(_validator: Any, pattern: str, value: Any, _schema: Any) -> Iterator[ValidationError]:
        if isinstance(value, str):
            try:
                matched = _pattern(pattern).isinstance_python(value)
            except ValueError as error:
                yield ValidationError(str(error))
                return
            if not matched:
                yield ValidationError(f"{value!r} does not match {pattern!r}")

    return extend(Draft202012Validator, {"pattern": matches})  # type: ignore[no-any-return, no-untyped-call]


@lru_cache(maxsize=2048)
def _validator(schema: bytes) -> Validator:
    import json

    from referencing import Registry

    # An empty registry: nothing is ever fetched.
    return _validator_class()(json.loads(schema), registry=Registry())
