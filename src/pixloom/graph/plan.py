"""What the planner makes of a workflow: the input of the scheduler's core.

A plan is computed once, when a job is accepted, and stored with the job as JSON: a later planner never changes how a
running job is cut. Everything in it refers to nodes and stages by index, so that the core works on small integers.

Nodes that are fused form one stage. A stage runs as *tasks*: one task for each page of a source, one for each shard of
a mapped stage, one for a collection or value stage.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixloom.graph.catalogue import OpKind

__all__ = [
    "Edge",
    "NodePlan",
    "OnError",
    "Plan",
    "RetryPolicy",
    "StageKind",
    "StagePlan",
]


class StageKind(StrEnum):
    """How a stage is cut into tasks."""

    SOURCE = "source"  # one task a page, in a chain
    MAPPED = "mapped"  # one task a shard of the input collections, as these arrive
    WHOLE = "whole"  # one task, when every input is sealed and ended: collection, value and input-less item ops


class OnError(StrEnum):
    """What happens to an item that an op refuses."""

    QUARANTINE = "quarantine"
    SKIP = "skip"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again.

    Attributes:
        max_attempts: Most attempts, 1 to 100.
        initial_backoff_s: Seconds before the second attempt.
        multiplier: Factor from one delay to the next.
        max_backoff_s: Longest delay in seconds.
    """

    max_attempts: int = 4
    initial_backoff_s: float = 1.0
    multiplier: float = 2.0
    max_backoff_s: float = 60.0


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node of the document.

    Attributes:
        id: Id in the document.
        op: Op with version.
        kind: Kind of the op.
        stage: Index of the stage that runs it.
        params: Params with `${params…}` resolved; `${nodes…}` references are still in place as strings.
        dynamic: Whether `params` holds `${nodes…}` references, resolved when the node is released.
        when: CEL condition, decided when the node is released; empty means always.
        needs: Indexes of all nodes it comes after, by data, `dependencies`, `when` and references, ascending.
        dependencies: Ids of those nodes that are not data inputs.
        on_error: What happens to an item it refuses.
        max_failed_ratio: Share of rejected items, 0 to 1, above which the node FAILS when it ends; 1 means never.
        timeout_s: Seconds an item, or a run for value and collection ops.
        deliver: Whether its output is a workflow output or kept.
        feeds_pixels: Whether an op of a later stage opens the pixels that it gives, directly or through others.
        estimated_duration_s: The author's estimate; None if not given.
        limits: Limits on images it opens: max_pixels, max_bytes, max_frames, memory_mb.
        cost_s: Expected seconds an item (or a run), until a cost has been measured.
        expands: Whether its op may make several items of one; in plans older than this field nobody says.
    """

    id: str
    op: str
    kind: OpKind
    stage: int
    params: dict[str, Any]
    dynamic: bool = False
    when: str = ""
    needs: tuple[int, ...] = ()
    dependencies: tuple[str, ...] = ()
    on_error: OnError = OnError.QUARANTINE
    max_failed_ratio: float = 1.0
    timeout_s: float = 60.0
    deliver: bool = False
    feeds_pixels: bool = False
    estimated_duration_s: float | None = None
    limits: dict[str, int] = field(default_factory=dict)
    cost_s: float = 0.01
    expands: bool = True


@dataclass(frozen=True, slots=True)
class Edge:
    """Items that flow from one stage into another.

    Attributes:
        producer: Index of the stage that gives them (always the output of its last node).
        port: Input port of the consumer's first node.
        position: Place among the collections concatenated on that port; None if it is the only one.
    """

    producer: int
    port: str
    position: int | None = None


@dataclass(frozen=True, slots=True)
class StagePlan:
    """A unit of execution.

    Attributes:
        index: Place in the plan, from 0; stages are in topological order.
        kind: How it is cut into tasks.
        nodes: Indexes of its nodes in order of execution.
        pool: Pool of executors.
        inputs: Edges that feed its first node.
        shard_size: Items in each shard as the workflow gives it; 0 means the scheduler decides by cost.
        retry: When its tasks are tried again.
        after: Indexes of nodes that must have ended before it is released, besides its data inputs: `dependencies`,
            `when` and `${nodes…}` references, and for stages that must not run ahead also their producers' nodes.
        boundary: Why it begins where it does, for people.
    """

    index: int
    kind: StageKind
    nodes: tuple[int, ...]
    pool: str = "cpu"
    inputs: tuple[Edge, ...] = ()
    shard_size: int = 0
    retry: RetryPolicy = RetryPolicy()
    after: tuple[int, ...] = ()
    boundary: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """A workflow with its params, ready to run.

    Attributes:
        nodes: The nodes in the order of the document.
        stages: The stages in topological order.
        outputs: Node index by output name.
        timeout_s: Seconds the whole job may take; None means no limit.
    """

    nodes: tuple[NodePlan, ...]
    stages: tuple[StagePlan, ...]
    outputs: dict[str, int] = field(default_factory=dict)
    timeout_s: float | None = None
