"""`${params.x}` and `${nodes.n.value.y}`: values written into a document that are known only later.

A string that is one reference and nothing else is replaced by the value, type kept. A reference inside a longer string
is replaced by text: strings as they are, anything else as JSON. `$${` stands for a plain `${`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from pixloom.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = [
    "MalformedReference",
    "Reference",
    "ReferenceKind",
    "has_reference",
    "references_in",
    "resolve_node_params",
    "substitute_params",
    "whole_reference",
]

_TOKEN: Final = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_-]+\Z")


class ReferenceKind(StrEnum):
    """What a reference reads."""

    PARAM = "params"
    NODE = "nodes"


@dataclass(frozen=True, slots=True)
class Reference:
    """A well-formed reference.

    Attributes:
        kind: What it reads.
        name: Name of the param or id of the node.
        path: Fields and array indexes below the value.
        text: As written, with braces.
    """

    kind: ReferenceKind
    name: str
    path: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class MalformedReference:
    """Something that looks like a reference and is none.

    Attributes:
        text: As written.
        detail: What is wrong and what to do.
    """

    text: str
    detail: str


def has_reference(value: Any) -> bool:
    """Return whether a value contains `${` anywhere, escaped or not."""
    match value:
        case str():
            return "${" in value
        case dict():
            return any(has_reference(child) for child in value.values())
        case list():
            return any(has_reference(child) for child in value)
        case _:
            return False


def references_in(
    value: Any, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], Reference | MalformedReference]]:
    """Yield every reference inside a value with the path of the string that holds it."""
    match value:
        case str():
            if "${" in value:
                yield from ((path, found) for found in _scan(value))
        case dict():
            for key, child in value.items():
                yield from references_in(child, (*path, key))
        case list():
            for index, child in enumerate(value):
                yield from references_in(child, (*path, index))
        case _:
            return


def whole_reference(text: str) -> Reference | None:
    """Return the reference that `text` consists of, or None if it is anything else."""
    match = _TOKEN.fullmatch(text)
    if match is None or match.group(1) is None:
        return None
    found = _parse(match.group(0), match.group(1))
    return found if isinstance(found, Reference) else None


def substitute_params(value: Any, params: Mapping[str, Any]) -> Any:
    """Return `value` with every `${params…}` replaced; `${nodes…}` and `$${` stay as they are.

    Raises:
        InvalidError: A reference leads to nothing (reason INVALID_PARAMS).
    """

    def read(reference: Reference) -> Any:
        if reference.kind is not ReferenceKind.PARAM:
            return _KEEP
        if reference.name not in params:
            raise InvalidError(f"{reference.text}: there is no such param", reason="INVALID_PARAMS")
        return _descend(params[reference.name], reference, "INVALID_PARAMS")

    # What is dynamic goes through a second pass when the node is released, so a value that happens to hold `${` is
    # escaped here; what is not dynamic is done now, escapes included.
    if any(isinstance(ref, Reference) and ref.kind is ReferenceKind.NODE for _, ref in references_in(value)):
        return _replace(value, read, last=False)
    return _replace(value, read, last=True)


def resolve_node_params(params: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the params of a node at release, with every `${nodes…}` replaced.

    Args:
        params: Params of a `NodePlan` that is `dynamic`.
        values: Value by node id, for the nodes it refers to.

    Raises:
        InvalidError: A reference leads to nothing (reason INVALID_PARAMS).
    """

    def read(reference: Reference) -> Any:
        if reference.kind is not ReferenceKind.NODE or reference.name not in values:
            raise InvalidError(f"{reference.text}: there is no such value", reason="INVALID_PARAMS")
        return _descend(values[reference.name], reference, "INVALID_PARAMS")

    return {name: _replace(value, read, last=True) for name, value in params.items()}


_KEEP: Final = object()


def _replace(value: Any, read: Callable[[Reference], Any], *, last: bool) -> Any:
    match value:
        case str():
            return _replace_text(value, read, last=last) if "${" in value else value
        case dict():
            return {key: _replace(child, read, last=last) for key, child in value.items()}
        case list():
            return [_replace(child, read, last=last) for child in value]
        case _:
            return value


def _replace_text(text: str, read: Callable[[Reference], Any], *, last: bool) -> Any:
    if whole := whole_reference(text):
        found = read(whole)
        if found is _KEEP:
            return text
        return found if last else _escaped(found)

    def put(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return "${" if last else match.group(0)
        reference = _parse(match.group(0), match.group(1))
        found = read(reference) if isinstance(reference, Reference) else _KEEP
        if found is _KEEP:
            return match.group(0)
        shown = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False, separators=(",", ":"))
        return shown if last else shown.replace("${", "$${")

    return _TOKEN.sub(put, text)


def _escaped(value: Any) -> Any:
    match value:
        case str():
            return value.replace("${", "$${")
        case dict():
            return {key: _escaped(child) for key, child in value.items()}
        case list():
            return [_escaped(child) for child in value]
        case _:
            return value


def _descend(value: Any, reference: Reference, reason: str) -> Any:
    for part in reference.path:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            known = f"; it has {', '.join(sorted(value)[:10])}" if isinstance(value, dict) and value else ""
            raise InvalidError(f"{reference.text}: there is no `{part}` in the value{known}", reason=reason)
    return value


def _scan(text: str) -> Iterator[Reference | MalformedReference]:
    for match in _TOKEN.finditer(text):
        if match.group(0) == "$${":
            continue
        if match.group(1) is None:
            yield MalformedReference("${", "`${` is not closed by `}`; write `$${` for a plain `${`")
        else:
            yield _parse(match.group(0), match.group(1))


def _parse(text: str, inner: str) -> Reference | MalformedReference:
    parts = inner.split(".")
    if not all(_SEGMENT.match(part) for part in parts):
        return MalformedReference(text, f"{text} is no reference; write `${{params.x}}` or `${{nodes.n.value.y}}`")
    match parts:
        case ["params", name, *path]:
            return Reference(ReferenceKind.PARAM, name, tuple(path), text)
        case ["nodes", name, "value", *path]:
            return Reference(ReferenceKind.NODE, name, tuple(path), text)
        case ["nodes", name, *_]:
            return MalformedReference(text, f"{text}: only the value of a node can be read: `${{nodes.{name}.value}}`")
        case _:
            return MalformedReference(
                text, f"{text}: references start with `params.` or `nodes.`; write `$${{` for a plain `${{`"
            )
