"""Jobs."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - pydantic reads annotations at run time
from enum import StrEnum
from typing import Any

from pydantic import Field

from pixloom.resources.item import ItemCounts
from pixloom.resources.output import Output
from pixloom.resources.wire import Resource, enum_word, json_object, seconds_of, time_of
from pixloom.v1 import job_pb2

__all__ = ["ACTIVE_STATES", "FINAL_STATES", "Job", "JobError", "JobState", "TaskCounts", "counts_of"]


class JobState(StrEnum):
    """State of a job."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    RECOVERING = "RECOVERING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens in this generation."""
        return self in FINAL_STATES


ACTIVE_STATES = frozenset({JobState.RUNNING, JobState.RECOVERING})
FINAL_STATES = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})


class TaskCounts(Resource):
    """Counts of tasks in the current generation; `total` grows while sources are read."""

    total: int = 0
    done: int = 0
    failed: int = 0

    @classmethod
    def from_proto(cls, pb: job_pb2.TaskCounts) -> TaskCounts:
        """Return the resource for a message."""
        return cls(total=pb.total, done=pb.done, failed=pb.failed)


class JobError(Resource):
    """Why a job or node ended badly.

    Attributes:
        reason: Machine reason.
        detail: Sentence for people.
        node: Node at which it happened; None for the job as a whole.
    """

    reason: str
    detail: str
    node: str | None = None

    @classmethod
    def from_proto(cls, pb: job_pb2.JobError) -> JobError:
        """Return the resource for a message."""
        return cls(reason=pb.reason, detail=pb.detail, node=pb.node or None)


def counts_of(pb: job_pb2.ItemCounts) -> ItemCounts:
    """Return counts of items for a message."""
    return ItemCounts(ok=pb.ok, filtered=pb.filtered, rejected=pb.rejected)


class Job(Resource):
    """One execution of a workflow version.

    Attributes:
        id: Id.
        name: Name given to the job; the workflow's by default.
        workflow: Name of the workflow.
        version: Version of the workflow; 0 for a document that was never stored.
        sha256: SHA-256 of the canonical document.
        generation: Generation, counted from 1.
        state: State.
        reason: Machine reason of the state.
        progress: Percent, 0 to 100.
        current_step: Index of the first node that has not ended; `total_steps` when all have.
        total_steps: Number of nodes.
        tasks: Counts of tasks.
        items: Items that passed the last nodes that give items, and those dropped or rejected anywhere before.
        params: Params of the run.
        tags: Tags.
        metadata: Metadata.
        priority: 0 to 9, 9 first.
        project: Project it belongs to.
        external_id: The caller's own id for it.
        recovery_attempts: Times it was recovered.
        max_recovery_attempts: Times it may be recovered.
        error: What went wrong; None unless FAILED.
        create_time: When it was accepted.
        update_time: When it last changed: when the latest row of its journal was written.
        start_time: When it started.
        end_time: When it ended.
        last_checkpoint_time: When the outcome of its latest attempt became durable.
        estimated_end_time: When it is expected to end.
        estimated_duration_s: Expected seconds from start to end.
        actual_duration_s: Seconds from start to end, or to now while it runs.
        trace_id: Trace it belongs to, 32 hexadecimal digits.
        outputs: Outputs by name; filled when the job has ended.
        seq: Number of the latest row of its journal; watching goes on behind it.
        warnings: Things worth knowing that are no failure.
    """

    id: str
    name: str
    workflow: str
    version: int
    sha256: str
    generation: int
    state: JobState
    reason: str | None = None
    progress: float = 0.0
    current_step: int = 0
    total_steps: int = 0
    tasks: TaskCounts = TaskCounts()
    items: ItemCounts = ItemCounts()
    params: dict[str, Any] = Field(default_factory=dict)
    tags: dict[str, str] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)
    priority: int = 5
    project: str = ""
    external_id: str | None = None
    recovery_attempts: int = 0
    max_recovery_attempts: int = 0
    error: JobError | None = None
    create_time: datetime | None = None
    update_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    last_checkpoint_time: datetime | None = None
    estimated_end_time: datetime | None = None
    estimated_duration_s: float | None = None
    actual_duration_s: float | None = None
    trace_id: str | None = None
    outputs: dict[str, Output] = Field(default_factory=dict)
    seq: int = 0
    warnings: list[str] = Field(default_factory=list)

    @classmethod
    def from_proto(cls, pb: job_pb2.Job) -> Job:
        """Return the resource for a message."""
        return cls(
            id=pb.id,
            name=pb.name,
            workflow=pb.workflow,
            version=pb.version,
            sha256=pb.sha256,
            generation=pb.generation,
            state=JobState(enum_word(job_pb2.JobState, "JOB_STATE_", pb.state)),
            reason=pb.reason or None,
            progress=pb.progress,
            current_step=pb.current_step,
            total_steps=pb.total_steps,
            tasks=TaskCounts.from_proto(pb.tasks),
            items=counts_of(pb.items),
            params=json_object(pb.params_json),
            tags=dict(sorted(pb.tags.items())),
            metadata=json_object(pb.metadata_json),
            priority=pb.priority,
            project=pb.project,
            external_id=pb.external_id or None,
            recovery_attempts=pb.recovery_attempts,
            max_recovery_attempts=pb.max_recovery_attempts,
            error=JobError.from_proto(pb.error) if pb.HasField("error") else None,
            create_time=time_of(pb, "create_time"),
            update_time=time_of(pb, "update_time"),
            start_time=time_of(pb, "start_time"),
            end_time=time_of(pb, "end_time"),
            last_checkpoint_time=time_of(pb, "last_checkpoint_time"),
            estimated_end_time=time_of(pb, "estimated_end_time"),
            estimated_duration_s=seconds_of(pb, "estimated_duration"),
            actual_duration_s=seconds_of(pb, "actual_duration"),
            trace_id=pb.trace_id or None,
            outputs={name: Output.from_proto(pb.outputs[name]) for name in sorted(pb.outputs)},
            seq=pb.seq,
            warnings=list(pb.warnings),
        )
