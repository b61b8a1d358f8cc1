"""Two older dialects of workflow documents, converted to the current one.

The first has an id, its metadata in one object, and nodes with a type:

    {"id", "workflow_metadata", "nodes": [{"id", "type", "config", "dependencies"}]}

The second has a name and its nodes inside `dag`, with handlers, retries, and templates such as `{{node.path}}`:

    {"name", "dag": {"nodes": [{"id", "handler", "config", "dependencies", "retry_policy", "timeout_seconds"}]}}

Both know one kind of dependency. It becomes a data edge where items flow, and an order-only edge elsewhere. What has no
counterpart is left as it is, so that the validator reports it like any unknown field.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pixloom.graph.catalogue import OpKind, OpSpec
from pixloom.graph.cycles import topological_order
from pixloom.graph.pointers import pointer, pointer_parts
from pixloom.graph.ports import COLLECTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pixloom.graph.catalogue import Catalogue

__all__ = ["Conversion", "convert"]

_TEMPLATE: Final = re.compile(r"\{\{\s*([A-Za-z0-9_-]+)((?:\.[A-Za-z0-9_-]+)*)\s*\}\}")
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]+")

_RETRY_FIELDS: Final[Mapping[str, str]] = {
    "max_attempts": "max_attempts",
    "initial_backoff_s": "initial_backoff_s",
    "initial_backoff": "initial_backoff_s",
    "initial_delay": "initial_backoff_s",
    "backoff_seconds": "initial_backoff_s",
    "delay_seconds": "initial_backoff_s",
    "retry_delay": "initial_backoff_s",
    "multiplier": "multiplier",
    "backoff_multiplier": "multiplier",
    "backoff_factor": "multiplier",
    "max_backoff_s": "max_backoff_s",
    "max_backoff": "max_backoff_s",
    "max_delay": "max_backoff_s",
}


@dataclass(frozen=True, slots=True)
class Conversion:
    """A document in the current dialect.

    Attributes:
        document: The document; the given one if there was nothing to convert.
        notes: What was mapped to what, for people; empty if there was nothing to convert.
        nodes_at: Path of the nodes in the given document.
        fields: Field of a node in the current dialect and what it was called in the given document.
        top: The same for fields of the document itself.
    """

    document: dict[str, Any]
    notes: tuple[str, ...] = ()
    nodes_at: tuple[str, ...] = ("nodes",)
    fields: tuple[tuple[str, str], ...] = ()
    top: tuple[tuple[str, str], ...] = ()

    def original_pointer(self, current: str) -> str:
        """Return the place in the given document that a place in the current dialect came from."""
        if not self.notes:
            return current
        parts = pointer_parts(current)
        if not parts:
            return current
        if parts[0] != "nodes":
            return pointer(*_replaced(parts[:1], dict(self.top)), *parts[1:])
        renamed = [*parts[:2], *_replaced(parts[2:3], dict(self.fields)), *parts[3:]]
        if parts[2:3] in {("inputs",), ("dependencies",)}:
            # One list was split in two; the places in them are not those of the given document.
            renamed = renamed[:3]
        return pointer(*self.nodes_at, *renamed[1:])


def convert(document: dict[str, Any], catalogue: Catalogue) -> Conversion:
    """Return the document in the current dialect, with a note of everything that was mapped.

    Args:
        document: A document in any dialect; it is not changed.
        catalogue: The ops, to find what older names mean and where items flow.
    """
    dag = document.get("dag")
    if isinstance(dag, dict) and "nodes" not in document:
        return _from_handlers(document, dag, catalogue)
    nodes = document.get("nodes")
    typed = isinstance(nodes, list) and any(isinstance(n, dict) and "type" in n and "op" not in n for n in nodes)
    if "workflow_metadata" in document or (typed and "name" not in document):
        return _from_types(document, catalogue)
    return Conversion(document)


def _from_types(document: dict[str, Any], catalogue: Catalogue) -> Conversion:
    notes = ["the document is in an older dialect (nodes with `type` and `config`)"]
    rest = {key: value for key, value in document.items() if key not in {"id", "workflow_metadata", "nodes"}}
    current: dict[str, Any] = {}
    if "id" in document:
        current["name"] = _name(document["id"], "id", notes)
    metadata = document.get("workflow_metadata")
    if isinstance(metadata, dict):
        metadata = dict(metadata)
        notes.append("`workflow_metadata` became `metadata`")
        if isinstance(metadata.get("description"), str):
            current["description"] = metadata.pop("description")
            notes.append("`workflow_metadata.description` became `description`")
        tags = metadata.get("tags")
        if isinstance(tags, dict) and all(isinstance(value, str) for value in tags.values()):
            current["tags"] = metadata.pop("tags")
            notes.append("`workflow_metadata.tags` became `tags`")
        current["metadata"] = metadata
    elif metadata is not None:
        rest["workflow_metadata"] = metadata
    current.update(rest)
    current["nodes"] = _nodes(document.get("nodes"), "type", catalogue, notes)
    return Conversion(
        current,
        tuple(notes),
        ("nodes",),
        (("op", "type"), ("params", "config"), ("inputs", "dependencies")),
        (("name", "id"), ("metadata", "workflow_metadata")),
    )


def _from_handlers(document: dict[str, Any], dag: dict[str, Any], catalogue: Catalogue) -> Conversion:
    notes = ["the document is in an older dialect (`dag` with nodes that have a `handler`)"]
    current = {key: value for key, value in document.items() if key != "dag"}
    if "name" in current:
        current["name"] = _name(current["name"], "name", notes)
    if "version" in current and isinstance(current.get("metadata", {}), dict):
        current["metadata"] = {**current.get("metadata", {}), "version": current.pop("version")}
        notes.append("`version` became `metadata.version`; versions are counted here")
    notes.append("`dag.nodes` became `nodes`")
    current.update({key: value for key, value in dag.items() if key != "nodes"})
    current["nodes"] = _nodes(dag.get("nodes"), "handler", catalogue, notes)
    return Conversion(
        current,
        tuple(notes),
        ("dag", "nodes"),
        (
            ("op", "handler"),
            ("params", "config"),
            ("inputs", "dependencies"),
            ("retry", "retry_policy"),
            ("timeout_s", "timeout_seconds"),
        ),
    )


def _nodes(given: Any, op_field: str, catalogue: Catalogue, notes: list[str]) -> Any:
    if not isinstance(given, list):
        return given
    nodes = [_node(raw, op_field, catalogue, notes) if isinstance(raw, dict) else raw for raw in given]
    _split_dependencies(nodes, catalogue, notes)
    return nodes


def _node(raw: dict[str, Any], op_field: str, catalogue: Catalogue, notes: list[str]) -> dict[str, Any]:
    node = {key: value for key, value in raw.items() if key != "dependencies" or value != []}
    label = raw.get("id", "?")
    if "op" not in node and isinstance(node.get(op_field), str):
        written = node.pop(op_field)
        node["op"] = _op_name(written, catalogue)
        notes.append(f"{label}: `{op_field}: {written}` became `op: {node['op']}`")
    if "params" not in node and "config" in node:
        node["params"] = _templates(node.pop("config"), label, notes)
        notes.append(f"{label}: `config` became `params`")
    if "retry" not in node and isinstance(node.get("retry_policy"), dict):
        node["retry"] = _retry(node.pop("retry_policy"))
        notes.append(f"{label}: `retry_policy` became `retry`")
    if "timeout_s" not in node and "timeout_seconds" in node:
        node["timeout_s"] = node.pop("timeout_seconds")
        notes.append(f"{label}: `timeout_seconds` became `timeout_s`")
    return node


def _retry(policy: dict[str, Any]) -> dict[str, Any]:
    retry: dict[str, Any] = {}
    for key, value in policy.items():
        if key == "max_retries" and isinstance(value, int) and "max_attempts" not in policy:
            retry["max_attempts"] = value + 1
        else:
            retry[_RETRY_FIELDS.get(key, key)] = value
    return retry


def _templates(value: Any, label: str, notes: list[str]) -> Any:
    match value:
        case str():
            text = _TEMPLATE.sub(r"${nodes.\1.value\2}", value)
            if text != value:
                notes.append(f"{label}: `{value}` became `{text}`")
            return text
        case dict():
            return {key: _templates(child, label, notes) for key, child in value.items()}
        case list():
            return [_templates(child, label, notes) for child in value]
        case _:
            return value


def _name(given: Any, field: str, notes: list[str]) -> Any:
    if not isinstance(given, str):
        return given
    name = _NOT_IN_NAMES.sub("-", given).strip("-") or given
    if field != "name" or name != given:
        notes.append(f"`{field}: {given}` became `name: {name}`")
    return name


def _op_name(written: str, catalogue: Catalogue) -> str:
    """Return the op that an older name means, or the name itself if that is not clear."""
    if catalogue.get(written) is not None:
        return written
    plain = re.sub(r"[^a-z0-9]", "", written.lower())
    spelt = [name for name in catalogue.names() if re.sub(r"[^a-z0-9]", "", name) == plain]
    short = [name for name in catalogue.names() if re.sub(r"[^a-z0-9]", "", name.rpartition(".")[2]) == plain]
    for found in (spelt, short):
        if len(found) == 1:
            return found[0]
    return written


def _split_dependencies(nodes: list[Any], catalogue: Catalogue, notes: list[str]) -> None:
    """Turn dependencies into data edges where both ends carry items."""
    places = {n["id"]: i for i, n in enumerate(nodes) if isinstance(n, dict) and isinstance(n.get("id"), str)}
    before = [_known_dependencies(node, places) for node in nodes]
    ops = [
        catalogue.get(node["op"]) if isinstance(node, dict) and isinstance(node.get("op"), str) else None
        for node in nodes
    ]
    carries = [False] * len(nodes)
    order = topological_order([sorted(set(needs.values())) for needs in before])
    for place in order:
        op, node = ops[place], nodes[place]
        if op is None:
            continue
        feeding = [name for name, other in before[place].items() if carries[other]]
        port = next((port for port in op.inputs if port.type in COLLECTIONS), None)
        if port is not None and feeding and "inputs" not in node:
            node["inputs"] = {port.name: feeding[0] if len(feeding) == 1 else feeding}
            rest = [name for name in node["dependencies"] if name not in feeding]
            del node["dependencies"]
            if rest:
                node["dependencies"] = rest
            notes.append(f"{node.get('id', '?')}: reads {', '.join(feeding)} as `inputs.{port.name}`")
        carries[place] = _carries(op, fed=bool(feeding) or "inputs" in node)


def _known_dependencies(node: Any, places: Mapping[str, int]) -> dict[str, int]:
    given = node.get("dependencies") if isinstance(node, dict) else None
    if not isinstance(given, list):
        return {}
    return {name: places[name] for name in given if isinstance(name, str) and name in places}


def _carries(op: OpSpec, *, fed: bool) -> bool:
    return op.output in COLLECTIONS and (op.kind is not OpKind.ITEM or fed)


def _replaced(parts: tuple[str, ...], names: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(names.get(part, part) for part in parts)
