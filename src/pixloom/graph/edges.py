"""The edges of a workflow: who reads what from whom, and whether it fits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pixloom.errors import Problem
from pixloom.graph.catalogue import OpSpec, PortType
from pixloom.graph.cycles import topological_order
from pixloom.graph.pointers import pointer
from pixloom.graph.ports import (
    COLLECTIONS,
    DataEdge,
    data_edges,
    find_port,
    flows_into,
    given_type,
    output_port_names,
    split_source,
)
from pixloom.graph.references import Reference, ReferenceKind, references_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixloom.graph.catalogue import Catalogue
    from pixloom.graph.drafts import Draft
    from pixloom.graph.spec import NodeSpec
    from pixloom.graph.suggestions import Suggester

__all__ = ["Resolution", "resolve"]


@dataclass(slots=True)
class Resolution:
    """A document with its names looked up. Filled by `resolve`, read by the validator.

    Attributes:
        places: Place of each node by id; the first one if an id is given twice.
        ops: Op of each node by place; None if it is unknown.
        edges: Data edges of each node by place.
        needs: Places of the nodes that each one comes after, by data, `dependencies` and references.
        types: What each node gives by place; None if it cannot be known.
        problems: What is wrong with ids, edges and references to nodes.
    """

    places: dict[str, int]
    ops: list[OpSpec | None]
    edges: list[list[DataEdge]]
    needs: list[list[int]]
    types: list[PortType | None] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def check_source(self, source: str, at: tuple[str | int, ...], suggester: Suggester) -> Iterator[Problem]:
        """Yield what is wrong with a `node` or `node.port`."""
        node, port = split_source(source)
        if node not in self.places:
            yield _unknown_node(node, at, self.places, suggester)
            return
        given = self.types[self.places[node]]
        if port and given is not None and port not in output_port_names(given):
            names = " or ".join(f"`{name}`" for name in output_port_names(given))
            detail = f"the node `{node}` has no output port `{port}`; its output is called {names}"
            yield Problem(pointer(*at), detail, "UNKNOWN_PORT")


def resolve(draft: Draft, catalogue: Catalogue, suggester: Suggester) -> Resolution:
    """Return the document with its names looked up, and what is wrong with its edges."""
    places: dict[str, int] = {}
    problems: list[Problem] = []
    for place, node_id in enumerate(draft.ids):
        if node_id is None:
            continue
        if node_id in places:
            detail = f"the id `{node_id}` is taken by /nodes/{places[node_id]}; give each node an id of its own"
            problems.append(Problem(pointer("nodes", place, "id"), detail, "DUPLICATE_ID"))
        places.setdefault(node_id, place)
    ops = [catalogue.get(node.op) if node is not None else None for node in draft.nodes]
    edges = [
        data_edges(node, op) if node is not None and op is not None else []
        for node, op in zip(draft.nodes, ops, strict=True)
    ]
    needs = [sorted(_needs(node, places)) if node is not None else [] for node in draft.nodes]
    resolution = Resolution(places, ops, edges, needs, problems=problems)
    resolution.types = _types(resolution)
    for place, node in enumerate(draft.nodes):
        if node is not None:
            problems.extend(_check_node(node, place, resolution, suggester))
    return resolution


def _needs(node: NodeSpec, places: dict[str, int]) -> set[int]:
    names = [split_source(source)[0] for port in node.inputs for source in node.sources(port)]
    names += node.dependencies
    names += [
        reference.name
        for _, reference in references_in(node.params)
        if isinstance(reference, Reference) and reference.kind is ReferenceKind.NODE
    ]
    return {places[name] for name in names if name in places}


def _types(resolution: Resolution) -> list[PortType | None]:
    """Return what each node gives; None for unknown ops, for nodes on cycles and for what depends on either."""
    types: list[PortType | None] = [None] * len(resolution.ops)
    for place in topological_order(resolution.needs):
        op, edges = resolution.ops[place], resolution.edges[place]
        if op is None:
            continue
        fed_by = [types[resolution.places[edge.node]] if edge.node in resolution.places else None for edge in edges]
        known = [given for given in fed_by if given is not None]
        if len(known) == len(fed_by):
            types[place] = given_type(op, edges, known)
        elif op.output not in COLLECTIONS:
            types[place] = op.output
    return types


def _check_node(node: NodeSpec, place: int, resolution: Resolution, suggester: Suggester) -> Iterator[Problem]:
    at = ("nodes", place)
    op = resolution.ops[place]
    for written in node.inputs:
        many = not isinstance(node.inputs[written], str)
        for index, source in enumerate(node.sources(written)):
            here = (*at, "inputs", written, index) if many else (*at, "inputs", written)
            yield from resolution.check_source(source, here, suggester)
    for index, name in enumerate(node.dependencies):
        if name not in resolution.places:
            yield _unknown_node(name, (*at, "dependencies", index), resolution.places, suggester)
    for path, reference in references_in(node.params):
        if isinstance(reference, Reference) and reference.kind is ReferenceKind.NODE:
            yield from _check_reference(reference, (*at, "params", *path), resolution, suggester)
    if op is not None:
        yield from _check_ports(node, op, at, suggester)
        yield from _check_types(op, at, resolution, resolution.edges[place])


def _check_reference(
    reference: Reference, at: tuple[str | int, ...], resolution: Resolution, suggester: Suggester
) -> Iterator[Problem]:
    if reference.name not in resolution.places:
        yield _unknown_node(reference.name, at, resolution.places, suggester)
        return
    given = resolution.types[resolution.places[reference.name]]
    if given is not None and given is not PortType.VALUE:
        what = "a table" if given is PortType.TABLE else "items"
        detail = f"{reference.text}: the node `{reference.name}` gives {what}, not a value"
        yield Problem(pointer(*at), detail, "TYPE_MISMATCH")


def _check_ports(node: NodeSpec, op: OpSpec, at: tuple[str | int, ...], suggester: Suggester) -> Iterator[Problem]:
    names = [port.name for port in op.inputs]
    fed: dict[str, str] = {}
    misspelt = False
    for written in node.inputs:
        port = find_port(op, written)
        here = pointer(*at, "inputs", written)
        if port is None:
            misspelt = True
            takes = f"; it takes {', '.join(names)}" if names else "; it takes none"
            hint = suggester.hint(written, names) or takes
            yield Problem(here, f"{op.ref} has no input `{written}`{hint}", "UNKNOWN_PORT")
            continue
        if port.name in fed:
            detail = f"`{written}` and `{fed[port.name]}` are the same input of {op.ref}; give one of them"
            yield Problem(here, detail, "DUPLICATE_PORT")
        sources = node.sources(written)
        if len(sources) > 1 and port.type not in COLLECTIONS:
            detail = f"the input `{port.name}` of {op.ref} takes one {port.type.value}; only items can be concatenated"
            yield Problem(here, detail, "TYPE_MISMATCH")
        if sources:
            fed[port.name] = written
    for port in op.inputs:
        if port.name not in fed and not port.optional and not misspelt:
            detail = f"{op.ref} needs the input `{port.name}`; name the node that feeds it"
            yield Problem(pointer(*at, "inputs") if node.inputs else pointer(*at), detail, "MISSING_INPUT")


def _check_types(
    op: OpSpec, at: tuple[str | int, ...], resolution: Resolution, edges: list[DataEdge]
) -> Iterator[Problem]:
    for edge in edges:
        given = resolution.types[resolution.places[edge.node]] if edge.node in resolution.places else None
        if given is None or flows_into(given, edge.port.type):
            continue
        path = (*at, "inputs", edge.written)
        here = pointer(*path) if edge.place is None else pointer(*path, edge.place)
        detail = (
            f"the node `{edge.node}` gives {_what(given)}, "
            f"but the input `{edge.port.name}` of {op.ref} takes {_what(edge.port.type)}"
        )
        yield Problem(here, detail, "TYPE_MISMATCH")


def _what(given: PortType) -> str:
    return {
        PortType.IMAGE: "images",
        PortType.RECORD: "records without images",
        PortType.TABLE: "a table",
        PortType.VALUE: "a value",
    }[given]


def _unknown_node(name: str, at: tuple[str | int, ...], places: dict[str, int], suggester: Suggester) -> Problem:
    return Problem(pointer(*at), f"there is no node `{name}`{suggester.hint(name, places)}", "UNKNOWN_NODE")
