"""What is fixed about a job from its acceptance on, beside its plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import date, datetime

__all__ = ["JobHeader", "partition_of"]


def partition_of(job_id: str) -> int:
    """Return the partition that a job's id carries; -1 if it is no id of a job."""
    try:
        return int(job_id[-2:], 16)
    except ValueError:
        return -1


@dataclass(slots=True)
class JobHeader:
    """The facts of a job that its execution does not change.

    Attributes:
        id: Id; its last two hexadecimal digits are the partition.
        partition: Its partition.
        project: Project it belongs to.
        day: Day it was created, which partitions its journal.
        name: Name of the job.
        workflow: Name of the workflow.
        version: Version of the workflow; 0 if the document was never stored.
        sha256: Digest of the canonical document.
        params_json: Params with defaults filled in.
        metadata_json: Metadata.
        create_time: When it was accepted.
        external_id: The caller's own id.
        request_id: Id of the call that created it.
        request_digest: Digest of that call's body.
        max_recovery_attempts: Times it may be recovered.
        trace_context: W3C headers of the call that created it.
        tags: Tags; may be changed.
        priority: Priority; may be changed.
        recovery_attempts: Times it was recovered.
    """

    id: str
    partition: int
    project: str
    day: date
    name: str
    workflow: str
    version: int
    sha256: str
    params_json: bytes
    metadata_json: bytes
    create_time: datetime
    external_id: str = ""
    request_id: str = ""
    request_digest: str = ""
    max_recovery_attempts: int = 3
    trace_context: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    priority: int = 5
    recovery_attempts: int = 0
