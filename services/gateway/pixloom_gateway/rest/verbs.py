"""Routes that control jobs. A verb that does not fit the state is answered 409, naming the state."""

# ruff: noqa: FAST003, TC002 - FastAPI reads annotations at run time, and `{id}` is the alias in `JobId`

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from pixloom.resources import Job
from pixloom.v1 import job_pb2
from pixloom_gateway.rest.bodies import (
    CancelAllBody,
    CancelBody,
    PauseBody,
    RecoverBody,
    RerunBody,
    RetryBody,
    TriggerBody,
    document_body,
    json_bytes,
    read_body,
)
from pixloom_gateway.rest.jobs import IdempotencyKey, JobId, accepted, states_of
from pixloom_gateway.rest.replies import PROBLEMS, problems, reply
from pixloom_gateway.upstream import methods

if TYPE_CHECKING:
    from pixloom_gateway.rest.context import RouteContext

__all__ = ["verb_routes"]


_MISSING = "there is no job 0198c5…; `pixloom list` shows those there are"
_CONFLICT = "job 0198c5… is COMPLETED: it is not possible to {} it now"
_PARAMS = "/params/width: 8 is less than the minimum of 16"


class Cancelled(BaseModel):
    """How many jobs a call cancelled."""

    cancelled: int


def verb_routes(context: RouteContext) -> APIRouter:
    """Return the routes `/jobs/{id}:verb` and `/jobs:cancelAll`."""
    routes = APIRouter(tags=["job control"], responses=PROBLEMS)
    scheduler = context.scheduler

    @routes.post(
        "/jobs:cancelAll",
        response_model=Cancelled,
        responses=problems(INVALID_ARGUMENT="COMPLETED jobs have ended; name states of PENDING, RUNNING, PAUSED"),
        openapi_extra=document_body(
            CancelAllBody, required=False, example={"filter": {"workflow": "photo-catalog", "tags": {"team": "vision"}}}
        ),
    )
    async def cancel_all_jobs(request: Request) -> Response:
        """Cancel every unfinished job that matches."""
        body = await read_body(request, CancelAllBody)
        chosen = body.filter
        answer = await scheduler.call(
            methods.CANCEL_ALL_JOBS,
            job_pb2.CancelAllJobsRequest(
                workflow=chosen.workflow,
                tags=chosen.tags,
                states=states_of(chosen.states, pointer="/filter/states"),
                now=body.now,
            ),
        )
        return reply(Cancelled(cancelled=answer.cancelled))

    @routes.post(
        "/jobs/{id}:start",
        response_model=Job,
        responses=problems(NOT_FOUND=_MISSING, STATE_CONFLICT=_CONFLICT.format("start"), INVALID_PARAMS=_PARAMS),
        openapi_extra=document_body(TriggerBody, required=False, example={"params": {"width": 256}}),
    )
    async def start_job(request: Request, job_id: JobId, key: IdempotencyKey = None) -> Response:
        """Start a job that was created with `start: false`; params that do not fit leave it PENDING."""
        body = await read_body(request, TriggerBody)
        answer = await scheduler.call(
            methods.START_JOB,
            job_pb2.StartJobRequest(id=job_id, params_json=json_bytes(body.params), request_id=key or ""),
        )
        return reply(Job.from_proto(answer.job))

    @routes.post(
        "/jobs/{id}:pause",
        response_model=Job,
        responses=problems(NOT_FOUND=_MISSING, STATE_CONFLICT=_CONFLICT.format("pause")),
        openapi_extra=document_body(PauseBody, required=False, example={"now": True}),
    )
    async def pause_job(request: Request, job_id: JobId) -> Response:
        """Stop dispatching; running tasks finish, or are taken back with `now`."""
        body = await read_body(request, PauseBody)
        answer = await scheduler.call(methods.PAUSE_JOB, job_pb2.PauseJobRequest(id=job_id, now=body.now))
        return reply(Job.from_proto(answer.job))

    @routes.post(
        "/jobs/{id}:resume",
        response_model=Job,
        responses=problems(NOT_FOUND=_MISSING, STATE_CONFLICT=_CONFLICT.format("resume")),
    )
    async def resume_job(job_id: JobId) -> Response:
        """Dispatch again after a pause."""
        answer = await scheduler.call(methods.RESUME_JOB, job_pb2.ResumeJobRequest(id=job_id))
        return reply(Job.from_proto(answer.job))

    @routes.post(
        "/jobs/{id}:cancel",
        response_model=Job,
        responses=problems(NOT_FOUND=_MISSING, STATE_CONFLICT=_CONFLICT.format("cancel")),
        openapi_extra=document_body(CancelBody, required=False, example={"now": True, "reason": "wrong folder"}),
    )
    async def cancel_job(request: Request, job_id: JobId) -> Response:
        """End a job: nothing new starts, and it has ended when what runs has, or at once with `now`."""
        body = await read_body(request, CancelBody)
        answer = await scheduler.call(
            methods.CANCEL_JOB, job_pb2.CancelJobRequest(id=job_id, now=body.now, reason=body.reason)
        )
        return reply(Job.from_proto(answer.job))

    @routes.post(
        "/jobs/{id}:recover",
        response_model=Job,
        responses=problems(NOT_FOUND=_MISSING, STATE_CONFLICT=_CONFLICT.format("recover")),
        openapi_extra=document_body(RecoverBody, required=False, example={"from": "thumbs"}),
    )
    async def recover_job(request: Request, job_id: JobId, key: IdempotencyKey = None) -> Response:
        """Open the next generation of a job that failed or was cancelled."""
        body = await read_body(request, RecoverBody)
        answer = await scheduler.call(
            methods.RECOVER_JOB,
            job_pb2.RecoverJobRequest(id=job_id, from_node=body.from_node, request_id=key or context.new_id()),
            repeatable=True,
        )
        return reply(Job.from_proto(answer.job))

    @routes.post(
        "/jobs/{id}:retry",
        response_model=Job,
        responses=problems(NOT_FOUND=_MISSING, STATE_CONFLICT=_CONFLICT.format("retry")),
        openapi_extra=document_body(RetryBody, required=False, example={"reasons": ["TRUNCATED"]}),
    )
    async def retry_job(request: Request, job_id: JobId, key: IdempotencyKey = None) -> Response:
        """Open the next generation with failed nodes and rejected items only."""
        body = await read_body(request, RetryBody)
        answer = await scheduler.call(
            methods.RETRY_JOB,
            job_pb2.RetryJobRequest(
                id=job_id, nodes=body.nodes, reasons=body.reasons, request_id=key or context.new_id()
            ),
            repeatable=True,
        )
        return reply(Job.from_proto(answer.job))

    @routes.post(
        "/jobs/{id}:rerun",
        status_code=201,
        response_model=Job,
        responses=problems(NOT_FOUND=_MISSING, STATE_CONFLICT=_CONFLICT.format("rerun"), INVALID_PARAMS=_PARAMS),
        openapi_extra=document_body(RerunBody, required=False, example={"from": "thumbs", "params": {"width": 512}}),
    )
    async def rerun_job(request: Request, job_id: JobId, key: IdempotencyKey = None) -> Response:
        """Create a new job from an old one, with other params or from a node on."""
        body = await read_body(request, RerunBody)
        answer = await scheduler.call(
            methods.RERUN_JOB,
            job_pb2.RerunJobRequest(
                id=job_id,
                from_node=body.from_node,
                params_json=json_bytes(body.params),
                request_id=key or context.new_id(),
            ),
            repeatable=True,
        )
        return accepted(answer.job)

    return routes
