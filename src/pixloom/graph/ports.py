"""Which node feeds which port, and what flows there.

Items that an op passes on as records stay what they were: an op that reads records of images and gives records still
hands on images. An item op that no collection feeds runs once and gives a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pixloom.graph.catalogue import OpKind, OpSpec, Port, PortType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pixloom.graph.spec import NodeSpec

__all__ = [
    "COLLECTIONS",
    "DataEdge",
    "data_edges",
    "data_port",
    "find_port",
    "flows_into",
    "given_type",
    "output_port_names",
    "runs_once",
    "split_source",
]

COLLECTIONS: Final = frozenset({PortType.IMAGE, PortType.RECORD})
"""Types of ports that take items."""

_ALIASES: Final = frozenset({"images", "items"})


@dataclass(frozen=True, slots=True)
class DataEdge:
    """One source of one port, as the document gives it.

    Attributes:
        port: The port it feeds.
        written: Name of the port as written.
        place: Place in the list, or None if the port was given a string.
        node: Id of the node it reads.
        output: Name of the output port it reads; empty if none was named.
    """

    port: Port
    written: str
    place: int | None
    node: str
    output: str


def split_source(text: str) -> tuple[str, str]:
    """Return node id and output port of `node` or `node.port`; the port is empty if none is named."""
    node, _, port = text.partition(".")
    return node, port


def data_port(op: OpSpec) -> Port | None:
    """Return the one port of an op that takes items, or None if it has none or several."""
    found = [port for port in op.inputs if port.type in COLLECTIONS]
    return found[0] if len(found) == 1 else None


def find_port(op: OpSpec, name: str) -> Port | None:
    """Return the port of an op that `name` means; `images` and `items` both mean its single data port."""
    for port in op.inputs:
        if port.name == name:
            return port
    return data_port(op) if name in _ALIASES else None


def data_edges(node: NodeSpec, op: OpSpec) -> list[DataEdge]:
    """Return what feeds the known ports of a node, in the order of the op's ports."""
    edges: list[DataEdge] = []
    for written, given in node.inputs.items():
        port = find_port(op, written)
        if port is None:
            continue
        if isinstance(given, str):
            edges.append(DataEdge(port, written, None, *split_source(given)))
        else:
            edges.extend(DataEdge(port, written, place, *split_source(text)) for place, text in enumerate(given))
    order = {port.name: place for place, port in enumerate(op.inputs)}
    edges.sort(key=lambda edge: order[edge.port.name])
    return edges


def runs_once(op: OpSpec, edges: Sequence[DataEdge]) -> bool:
    """Return whether an item op has no collection to be mapped over."""
    return op.kind is OpKind.ITEM and not any(edge.port.type in COLLECTIONS for edge in edges)


def given_type(op: OpSpec, edges: Sequence[DataEdge], types: Sequence[PortType]) -> PortType:
    """Return what a node gives.

    Args:
        op: Its op.
        edges: Its data edges.
        types: What the node at the other end of each edge gives.
    """
    if runs_once(op, edges):
        return PortType.VALUE
    if op.output is not PortType.RECORD or op.kind is OpKind.SOURCE:
        return op.output
    flowing = [given for edge, given in zip(edges, types, strict=True) if edge.port.type in COLLECTIONS]
    return PortType.IMAGE if flowing and all(given is PortType.IMAGE for given in flowing) else PortType.RECORD


def flows_into(given: PortType, taken: PortType) -> bool:
    """Return whether what one node gives may feed a port: images are records as well, all else must be the same."""
    return given is taken or (given is PortType.IMAGE and taken is PortType.RECORD)


def output_port_names(given: PortType) -> tuple[str, ...]:
    """Return the names under which the output of a node may be read."""
    return ("images", "items") if given in COLLECTIONS else (given.value,)
