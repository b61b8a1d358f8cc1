"""Which nodes share a stage.

Item ops in a row run as one stage, so that an image is decoded once and encoded once. A node joins the stage of the
node it reads from unless something would then be lost: each rule below says what.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pixloom.graph.catalogue import OpKind, OpSpec
from pixloom.graph.plan import RetryPolicy, StageKind
from pixloom.graph.ports import COLLECTIONS, DataEdge, runs_once

if TYPE_CHECKING:
    from pixloom.graph.spec import NodeSpec

__all__ = ["Step", "boundary_of", "stage_kind"]


@dataclass(frozen=True, slots=True)
class Step:
    """A node with everything the planner knows of it.

    Attributes:
        place: Place of the node in the document.
        spec: The node.
        op: Its op.
        edges: Its data edges.
        reads: Places of the nodes at the other ends of the data edges.
        feeds: Places of the nodes that read its output, once for each edge.
        waits: Places of the nodes that must have ended before it starts: `dependencies`, `when`, `${nodes…}`.
    """

    place: int
    spec: NodeSpec
    op: OpSpec
    edges: tuple[DataEdge, ...]
    reads: tuple[int, ...]
    feeds: tuple[int, ...]
    waits: tuple[int, ...]

    @property
    def needs(self) -> list[int]:
        """Places of all nodes it comes after, ascending."""
        return sorted({*self.reads, *self.waits})

    @property
    def item_source(self) -> int | None:
        """Place of the node at its only data edge, or None if it has none, several, or one that carries no items."""
        return self.reads[0] if len(self.edges) == 1 and self.edges[0].port.type in COLLECTIONS else None

    @property
    def pool(self) -> str:
        """Pool it runs in."""
        return self.spec.pool or self.op.pool

    @property
    def retry(self) -> RetryPolicy:
        """When its tasks are tried again."""
        given = self.spec.retry
        return RetryPolicy() if given is None else RetryPolicy(**given.model_dump())

    @property
    def must_wait(self) -> bool:
        """Whether it may not run ahead of a node that may still fail."""
        return self.op.kind in {OpKind.COLLECTION, OpKind.VALUE} or self.op.external_effect


def stage_kind(step: Step) -> StageKind:
    """Return how the stage that begins with `step` is cut into tasks."""
    if step.op.kind is OpKind.SOURCE:
        return StageKind.SOURCE
    if step.op.kind is OpKind.ITEM and not runs_once(step.op, step.edges):
        return StageKind.MAPPED
    return StageKind.WHOLE


def boundary_of(step: Step, before: Step | None, head: Step | None) -> str:
    """Return why a new stage begins with `step`, or an empty string if it joins the stage of the node it reads.

    Args:
        step: The node.
        before: The node it reads items from, if it is only one.
        head: The first node of the stage that `before` is in.
    """
    match step.op.kind:
        case OpKind.SOURCE:
            return "source"
        case OpKind.COLLECTION:
            return "collection op"
        case OpKind.VALUE:
            return "value op"
        case OpKind.ITEM:
            pass
    if stage_kind(step) is StageKind.WHOLE:
        return "runs once: no items flow into it"
    if before is None or head is None:
        return "several inputs"
    if stage_kind(before) is not StageKind.MAPPED:
        return f"reads the items of {before.spec.id}"
    return _what_would_be_lost(step, before, head)


def _what_would_be_lost(step: Step, before: Step, head: Step) -> str:
    if not step.spec.fuse:
        return "fuse: false"
    if not before.spec.fuse:
        return f"fuse: false on {before.spec.id}"
    if step.pool != before.pool:
        return f"pool {step.pool}"
    if step.retry != before.retry:
        return "another retry policy"
    if step.spec.when is not None:
        return "when"
    if step.spec.dependencies:
        return "dependencies"
    if step.waits:
        return "reads a value of another node"
    if step.op.external_effect:
        return "external effect"
    if before.op.external_effect:
        return f"external effect of {before.spec.id}"
    if before.op.expands:
        # What it makes is then in a manifest: spread over executors, tried again and isolated item by item.
        return f"{before.spec.id} may make several items of one"
    if len(before.feeds) > 1:
        return f"{before.spec.id} is read by {len(before.feeds)} nodes"
    if step.spec.shard_size is not None and step.spec.shard_size != head.spec.shard_size:
        return "another shard_size"
    return ""
