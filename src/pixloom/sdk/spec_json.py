"""Op specs as plain JSON: the list of built-in ops that ships with the package, and what children announce."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pixloom.graph.catalogue import OpKind, OpSpec, Port, PortType

__all__ = ["spec_from_json", "spec_to_json"]


def spec_to_json(spec: OpSpec) -> dict[str, Any]:
    """Return a spec as plain JSON values; `spec_from_json` is its inverse."""
    return asdict(spec)


def spec_from_json(data: dict[str, Any]) -> OpSpec:
    """Return the spec that `spec_to_json` made `data` of."""
    inputs = tuple(Port(port["name"], PortType(port["type"]), port["optional"]) for port in data["inputs"])
    return OpSpec(**{**data, "kind": OpKind(data["kind"]), "output": PortType(data["output"]), "inputs": inputs})
