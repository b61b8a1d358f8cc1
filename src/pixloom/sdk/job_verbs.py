"""Calls that steer jobs. All are idempotent; one that does not fit the state raises `StateConflictError`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pixloom.sdk.call import Call
from pixloom.sdk.job_calls import SERVICE, job_states, read_job
from pixloom.sdk.workflow_calls import json_bytes
from pixloom.v1 import job_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pixloom.resources import Job, JobState

__all__ = [
    "cancel_all_jobs",
    "cancel_job",
    "pause_job",
    "recover_job",
    "rerun_job",
    "resume_job",
    "retry_job",
    "start_job",
]


def start_job(job_id: str, *, params: Mapping[str, Any] | None = None, request_id: str = "") -> Call[Job]:
    """Start a job that was created with `start=False`.

    Args:
        job_id: Id of the job.
        params: Params, merged over those given at creation. Ones that do not fit raise `InvalidError` with their
            places, and the job stays PENDING.
        request_id: Unique id of the call: repeating it returns the job as it is, whatever became of it since.
    """
    request = pb.StartJobRequest(id=job_id, params_json=json_bytes(params, what="The params"), request_id=request_id)
    return Call(SERVICE, "StartJob", request, pb.StartJobResponse, read_job)


def pause_job(job_id: str, *, now: bool = False) -> Call[Job]:
    """Stop dispatching.

    Args:
        job_id: Id of the job.
        now: Whether running tasks are taken back as well; they run again, as the same attempt, after `resume_job`.
            Otherwise they finish and their results count.
    """
    return Call(SERVICE, "PauseJob", pb.PauseJobRequest(id=job_id, now=now), pb.PauseJobResponse, read_job)


def resume_job(job_id: str) -> Call[Job]:
    """Dispatch again after a pause."""
    return Call(SERVICE, "ResumeJob", pb.ResumeJobRequest(id=job_id), pb.ResumeJobResponse, read_job)


def cancel_job(job_id: str, *, now: bool = False, reason: str = "") -> Call[Job]:
    """End a job; nothing new starts.

    Args:
        job_id: Id of the job.
        now: Whether running tasks are ended as well. Otherwise the job ends CANCELLED when they have finished.
        reason: Why, for people.
    """
    request = pb.CancelJobRequest(id=job_id, now=now, reason=reason)
    return Call(SERVICE, "CancelJob", request, pb.CancelJobResponse, read_job)


def recover_job(job_id: str, *, from_node: str = "", request_id: str | None = None) -> Call[Job]:
    """Open the next generation of a job that FAILED or was CANCELLED, from a node on or with what failed.

    Args:
        job_id: Id of the job.
        from_node: Run this node and all behind it again; empty means what failed.
        request_id: Unique id of the call: repeating it returns the job as it is, whatever became of it since, and does
            not count as another recovery. A new one if not given.
    """
    request = pb.RecoverJobRequest(id=job_id, from_node=from_node, request_id=request_id or str(uuid4()))
    return Call(SERVICE, "RecoverJob", request, pb.RecoverJobResponse, read_job)


def retry_job(
    job_id: str, *, nodes: Iterable[str] = (), reasons: Iterable[str] = (), request_id: str | None = None
) -> Call[Job]:
    """Open the next generation with failed nodes and rejected items only.

    Args:
        job_id: Id of the job.
        nodes: Only these nodes; empty means all.
        reasons: Only items rejected for these reasons; empty means all.
        request_id: Unique id of the call: repeating it returns the job as it is, whatever became of it since. A new one
            if not given.
    """
    request = pb.RetryJobRequest(
        id=job_id, nodes=list(nodes), reasons=list(reasons), request_id=request_id or str(uuid4())
    )
    return Call(SERVICE, "RetryJob", request, pb.RetryJobResponse, read_job)


def rerun_job(
    job_id: str, *, from_node: str = "", params: Mapping[str, Any] | None = None, request_id: str | None = None
) -> Call[Job]:
    """Create a new job from an old one.

    Args:
        job_id: Id of the old job.
        from_node: Run this node and all behind it, taking the rest over; empty means everything.
        params: Params, merged over the old ones.
        request_id: Unique id of the call; a repeated one returns the first job. A new one if not given.
    """
    request = pb.RerunJobRequest(
        id=job_id,
        from_node=from_node,
        params_json=json_bytes(params, what="The params"),
        request_id=request_id or str(uuid4()),
    )
    return Call(SERVICE, "RerunJob", request, pb.RerunJobResponse, read_job)


def cancel_all_jobs(
    *,
    workflow: str = "",
    tags: Mapping[str, str] | None = None,
    states: Iterable[JobState | str] = (),
    now: bool = False,
) -> Call[int]:
    """Cancel every unfinished job that matches and return how many this call cancelled.

    Args:
        workflow: Only jobs of this workflow.
        tags: Only jobs with all of these tags.
        states: Only jobs in these states, of those that have not ended; empty means all.
        now: Whether running tasks are ended as well.

    Raises:
        InvalidError: If a state is not known.
    """
    return Call(
        SERVICE,
        "CancelAllJobs",
        pb.CancelAllJobsRequest(workflow=workflow, tags=tags, states=job_states(states), now=now),
        pb.CancelAllJobsResponse,
        lambda response: int(response.cancelled),
    )
