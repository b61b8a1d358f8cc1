"""Nodes of jobs and the attempts at their tasks."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - pydantic reads annotations at run time
from enum import StrEnum

from pydantic import Field

from pixloom.resources.item import ItemCounts
from pixloom.resources.job import JobError, TaskCounts, counts_of
from pixloom.resources.output import Output
from pixloom.resources.wire import Resource, enum_word, seconds_of, time_of
from pixloom.v1 import job_pb2

__all__ = ["Attempt", "AttemptOutcome", "Node", "NodeState"]


class NodeState(StrEnum):
    """State of a node."""

    PENDING = "PENDING"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    RETRYING = "RETRYING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"


class AttemptOutcome(StrEnum):
    """How an attempt ended."""

    OK = "OK"
    PARTIAL = "PARTIAL"
    FAILED = "FAILED"
    LOST = "LOST"
    CANCELLED = "CANCELLED"


class Node(Resource):
    """A node of a job.

    Attributes:
        id: Id in the document.
        op: Op with version.
        step_index: Index in the document, from 0.
        state: State.
        waiting_reason: Why it waits; None when it does not.
        dependencies: Ids of the nodes it waits for, by data or order.
        retry_count: Attempts beyond the first, over all its tasks.
        max_attempts: Most attempts of a task.
        result: Its value or where its items lie; None before it ended.
        error: What went wrong; None unless FAILED or SKIPPED.
        items: Counts of items.
        tasks: Counts of tasks.
        reasons: Number of items filtered and rejected by reason.
        estimated_duration_s: Expected seconds from start to end.
        actual_duration_s: Seconds from start to end, or to now while it runs.
        start_time: When its first task began; until an attempt has ended, when that task was granted.
        end_time: When it ended.
        generation: Generation in which it ran.
    """

    id: str
    op: str
    step_index: int
    state: NodeState
    waiting_reason: str | None = None
    dependencies: list[str] = Field(default_factory=list)
    retry_count: int = 0
    max_attempts: int = 0
    result: Output | None = None
    error: JobError | None = None
    items: ItemCounts = ItemCounts()
    tasks: TaskCounts = TaskCounts()
    reasons: dict[str, int] = Field(default_factory=dict)
    estimated_duration_s: float | None = None
    actual_duration_s: float | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    generation: int = 0

    @classmethod
    def from_proto(cls, pb: job_pb2.Node) -> Node:
        """Return the resource for a message."""
        return cls(
            id=pb.id,
            op=pb.op,
            step_index=pb.step_index,
            state=NodeState(enum_word(job_pb2.NodeState, "NODE_STATE_", pb.state)),
            waiting_reason=pb.waiting_reason or None,
            dependencies=list(pb.dependencies),
            retry_count=pb.retry_count,
            max_attempts=pb.max_attempts,
            result=Output.from_proto(pb.result) if pb.HasField("result") else None,
            error=JobError.from_proto(pb.error) if pb.HasField("error") else None,
            items=counts_of(pb.items),
            tasks=TaskCounts.from_proto(pb.tasks),
            reasons=dict(sorted(pb.reasons.items())),
            estimated_duration_s=seconds_of(pb, "estimated_duration"),
            actual_duration_s=seconds_of(pb, "actual_duration"),
            start_time=time_of(pb, "start_time"),
            end_time=time_of(pb, "end_time"),
            generation=pb.generation,
        )


class Attempt(Resource):
    """One execution of a task.

    Attributes:
        id: Job, generation, stage, shard and number joined by dots.
        node: Node; the first of the stage if several were fused.
        task: Id of the task: job, generation, stage and shard joined by dots.
        number: Counted from 1.
        generation: Generation.
        executor_id: Executor that ran it.
        outcome: How it ended.
        reason: Machine reason; None for OK.
        detail: Sentence for people about the reason.
        start_time: When it started.
        end_time: When it ended.
        items: Counts of items at the node asked for.
        seq: Journal number.
    """

    id: str
    node: str
    task: str
    number: int
    generation: int
    executor_id: str
    outcome: AttemptOutcome
    reason: str | None = None
    detail: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    items: ItemCounts = ItemCounts()
    seq: int = 0

    @classmethod
    def from_proto(cls, pb: job_pb2.Attempt) -> Attempt:
        """Return the resource for a message."""
        return cls(
            id=pb.id,
            node=pb.node,
            task=pb.task,
            number=pb.number,
            generation=pb.generation,
            executor_id=pb.executor_id,
            outcome=AttemptOutcome(enum_word(job_pb2.AttemptOutcome, "ATTEMPT_OUTCOME_", pb.outcome)),
            reason=pb.reason or None,
            detail=pb.detail or None,
            start_time=time_of(pb, "start_time"),
            end_time=time_of(pb, "end_time"),
            items=counts_of(pb.items),
            seq=pb.seq,
        )
