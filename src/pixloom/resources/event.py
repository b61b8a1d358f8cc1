"""What a watcher of a job sees: durable events and snapshots of progress."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - pydantic reads annotations at run time
from typing import TYPE_CHECKING

from pixloom.resources.job import Job
from pixloom.resources.node import Node
from pixloom.resources.wire import Resource, time_of

if TYPE_CHECKING:
    from pixloom.v1 import job_pb2

__all__ = ["Event", "Snapshot"]


class Event(Resource):
    """A change that is durable.

    Attributes:
        seq: Journal number; watching resumes behind it.
        type: Kind in lower snake case, such as node_ended.
        time: When it happened, by the database's clock.
        node: Node concerned; None for the job.
        state: State entered, an upper-case word.
        reason: Machine reason.
        detail: Sentence for people.
        generation: Generation.
    """

    seq: int
    type: str
    time: datetime | None = None
    node: str | None = None
    state: str | None = None
    reason: str | None = None
    detail: str | None = None
    generation: int = 0

    @classmethod
    def from_proto(cls, pb: job_pb2.JobEvent) -> Event:
        """Return the resource for a message."""
        return cls(
            seq=pb.seq,
            type=pb.type,
            time=time_of(pb, "time"),
            node=pb.node or None,
            state=pb.state or None,
            reason=pb.reason or None,
            detail=pb.detail or None,
            generation=pb.generation,
        )


class Snapshot(Resource):
    """Counts and rates at one moment; not durable, the last one wins.

    Attributes:
        job: The job.
        nodes: Its nodes in the order of the document.
    """

    job: Job
    nodes: list[Node]

    @classmethod
    def from_proto(cls, pb: job_pb2.JobSnapshot) -> Snapshot:
        """Return the resource for a message."""
        return cls(job=Job.from_proto(pb.job), nodes=[Node.from_proto(node) for node in pb.nodes])
