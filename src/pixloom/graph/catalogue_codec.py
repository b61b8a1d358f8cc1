"""The catalogue of ops as plain JSON values: how built-in ops are shipped."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pixloom.graph.catalogue import Catalogue, OpKind, OpSpec, Port, PortType

__all__ = ["catalogue_from_json", "catalogue_to_json", "op_from_json", "op_to_json"]


def op_to_json(op: OpSpec) -> dict[str, Any]:
    """Return an op as plain JSON values; `op_from_json` is its inverse."""
    return asdict(op) | {
        "kind": op.kind.value,
        "output": op.output.value,
        "inputs": [{"name": port.name, "type": port.type.value, "optional": port.optional} for port in op.inputs],
    }


def op_from_json(data: dict[str, Any]) -> OpSpec:
    """Return the op that `op_to_json` made `data` of."""
    inputs = tuple(Port(port["name"], PortType(port["type"]), port.get("optional", False)) for port in data["inputs"])
    return OpSpec(**{**data, "kind": OpKind(data["kind"]), "output": PortType(data["output"]), "inputs": inputs})


def catalogue_to_json(catalogue: Catalogue) -> list[dict[str, Any]]:
    """Return the ops by name and version as plain JSON values; `catalogue_from_json` is its inverse."""
    return [op_to_json(op) for op in catalogue]


def catalogue_from_json(data: list[dict[str, Any]]) -> Catalogue:
    """Return the catalogue that `catalogue_to_json` made `data` of."""
    return Catalogue(op_from_json(op) for op in data)
