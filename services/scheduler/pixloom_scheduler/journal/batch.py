"""What one group commit writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pixloom_scheduler.journal.rows import COLUMNS

if TYPE_CHECKING:
    from datetime import datetime

    from pixloom_scheduler.job import JobHeader
    from pixloom_scheduler.journal.revisions import Replan, Revision

_JOB_ID: Final = COLUMNS.index("job_id")

__all__ = ["Batch", "JobEnding", "NewJob", "NodeEnding", "Stamp"]


@dataclass(frozen=True, slots=True)
class Stamp:
    """Proof of ownership of a partition.

    Attributes:
        epoch: Epoch of the ownership.
        seq: Commit number that this batch takes.
    """

    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job row to insert.

    Attributes:
        header: Its fixed facts.
        spec: The document as JSON.
        plan: The plan as JSON.
        state: Its first state.
    """

    header: JobHeader
    spec: bytes
    plan: bytes
    state: str


@dataclass(frozen=True, slots=True)
class JobEnding:
    """A job row to update.

    Attributes:
        id: The job.
        state: Its state.
        generation: Its generation.
        recovery_attempts: Times it was recovered.
        end_time: When it ended; None while it has not.
        record: The job as served; None while it has not ended.
    """

    id: str
    state: str
    generation: int
    recovery_attempts: int
    end_time: datetime | None
    record: bytes | None


@dataclass(frozen=True, slots=True)
class NodeEnding:
    """A node row to insert; the columns of the table without `record`'s parts."""

    job_id: str
    generation: int
    index: int
    project: str
    id: str
    state: str
    reason: str
    ok: int
    filtered: int
    rejected: int
    record: bytes


@dataclass(slots=True)
class Batch:
    """Everything that becomes durable at once.

    Attributes:
        stamps: Proof of ownership by partition; every partition written to is in it.
        jobs: Jobs accepted.
        rows: Journal rows in the order of `rows.COLUMNS`.
        endings: Jobs whose row changes; the last one of a job counts.
        nodes: Nodes that ended.
        revisions: Jobs, by id, whose tags or priority change; the last one of a job counts.
        replans: Jobs, by id, that get another plan as they start.
        lease_s: For how long the partitions are owned from then on, seconds; None for the usual time.
    """

    stamps: dict[int, Stamp] = field(default_factory=dict)
    jobs: list[NewJob] = field(default_factory=list)
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    endings: dict[str, JobEnding] = field(default_factory=dict)
    nodes: list[NodeEnding] = field(default_factory=list)
    revisions: dict[str, Revision] = field(default_factory=dict)
    replans: dict[str, Replan] = field(default_factory=dict)
    lease_s: float | None = None

    def without(self, partitions: frozenset[int], jobs: frozenset[str]) -> Batch:
        """Return what is left, unstamped, when partitions are lost, or new jobs are none after all.

        Args:
            partitions: The partitions.
            jobs: Every job in them that the batch may touch, or the new jobs.
        """
        return Batch(
            jobs=[new for new in self.jobs if new.header.partition not in partitions and new.header.id not in jobs],
            rows=[row for row in self.rows if row[_JOB_ID] not in jobs],
            endings={job: ending for job, ending in self.endings.items() if job not in jobs},
            nodes=[node for node in self.nodes if node.job_id not in jobs],
            revisions={job: revision for job, revision in self.revisions.items() if job not in jobs},
            replans={job: replan for job, replan in self.replans.items() if job not in jobs},
        )

    @property
    def is_empty(self) -> bool:
        """Whether nothing but ownership would be written."""
        return not (self.jobs or self.rows or self.endings or self.nodes)
