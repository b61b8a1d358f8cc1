"""Routes that create, show and change jobs."""

# ruff: noqa: FAST003, TC001 - FastAPI reads annotations at run time, and `{id}` is the alias in `JobId`

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Header, Path, Query, Request
from google.protobuf.field_mask_pb2 import FieldMask
from starlette.responses import Response

from pixloom.errors import InvalidError, Problem
from pixloom.resources import Job, JobState, Page
from pixloom.v1 import job_pb2
from pixloom_gateway.rest.bodies import JobBody, JobPatch, document_body, json_bytes, read_body
from pixloom_gateway.rest.preferences import preferred_wait_s
from pixloom_gateway.rest.replies import PROBLEMS, page_of, problems, reply
from pixloom_gateway.rest.workflows import PageSize
from pixloom_gateway.upstream import methods

if TYPE_CHECKING:
    from pixloom_gateway.rest.context import RouteContext

__all__ = ["IdempotencyKey", "JobId", "accepted", "job_routes", "states_of"]

JobId = Annotated[str, Path(alias="id", max_length=256, description="Id of the job.")]
IdempotencyKey = Annotated[
    str | None,
    Header(alias="Idempotency-Key", max_length=255, description="Unique id of the call: repeating it changes nothing."),
]
Prefer = Annotated[
    str | None,
    Header(
        max_length=255,
        description="`wait=10` answers once the job has ended, or after 10 seconds if it has not (RFC 7240); at most 60.",
    ),
]
_MISSING = "there is no job 0198c5…; `pixloom list` shows those there are"
_ENDED = "job 0198c5… is COMPLETED: it is not possible to change the priority of it now"
_RUNNING = "job 0198c5… is RUNNING: it is not possible to delete it now; cancel it first"
_ACTIVE = (job_pb2.JOB_STATE_RUNNING, job_pb2.JOB_STATE_RECOVERING)


def job_routes(context: RouteContext) -> APIRouter:
    """Return the routes of `/jobs` and `/jobs/{id}`."""
    routes = APIRouter(prefix="/jobs", tags=["jobs"], responses=PROBLEMS)
    scheduler = context.scheduler

    @routes.post("", status_code=201, response_model=Job, openapi_extra=document_body(JobBody))
    async def create_job(request: Request, key: IdempotencyKey = None, prefer: Prefer = None) -> Response:
        """Accept a job; once this answers it is never lost."""
        body = await read_body(request, JobBody)
        message = _creation(body, request_id=key or context.new_id())
        wait_s = preferred_wait_s(prefer)
        message.wait.seconds = wait_s
        answer = await scheduler.call(methods.CREATE_JOB, message, repeatable=True, wait_s=wait_s)
        return accepted(answer.job, wait_s=wait_s)

    @routes.get("", response_model=Page[Job])
    async def list_jobs(
        *,
        state: Annotated[list[str] | None, Query(description="Only these states; repeated or with commas.")] = None,
        workflow: Annotated[str, Query(description="Only jobs of this workflow.")] = "",
        tag: Annotated[list[str] | None, Query(description="Only jobs with this tag, k=v or k:v; repeatable.")] = None,
        external_id: Annotated[str, Query(description="Only jobs with this id of yours.")] = "",
        filter_: Annotated[
            Literal["active", "failed", "recoverable"] | None, Query(alias="filter", description="Instead of states.")
        ] = None,
        page_size: PageSize = 100,
        page_token: str = "",
    ) -> Response:
        """List jobs, newest first."""
        request = job_pb2.ListJobsRequest(
            states=states_of(state or [], pointer="/query/state"),
            workflow=workflow,
            tags=dict(_tag(entry) for entry in tag or []),
            external_id=external_id,
            page_size=page_size,
            page_token=page_token,
        )
        if filter_ is not None and request.states:
            raise InvalidError("Give either `state` or `filter`, not both.")
        if filter_ == "active":
            request.states.extend(_ACTIVE)
        elif filter_ == "failed":
            request.states.append(job_pb2.JOB_STATE_FAILED)
        request.recoverable = filter_ == "recoverable"
        answer = await scheduler.call(methods.LIST_JOBS, request)
        return page_of([Job.from_proto(entry) for entry in answer.jobs], answer.next_page_token)

    @routes.get("/{id}", response_model=Job)
    async def get_job(job_id: JobId) -> Response:
        """Return a job."""
        answer = await scheduler.call(methods.GET_JOB, job_pb2.GetJobRequest(id=job_id))
        return reply(Job.from_proto(answer.job))

    @routes.patch(
        "/{id}",
        response_model=Job,
        responses=problems(NOT_FOUND=_MISSING, STATE_CONFLICT=_ENDED),
        openapi_extra=document_body(JobPatch, example={"tags": {"team": "vision"}, "priority": 9}),
    )
    async def patch_job(request: Request, job_id: JobId) -> Response:
        """Change tags or priority; of a job that has ended only tags."""
        body = await read_body(request, JobPatch)
        paths = sorted(body.model_fields_set)
        missing = [name for name in paths if getattr(body, name) is None]
        if missing or not paths:
            raise InvalidError(
                "Say what to change: `tags`, an object, or `priority`, 0 to 9.",
                problems=tuple(Problem(f"/{name}", "null changes nothing; leave it out") for name in missing),
            )
        job = job_pb2.Job(id=job_id, tags=body.tags or {}, priority=body.priority or 0)
        answer = await scheduler.call(
            methods.UPDATE_JOB, job_pb2.UpdateJobRequest(job=job, update_mask=FieldMask(paths=paths))
        )
        return reply(Job.from_proto(answer.job))

    @routes.delete("/{id}", status_code=204, responses=problems(NOT_FOUND=_MISSING, STATE_CONFLICT=_RUNNING))
    async def delete_job(
        job_id: JobId,
        *,
        allow_missing: Annotated[bool, Query(description="Answer 204 as well if there is no such job.")] = False,
    ) -> Response:
        """Delete a job that has ended, with its nodes, attempts and events."""
        request = job_pb2.DeleteJobRequest(id=job_id, allow_missing=allow_missing)
        await scheduler.call(methods.DELETE_JOB, request)
        return Response(status_code=204)

    return routes


def accepted(job: job_pb2.Job, *, wait_s: int = 0) -> Response:
    """Return the answer for a job that was created, after `wait_s` seconds or its end if that was asked for."""
    headers = {"Location": f"/api/v1/jobs/{job.id}"}
    if wait_s:
        headers["Preference-Applied"] = f"wait={wait_s}"
    return reply(Job.from_proto(job), status=201, headers=headers)


def _creation(body: JobBody, *, request_id: str) -> job_pb2.CreateJobRequest:
    if (body.workflow is None) == (body.spec is None):
        raise InvalidError("Say what to run: either `workflow`, the name of a stored one, or `spec`, a document.")
    message = job_pb2.CreateJobRequest(
        version=body.version,
        params_json=json_bytes(body.params),
        tags=body.tags,
        metadata_json=json_bytes(body.metadata),
        external_id=body.external_id,
        start=body.start,
        request_id=request_id,
        name=body.name,
    )
    if body.priority is not None:
        message.priority = body.priority
    if body.workflow is not None:
        message.workflow = body.workflow
    else:
        message.spec_json = json_bytes(body.spec)
    return message


def states_of(given: list[str], *, pointer: str) -> list[job_pb2.JobState.ValueType]:
    """Return job states given as words, several of them with commas.

    Raises:
        InvalidError: If one is not known; `pointer` tells where it was given.
    """
    words = [word.strip().upper() for entry in given for word in entry.split(",") if word.strip()]
    unknown = [word for word in words if word not in JobState.__members__]
    if unknown:
        known = ", ".join(JobState)
        raise InvalidError(
            f"There is no state {unknown[0][:50]!r}; the states are {known}.",
            problems=(Problem(pointer, f"one of {known}"),),
        )
    return [job_pb2.JobState.Value(f"JOB_STATE_{word}") for word in words]


def _tag(text: str) -> tuple[str, str]:
    positions = [position for position in (text.find("="), text.find(":")) if position > 0]
    if not positions:
        raise InvalidError(
            f"{text[:100]!r} is no tag: write tag=key=value or tag=key:value.",
            problems=(Problem("/query/tag", "write key=value or key:value"),),
        )
    cut = min(positions)
    return text[:cut], text[cut + 1 :]
