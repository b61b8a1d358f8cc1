"""Workflows written in Python: nodes put together to a DAG, which is nothing but a workflow document."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pixloom.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["DAG", "Node", "Source", "node"]

# The fields of a node in the workflow document that are no params of its op.
_SETTINGS: Final = frozenset(
    {
        "dependencies",
        "estimated_duration_s",
        "fuse",
        "keep",
        "limits",
        "max_failed_ratio",
        "memo",
        "on_error",
        "pool",
        "priority",
        "retry",
        "shard_size",
        "timeout_s",
        "when",
    }
)
# Names of the one data port of an op, under which other nodes may be given by id as well.
_DATA_PORTS: Final = frozenset({"images", "items"})


@dataclass(frozen=True, eq=False)
class Node:
    """A step of a workflow.

    Attributes:
        id: Name of the node, unique within the workflow.
        op: Name of the op.
        inputs: Sources by port: `node` or `node.port`.
        params: Params of the op.
        settings: Other fields of the node in the document.
        sources: Nodes that `inputs` and `dependencies` name, if they were given as nodes.
    """

    id: str
    op: str
    inputs: Mapping[str, str | list[str]] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[Node, ...] = ()

    def to_document(self) -> dict[str, Any]:
        """Return the node as it stands in a workflow document."""
        document: dict[str, Any] = {"id": self.id, "op": self.op}
        if self.inputs:
            document["inputs"] = dict(self.inputs)
        if self.params:
            document["params"] = dict(self.params)
        return {**document, **self.settings}

    def reads(self) -> set[str]:
        """Return the ids of the nodes whose items or value it takes."""
        written = (entry if isinstance(entry, list) else [entry] for entry in self.inputs.values())
        return {name.partition(".")[0] for names in written for name in names}


Source: TypeAlias = Node | str
"""What feeds an input: a node, or `node` or `node.port` as a string."""


def node(node_id: str, op: str | Callable[..., Any], /, **given: Any) -> Node:
    """Describe a step of a workflow; `DAG.add` puts it in.

    Args:
        node_id: Name of the node, unique within the workflow.
        op: Name of an op, such as image.thumbnail, or a function made an op by `@op`.
        given: Nodes (or lists of nodes) are inputs of the port they are given for, and so are ids given for `images`
            or `items`. The node fields of workflow documents (`keep`, `when`, `retry`, `timeout_s`, …) go by their
            names. `params`, a mapping, and everything else are params of the op.

    Raises:
        InvalidError: If a node or something that is no node is given where the other belongs.
    """
    inputs: dict[str, str | list[str]] = {}
    params: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    sources: list[Node] = []
    for name, value in given.items():
        if name == "dependencies":
            settings[name] = [_source(node_id, name, entry, sources) for entry in _listed(value)]
        elif name in _SETTINGS:
            settings[name] = value
        elif name == "params":
            params.update(value)
        elif isinstance(value, Node) or name in _DATA_PORTS:
            inputs[name] = (
                _source(node_id, name, value, sources)
                if isinstance(value, Node | str)
                else [_source(node_id, name, entry, sources) for entry in _listed(value)]
            )
        elif _is_list_of_nodes(value):
            inputs[name] = [_source(node_id, name, entry, sources) for entry in value]
        else:
            params[name] = value
    return Node(node_id, _op_name(op), inputs, params, settings, tuple(sources))


def _is_list_of_nodes(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(entry, Node) for entry in value)


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _source(node_id: str, name: str, value: Any, sources: list[Node]) -> str:
    if isinstance(value, Node):
        sources.append(value)
        return value.id
    if isinstance(value, str):
        return value
    raise InvalidError(
        f"Node {node_id}: {name} takes nodes or their ids, not {type(value).__name__}. Give what dag.add returned.",
        reason="INVALID_WORKFLOW",
    )


def _op_name(op: str | Callable[..., Any]) -> str:
    if isinstance(op, str):
        return op
    from pixloom.sdk.op import definition_of

    return definition_of(op).name


class DAG:
    """A graph of nodes.

    Args:
        name: Name of the workflow unless a job gives another.
        description: What it does.
        params: Declarations of params by name, as in the document; nodes refer to them by `${params.name}`.
    """

    def __init__(
        self, name: str, *, description: str = "", params: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        self.name = name
        self.description = description
        self.params = dict(params or {})
        self._nodes: dict[str, Node] = {}
        self._outputs: dict[str, str] = {}

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes in the order in which they were added."""
        return tuple(self._nodes.values())

    def add(self, step: Node) -> Node:
        """Put a node in and return it, to be given to others as an input.

        Raises:
            InvalidError: If its id is taken, or one of its inputs is a node that is not in this graph.
        """
        if step.id in self._nodes:
            raise InvalidError(
                f"The workflow {self.name} has a node {step.id} already. Give each node an id of its own.",
                reason="INVALID_WORKFLOW",
            )
        for source in step.sources:
            if self._nodes.get(source.id) is not source:
                raise InvalidError(
                    f"Node {step.id} reads {source.id}, which is not in the workflow {self.name}. Add it first.",
                    reason="INVALID_WORKFLOW",
                )
        self._nodes[step.id] = step
        return step

    def output(self, name: str, source: Source) -> None:
        """Make the result of a node an output of the workflow; without any, the nodes that nothing reads are.

        Args:
            name: Name of the output.
            source: The node or its id.
        """
        self._outputs[name] = source.id if isinstance(source, Node) else source

    def to_document(
        self,
        *,
        name: str | None = None,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return the workflow document.

        Args:
            name: Name of the workflow; the graph's own if not given.
            description: Description; the graph's own if not given.
            tags: Tags.
            metadata: Metadata.
        """
        document: dict[str, Any] = {"name": name or self.name}
        optional = {
            "description": description or self.description,
            "tags": dict(tags or {}),
            "metadata": dict(metadata or {}),
            "params": self.params,
        }
        document.update({key: value for key, value in optional.items() if value})
        document["nodes"] = [step.to_document() for step in self._nodes.values()]
        document["outputs"] = self._outputs or {leaf: leaf for leaf in self._leaves()}
        return document

    def _leaves(self) -> Iterable[str]:
        read = {source for step in self._nodes.values() for source in step.reads()}
        return [node_id for node_id in self._nodes if node_id not in read]
