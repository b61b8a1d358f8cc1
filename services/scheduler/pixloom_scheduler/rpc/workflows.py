"""`WorkflowService`: definitions and their versions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import orjson

from pixloom.errors import InvalidError, NotFoundError, Problem
from pixloom.graph.document import parse_json
from pixloom.graph.summaries import StageSummary, expected_duration_s, stage_summaries
from pixloom.graph.validation import ValidationResult, validate
from pixloom.v1 import workflow_pb2, workflow_pb2_grpc
from pixloom_scheduler.journal.definitions import Definition, NewDefinition
from pixloom_scheduler.planning import checked
from pixloom_scheduler.rpc.requests import (
    PROJECT,
    page_size,
    read_json,
    read_page_number,
    read_page_token,
    write_page_token,
)

if TYPE_CHECKING:
    import grpc

    from pixloom_scheduler.catalogue import OpCatalogue
    from pixloom_scheduler.executors import ExecutorRegistry
    from pixloom_scheduler.journal.definitions import Definitions
    from pixloom_scheduler.planning import Planning

    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["Workflows", "definition_of"]

_MAX_VERSION: Final = 2**31 - 1


def definition_of(result: ValidationResult) -> NewDefinition:
    """Return a checked document as it is stored.

    Raises:
        InvalidError: With everything that is wrong.
    """
    spec = checked(result)
    return NewDefinition(
        name=spec.name,
        sha256=result.sha256 or "",
        spec=orjson.dumps(result.document),
        description=spec.description,
        tags=spec.tags,
        notes=tuple(result.notes),
    )


def _view(definition: Definition, *, with_spec: bool = True) -> workflow_pb2.Workflow:
    workflow = workflow_pb2.Workflow(
        name=definition.name,
        version=definition.version,
        sha256=definition.sha256,
        spec_json=definition.spec if with_spec else b"",
        description=definition.description,
        tags=definition.tags,
        project=definition.project,
        notes=definition.notes,
    )
    workflow.create_time.FromDatetime(definition.first_time)
    workflow.update_time.FromDatetime(definition.create_time)
    return workflow


class Workflows(workflow_pb2_grpc.WorkflowServiceServicer):
    """Serves workflow definitions."""

    def __init__(
        self,
        *,
        definitions: Definitions,
        catalogue: OpCatalogue,
        planning: Planning,
        executors: ExecutorRegistry,
    ) -> None:
        self._definitions = definitions
        self._catalogue = catalogue
        self._planning = planning
        self._executors = executors

    async def _check(self, spec_json: bytes) -> ValidationResult:
        def work() -> ValidationResult:
            return validate(parse_json(spec_json), self._catalogue.current)

        return await asyncio.to_thread(work)

    async def CreateWorkflow(
        self, request: workflow_pb2.CreateWorkflowRequest, context: Context
    ) -> workflow_pb2.CreateWorkflowResponse:
        """Create a workflow; the same content again returns what is there."""
        del context
        result = await self._check(request.spec_json)
        definition, _ = await self._definitions.create(PROJECT, definition_of(result))
        return workflow_pb2.CreateWorkflowResponse(workflow=_view(definition))

    async def GetWorkflow(
        self, request: workflow_pb2.GetWorkflowRequest, context: Context
    ) -> workflow_pb2.GetWorkflowResponse:
        """Return a workflow."""
        del context
        definition = await self._definitions.get(PROJECT, request.name, request.version)
        return workflow_pb2.GetWorkflowResponse(workflow=_view(definition))

    async def ListWorkflows(
        self, request: workflow_pb2.ListWorkflowsRequest, context: Context
    ) -> workflow_pb2.ListWorkflowsResponse:
        """List workflows by name."""
        del context
        size = page_size(request.page_size)
        found = await self._definitions.newest(PROJECT, after=read_page_token(request.page_token), most=size + 1)
        token = write_page_token(found[size - 1].name) if len(found) > size else ""
        views = [_view(definition, with_spec=False) for definition in found[:size]]
        return workflow_pb2.ListWorkflowsResponse(workflows=views, next_page_token=token)

    async def UpdateWorkflow(
        self, request: workflow_pb2.UpdateWorkflowRequest, context: Context
    ) -> workflow_pb2.UpdateWorkflowResponse:
        """Give a workflow new content."""
        del context
        result = await self._check(request.spec_json)
        new = definition_of(result)
        if new.name != request.name:
            detail = f"the document is named {new.name}, but {request.name} is to be updated"
            raise InvalidError(detail, reason="INVALID_WORKFLOW", problems=(Problem("/name", detail, "NAME_MISMATCH"),))
        definition, changed = await self._definitions.update(
            PROJECT, new, if_match=request.if_match, allow_missing=request.allow_missing
        )
        return workflow_pb2.UpdateWorkflowResponse(workflow=_view(definition), changed=changed)

    async def DeleteWorkflow(
        self, request: workflow_pb2.DeleteWorkflowRequest, context: Context
    ) -> workflow_pb2.DeleteWorkflowResponse:
        """Delete a workflow."""
        del context
        await self._definitions.delete(PROJECT, request.name, if_match=request.if_match)
        return workflow_pb2.DeleteWorkflowResponse()

    async def ValidateWorkflow(
        self, request: workflow_pb2.ValidateWorkflowRequest, context: Context
    ) -> workflow_pb2.ValidateWorkflowResponse:
        """Check a document."""
        del context
        try:
            result = await self._check(request.spec_json)
        except InvalidError as error:
            problems = error.problems or (Problem("", error.message, error.reason),)
            return workflow_pb2.ValidateWorkflowResponse(problems=[_problem(problem) for problem in problems])
        return workflow_pb2.ValidateWorkflowResponse(
            problems=[_problem(problem) for problem in result.problems],
            sha256=result.sha256 or "",
            notes=result.notes,
        )

    async def PlanWorkflow(
        self, request: workflow_pb2.PlanWorkflowRequest, context: Context
    ) -> workflow_pb2.PlanWorkflowResponse:
        """Show what a run would do."""
        del context
        match request.WhichOneof("definition"):
            case "name":
                definition = await self._definitions.get(PROJECT, request.name, request.version)
                document = orjson.loads(definition.spec)
            case "spec_json":
                document = read_json(request.spec_json, "spec")
            case _:
                raise InvalidError("give either `workflow` (a name) or `spec` (a document)")
        planned = await self._planning.of(document, read_json(request.params_json, "params"))
        response = workflow_pb2.PlanWorkflowResponse()
        summaries = stage_summaries(planned.plan, self._catalogue.current, source_items=dict(request.source_items))
        response.stages.extend(map(_stage, summaries))
        expected_s = expected_duration_s(planned.plan, summaries, self._executors.slots)
        if expected_s is not None:
            response.estimated_duration.FromMicroseconds(round(expected_s * 1e6))
        return response

    async def ListWorkflowVersions(
        self, request: workflow_pb2.ListWorkflowVersionsRequest, context: Context
    ) -> workflow_pb2.ListWorkflowVersionsResponse:
        """List the versions of a workflow, newest first."""
        del context
        size = page_size(request.page_size)
        before = min(read_page_number(request.page_token), _MAX_VERSION)
        found = await self._definitions.versions(PROJECT, request.name, before=before, most=size + 1)
        if not found and not before:
            raise NotFoundError(f"there is no workflow {request.name}; `pixloom workflows list` shows those there are")
        token = write_page_token(str(found[size - 1].version)) if len(found) > size else ""
        views = [_view(definition, with_spec=False) for definition in found[:size]]
        return workflow_pb2.ListWorkflowVersionsResponse(versions=views, next_page_token=token)


def _problem(problem: Problem) -> workflow_pb2.Problem:
    return workflow_pb2.Problem(pointer=problem.pointer, detail=problem.detail, reason=problem.reason)


def _stage(summary: StageSummary) -> workflow_pb2.StagePlan:
    stage = workflow_pb2.StagePlan(
        index=summary.index,
        nodes=summary.nodes,
        pool=summary.pool,
        inputs=summary.inputs,
        shard_size=summary.shard_size,
        items=summary.items,
        tasks=summary.tasks,
        boundary=summary.boundary,
        estimated=summary.estimated,
    )
    stage.cost.FromMicroseconds(round(summary.cost_s * 1e6))
    return stage
