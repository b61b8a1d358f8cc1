"""Routes of workflows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.responses import Response

from pixloom.errors import InvalidError, NotFoundError
from pixloom.resources import Page, Plan, Validation, Workflow
from pixloom.v1 import workflow_pb2
from pixloom_gateway.rest.bodies import PlanBody, document_body, json_bytes, read_body, read_document
from pixloom_gateway.rest.etags import if_match, is_listed
from pixloom_gateway.rest.replies import JSON, PROBLEMS, page_of, quoted, reply
from pixloom_gateway.upstream import methods

if TYPE_CHECKING:
    from pixloom_gateway.rest.context import RouteContext

__all__ = ["PageSize", "workflow_routes", "workflow_verbs"]

PageSize = Annotated[int, Query(ge=1, le=1000, description="Most entries to return.")]
Name = Annotated[str, Path(max_length=128, description="Name of the workflow.")]
Condition = Annotated[str | None, Header(alias="If-Match", description="Only if this is its ETag.")]


def workflow_routes(context: RouteContext) -> APIRouter:
    """Return the routes below `/workflows`."""
    routes = APIRouter(prefix="/workflows", tags=["workflows"], responses=PROBLEMS)
    scheduler = context.scheduler

    @routes.post("", status_code=201, response_model=Workflow, openapi_extra=document_body())
    async def create_workflow(
        request: Request, idempotency_key: Annotated[str | None, Header(max_length=255)] = None
    ) -> Response:
        """Store a document as a new workflow."""
        answer = await scheduler.call(
            methods.CREATE_WORKFLOW,
            workflow_pb2.CreateWorkflowRequest(
                spec_json=await read_document(request), request_id=idempotency_key or context.new_id()
            ),
            repeatable=True,
        )
        return _reply(answer.workflow, status=201, location=True)

    @routes.get("", response_model=Page[Workflow])
    async def list_workflows(page_size: PageSize = 100, page_token: str = "") -> Response:
        """List workflows by name, without their documents."""
        answer = await scheduler.call(
            methods.LIST_WORKFLOWS, workflow_pb2.ListWorkflowsRequest(page_size=page_size, page_token=page_token)
        )
        return page_of([Workflow.from_proto(entry) for entry in answer.workflows], answer.next_page_token)

    @routes.get("/{name}", response_model=Workflow)
    async def get_workflow(name: Name, if_none_match: Annotated[str | None, Header()] = None) -> Response:
        """Return a workflow at its newest version."""
        answer = await scheduler.call(methods.GET_WORKFLOW, workflow_pb2.GetWorkflowRequest(name=name))
        if is_listed(if_none_match, answer.workflow.sha256):
            return Response(status_code=304, headers={"ETag": quoted(answer.workflow.sha256)})
        return _reply(answer.workflow)

    @routes.put("/{name}", response_model=Workflow, openapi_extra=document_body())
    async def put_workflow(request: Request, name: Name, condition: Condition = None) -> Response:
        """Give a workflow new content; unchanged content keeps the version. Creates it if it is missing."""
        answer = await scheduler.call(
            methods.UPDATE_WORKFLOW,
            workflow_pb2.UpdateWorkflowRequest(
                name=name,
                spec_json=await read_document(request),
                if_match=if_match(condition),
                allow_missing=condition is None,
            ),
        )
        created = answer.changed and answer.workflow.version == 1
        return _reply(answer.workflow, status=201 if created else 200, location=created)

    @routes.delete("/{name}", status_code=204)
    async def delete_workflow(name: Name, condition: Condition = None) -> Response:
        """Delete a workflow; jobs that used it keep their documents."""
        await scheduler.call(
            methods.DELETE_WORKFLOW, workflow_pb2.DeleteWorkflowRequest(name=name, if_match=if_match(condition))
        )
        return Response(status_code=204)

    @routes.get("/{name}/versions", response_model=Page[Workflow])
    async def list_versions(name: Name, page_size: PageSize = 100, page_token: str = "") -> Response:
        """List the versions of a workflow, newest first, without their documents."""
        answer = await scheduler.call(
            methods.LIST_WORKFLOW_VERSIONS,
            workflow_pb2.ListWorkflowVersionsRequest(name=name, page_size=page_size, page_token=page_token),
        )
        return page_of([Workflow.from_proto(entry) for entry in answer.versions], answer.next_page_token)

    @routes.get("/{name}/versions/{n}", response_model=Workflow)
    async def get_version(name: Name, n: Annotated[int, Path(ge=1, le=2**32 - 1)]) -> Response:
        """Return a workflow at a version."""
        answer = await scheduler.call(methods.GET_WORKFLOW, workflow_pb2.GetWorkflowRequest(name=name, version=n))
        if answer.workflow.version != n:
            raise NotFoundError(f"Workflow {name} has no version {n}.")
        return _reply(answer.workflow)

    return routes


def workflow_verbs(context: RouteContext) -> APIRouter:
    """Return the routes that check and plan documents."""
    routes = APIRouter(tags=["workflows"], responses=PROBLEMS)
    scheduler = context.scheduler

    @routes.post("/workflows:validate", response_model=Validation, openapi_extra=document_body())
    async def validate_workflow(request: Request) -> Response:
        """Check a document without storing it; all problems at once."""
        answer = await scheduler.call(
            methods.VALIDATE_WORKFLOW, workflow_pb2.ValidateWorkflowRequest(spec_json=await read_document(request))
        )
        return reply(Validation.from_proto(answer))

    @routes.post("/workflows:plan", response_model=Plan, openapi_extra=document_body(PlanBody))
    async def plan_workflow(request: Request) -> Response:
        """Show stages, counts and estimated time of a run without running it."""
        body = await read_body(request, PlanBody)
        message = workflow_pb2.PlanWorkflowRequest(version=body.version, params_json=json_bytes(body.params))
        if (body.workflow is None) == (body.spec is None):
            raise InvalidError("Say what to plan: either `workflow`, the name of a stored one, or `spec`, a document.")
        if body.workflow is not None:
            message.name = body.workflow
        else:
            message.spec_json = json_bytes(body.spec)
        return reply(Plan.from_proto(await scheduler.call(methods.PLAN_WORKFLOW, message)))

    return routes


def _reply(workflow: workflow_pb2.Workflow, *, status: int = 200, location: bool = False) -> Response:
    """Return a workflow with its document, whose bytes are put in as they are."""
    content = Workflow.from_proto(workflow, with_spec=False).model_dump_json(exclude={"spec"}).encode()
    spec = workflow.spec_json or b"null"
    headers = {"ETag": quoted(workflow.sha256)}
    if location:
        headers["Location"] = f"/api/v1/workflows/{workflow.name}"
    return Response(content[:-1] + b',"spec":' + spec + b"}", status_code=status, headers=headers, media_type=JSON)
