"""The two-step flow: submit a document, then trigger it. The same jobs under other paths."""

# ruff: noqa: TC001, TC002 - FastAPI reads annotations at run time, and `{id}` is the alias in `JobId`

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel
from starlette.responses import Response

from pixloom.resources import Job, Node, Page, Results
from pixloom.v1 import job_pb2
from pixloom_gateway.rest.bodies import TriggerBody, document_body, json_bytes, read_body, read_document
from pixloom_gateway.rest.jobs import IdempotencyKey
from pixloom_gateway.rest.replies import PROBLEMS, page_of, problems, reply
from pixloom_gateway.rest.results import results_of
from pixloom_gateway.rest.workflows import PageSize
from pixloom_gateway.upstream import methods

if TYPE_CHECKING:
    from pixloom_gateway.rest.context import RouteContext

__all__ = ["two_step_routes"]

InstanceId = Annotated[str, Path(alias="instance_id", max_length=256, description="Id of the instance.")]


class Execution(BaseModel):
    """A document that was submitted."""

    execution_id: str


class Triggered(BaseModel):
    """A document that was started."""

    instance_id: str


class InstanceSummary(Job):
    """A job under the name that this flow gives it."""

    instance_id: str


class Instance(InstanceSummary):
    """A job with its nodes."""

    nodes: list[Node]


def two_step_routes(context: RouteContext) -> APIRouter:
    """Return the routes of the two-step flow."""
    routes = APIRouter(prefix="/api", tags=["two-step flow"], responses=PROBLEMS)
    scheduler = context.scheduler

    @routes.post("/workflow", status_code=201, response_model=Execution, openapi_extra=document_body())
    @routes.post("/workflows", status_code=201, response_model=Execution, openapi_extra=document_body())
    async def submit_workflow(request: Request, key: IdempotencyKey = None) -> Response:
        """Submit a document; it waits until it is triggered."""
        answer = await scheduler.call(
            methods.CREATE_JOB,
            job_pb2.CreateJobRequest(
                spec_json=await read_document(request), start=False, request_id=key or context.new_id()
            ),
            repeatable=True,
        )
        headers = {"Location": f"/api/workflows/{answer.job.id}"}
        return reply(Execution(execution_id=answer.job.id), status=201, headers=headers)

    @routes.post(
        "/workflow/trigger/{execution_id}",
        status_code=202,
        response_model=Triggered,
        responses=problems(
            NOT_FOUND="there is no job 0198c5…; `pixloom list` shows those there are",
            STATE_CONFLICT="job 0198c5… is COMPLETED: it is not possible to start it now",
            INVALID_PARAMS="/params: the workflow thumbs needs the param `source`",
        ),
        openapi_extra=document_body(TriggerBody, required=False, example={"params": {"source": "photos"}}),
    )
    async def trigger_workflow(
        request: Request,
        execution_id: Annotated[str, Path(max_length=256, description="From the submit.")],
        key: IdempotencyKey = None,
    ) -> Response:
        """Start what was submitted, with the params it was submitted with or these; they may be missing until then."""
        body = await read_body(request, TriggerBody)
        answer = await scheduler.call(
            methods.START_JOB,
            job_pb2.StartJobRequest(id=execution_id, params_json=json_bytes(body.params), request_id=key or ""),
        )
        headers = {"Location": f"/api/workflows/{answer.job.id}"}
        return reply(Triggered(instance_id=answer.job.id), status=202, headers=headers)

    @routes.get("/workflows", response_model=Page[InstanceSummary])
    async def list_instances(page_size: PageSize = 100, page_token: str = "") -> Response:
        """List instances, newest first."""
        answer = await scheduler.call(
            methods.LIST_JOBS, job_pb2.ListJobsRequest(page_size=page_size, page_token=page_token)
        )
        return page_of([_summary(entry) for entry in answer.jobs], answer.next_page_token)

    @routes.get("/workflows/{instance_id}", response_model=Instance)
    async def get_instance(instance_id: InstanceId) -> Response:
        """Return an instance with its nodes."""
        found = await scheduler.call(methods.GET_JOB, job_pb2.GetJobRequest(id=instance_id))
        nodes = await scheduler.call(methods.LIST_NODES, job_pb2.ListNodesRequest(id=instance_id))
        values = _summary(found.job).model_dump()
        return reply(Instance(**values, nodes=[Node.from_proto(entry) for entry in nodes.nodes]))

    @routes.get("/workflows/{instance_id}/results", response_model=Results)
    async def get_instance_results(instance_id: InstanceId) -> Response:
        """Return the results of an instance; `complete` is false while it runs."""
        return reply(await results_of(context, instance_id))

    return routes


def _summary(job: job_pb2.Job) -> InstanceSummary:
    return InstanceSummary(**Job.from_proto(job).model_dump(), instance_id=job.id)
