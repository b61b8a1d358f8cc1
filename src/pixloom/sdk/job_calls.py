"""Calls about jobs that read, create and delete; `job_verbs` has those that steer them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from google.protobuf.field_mask_pb2 import FieldMask

from pixloom.errors import InvalidError
from pixloom.resources import Attempt, Item, ItemState, Job, JobState, Node, Page, Results
from pixloom.sdk.call import Call
from pixloom.sdk.workflow_calls import Document, document_bytes, json_bytes
from pixloom.v1 import item_pb2
from pixloom.v1 import job_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "create_job",
    "delete_job",
    "get_job",
    "get_results",
    "list_attempts",
    "list_items",
    "list_jobs",
    "list_nodes",
    "update_job",
]

SERVICE = "JobService"


def read_job(response: Any) -> Job:
    """Return the job that a response carries."""
    return Job.from_proto(response.job)


def create_job(
    workflow: str | None = None,
    *,
    spec: Document | None = None,
    version: int = 0,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    priority: int | None = None,
    external_id: str = "",
    start: bool = True,
    request_id: str | None = None,
    name: str = "",
    wait_s: float = 0.0,
) -> Call[Job]:
    """Create a job; when this returns it is durable.

    Args:
        workflow: Name of a stored workflow, or
        spec: a document.
        version: Version of a stored workflow; 0 means the newest.
        params: Params of the run.
        tags: Tags, added to those of the document.
        metadata: Metadata, merged into that of the document.
        priority: 0 to 9, 9 first; None means 5.
        external_id: Your own id for it.
        start: Whether to start it at once.
        request_id: Unique id of the call; a repeated one returns the first job. A new one if not given.
        name: Name of the job; the workflow's if empty.
        wait_s: Return once the job has ended, or after so many seconds if it has not; at most 60. It spares a small job
            the second call of `wait_job`.

    Raises:
        InvalidError: If not exactly one of `workflow` and `spec` is given.
    """
    if (workflow is None) == (spec is None):
        raise InvalidError("Give either the name of a stored workflow or a document as `spec`.")
    request = pb.CreateJobRequest(
        version=version,
        params_json=json_bytes(params, what="The params"),
        tags=tags,
        metadata_json=json_bytes(metadata, what="The metadata"),
        priority=priority,
        external_id=external_id,
        start=start,
        request_id=request_id or str(uuid4()),
        name=name,
    )
    if workflow is not None:
        request.workflow = workflow
    if spec is not None:
        request.spec_json = document_bytes(spec)
    request.wait.FromNanoseconds(round(wait_s * 1e9))
    return Call(SERVICE, "CreateJob", request, pb.CreateJobResponse, read_job, wait_s)


def get_job(job_id: str) -> Call[Job]:
    """Return a job."""
    return Call(SERVICE, "GetJob", pb.GetJobRequest(id=job_id), pb.GetJobResponse, read_job)


def list_jobs(
    *,
    states: Iterable[JobState | str] = (),
    workflow: str = "",
    tags: Mapping[str, str] | None = None,
    external_id: str = "",
    recoverable: bool = False,
    page_size: int = 0,
    page_token: str = "",
) -> Call[Page[Job]]:
    """List jobs, newest first.

    Args:
        states: Only these; empty means all.
        workflow: Only jobs of this workflow.
        tags: Only jobs with all of these tags.
        external_id: Only jobs with this external id.
        recoverable: Only jobs that FAILED or were CANCELLED and have recovery attempts left.
        page_size: Most entries of a page, 1 to 1,000; 0 means 100.
        page_token: Token of the page before.

    Raises:
        InvalidError: If a state is not known.
    """
    request = pb.ListJobsRequest(
        states=job_states(states),
        workflow=workflow,
        tags=tags,
        external_id=external_id,
        recoverable=recoverable,
        page_size=page_size,
        page_token=page_token,
    )
    return Call(
        SERVICE,
        "ListJobs",
        request,
        pb.ListJobsResponse,
        lambda response: Page(
            items=[Job.from_proto(entry) for entry in response.jobs], next_page_token=response.next_page_token
        ),
    )


def update_job(job_id: str, *, tags: Mapping[str, str] | None = None, priority: int | None = None) -> Call[Job]:
    """Change tags or priority of a job.

    Args:
        job_id: Id of the job.
        tags: All tags from now on; None leaves them.
        priority: 0 to 9, 9 first; None leaves it. A job that has ended keeps its priority.
    """
    job = pb.Job(id=job_id, tags=tags, priority=0 if priority is None else priority)
    mask = [name for name, value in (("tags", tags), ("priority", priority)) if value is not None]
    request = pb.UpdateJobRequest(job=job, update_mask=FieldMask(paths=mask))
    return Call(SERVICE, "UpdateJob", request, pb.UpdateJobResponse, read_job)


def delete_job(job_id: str, *, allow_missing: bool = False) -> Call[None]:
    """Delete a job that has ended, with its nodes, attempts and events.

    Args:
        job_id: Id of the job.
        allow_missing: Whether it is well if there is no such job, as when the call is repeated.
    """
    request = pb.DeleteJobRequest(id=job_id, allow_missing=allow_missing)
    return Call(SERVICE, "DeleteJob", request, pb.DeleteJobResponse, lambda _: None)


def get_results(job_id: str) -> Call[Results]:
    """Return outputs and node results of a job, as far as they are there."""
    return Call(
        SERVICE, "GetJobResults", pb.GetJobResultsRequest(id=job_id), pb.GetJobResultsResponse, Results.from_proto
    )


def list_nodes(job_id: str) -> Call[list[Node]]:
    """List the nodes of a job in the order of the document."""
    return Call(
        SERVICE,
        "ListNodes",
        pb.ListNodesRequest(id=job_id),
        pb.ListNodesResponse,
        lambda response: [Node.from_proto(entry) for entry in response.nodes],
    )


def list_items(
    job_id: str,
    node: str,
    *,
    states: Iterable[ItemState | str] = (),
    reason: str = "",
    page_size: int = 0,
    page_token: str = "",
) -> Call[Page[Item]]:
    """List the items of a node in the order in which their tasks ended; `ordinal` is the place in the collection.

    Args:
        job_id: Id of the job.
        node: Id of the node.
        states: Only these; empty means all.
        reason: Only items filtered or rejected for this reason.
        page_size: Most entries of a page, 1 to 1,000; 0 means 100.
        page_token: Token of the page before.

    Raises:
        InvalidError: If a state is not known.
    """
    request = pb.ListItemsRequest(
        id=job_id,
        node=node,
        states=[item_pb2.ItemState.Value(f"ITEM_STATE_{_word(ItemState, state)}") for state in states],
        reason=reason,
        page_size=page_size,
        page_token=page_token,
    )
    return Call(
        SERVICE,
        "ListItems",
        request,
        pb.ListItemsResponse,
        lambda response: Page(
            items=[Item.from_proto(entry) for entry in response.items], next_page_token=response.next_page_token
        ),
    )


def list_attempts(job_id: str, node: str = "", *, page_size: int = 0, page_token: str = "") -> Call[Page[Attempt]]:
    """List the attempts of a node (of all nodes if it is empty) in journal order; `page_size` 0 means 100."""
    return Call(
        SERVICE,
        "ListAttempts",
        pb.ListAttemptsRequest(id=job_id, node=node, page_size=page_size, page_token=page_token),
        pb.ListAttemptsResponse,
        lambda response: Page(
            items=[Attempt.from_proto(entry) for entry in response.attempts],
            next_page_token=response.next_page_token,
        ),
    )


def job_states(states: Iterable[JobState | str]) -> list[pb.JobState.ValueType]:
    """Return job states as they are sent.

    Raises:
        InvalidError: If a state is not known.
    """
    return [pb.JobState.Value(f"JOB_STATE_{_word(JobState, state)}") for state in states]


def _word(kind: type[JobState | ItemState], word: str) -> str:
    known = [state.value for state in kind]
    upper = word.upper()
    if upper not in known:
        raise InvalidError(f"There is no state {word!r}. Use one of {', '.join(known)}.")
    return upper
