"""Calls about workflows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import uuid4

import orjson

from pixloom.errors import InvalidError
from pixloom.resources import Page, Plan, Validation, Workflow
from pixloom.sdk.call import Call
from pixloom.v1 import workflow_pb2 as pb

__all__ = [
    "Applied",
    "Document",
    "apply_workflow",
    "create_workflow",
    "delete_workflow",
    "document_bytes",
    "get_workflow",
    "list_workflow_versions",
    "list_workflows",
    "plan_workflow",
    "update_workflow",
    "validate_workflow",
]

Document: TypeAlias = Mapping[str, Any] | bytes | str
"""A workflow document: as a mapping, or as JSON."""

_SERVICE = "WorkflowService"


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of an update.

    Attributes:
        workflow: The workflow at its newest version.
        changed: Whether a new version was made.
    """

    workflow: Workflow
    changed: bool


def document_bytes(document: Document) -> bytes:
    """Return a document as JSON.

    Raises:
        InvalidError: If it holds something that JSON cannot say.
    """
    if isinstance(document, str):
        return document.encode()
    if isinstance(document, bytes):
        return document
    return json_bytes(document, what="The workflow document")


def json_bytes(value: Mapping[str, Any] | None, *, what: str) -> bytes:
    """Return a JSON object; empty for None.

    Raises:
        InvalidError: If it holds something that JSON cannot say.
    """
    if value is None:
        return b""
    try:
        return orjson.dumps(dict(value))
    except TypeError as error:
        raise InvalidError(f"{what} cannot be written as JSON: {error}. Use plain values only.") from error


def create_workflow(document: Document, *, request_id: str | None = None) -> Call[Workflow]:
    """Create a workflow with version 1.

    Args:
        document: The workflow document.
        request_id: Unique id of the call; a repeated one returns the first answer. A new one if not given.
    """
    return Call(
        _SERVICE,
        "CreateWorkflow",
        pb.CreateWorkflowRequest(spec_json=document_bytes(document), request_id=request_id or str(uuid4())),
        pb.CreateWorkflowResponse,
        lambda response: Workflow.from_proto(response.workflow),
    )


def get_workflow(name: str, version: int = 0) -> Call[Workflow]:
    """Return a workflow with its document, at its newest version (0) or a given one."""
    return Call(
        _SERVICE,
        "GetWorkflow",
        pb.GetWorkflowRequest(name=name, version=version),
        pb.GetWorkflowResponse,
        lambda response: Workflow.from_proto(response.workflow),
    )


def list_workflows(*, page_size: int = 0, page_token: str = "") -> Call[Page[Workflow]]:
    """List workflows by name, without their documents; `page_size` 0 means 100."""
    return Call(
        _SERVICE,
        "ListWorkflows",
        pb.ListWorkflowsRequest(page_size=page_size, page_token=page_token),
        pb.ListWorkflowsResponse,
        lambda response: Page(
            items=[Workflow.from_proto(entry) for entry in response.workflows],
            next_page_token=response.next_page_token,
        ),
    )


def list_workflow_versions(name: str, *, page_size: int = 0, page_token: str = "") -> Call[Page[Workflow]]:
    """List the versions of a workflow, newest first, without documents; `page_size` 0 means 100."""
    return Call(
        _SERVICE,
        "ListWorkflowVersions",
        pb.ListWorkflowVersionsRequest(name=name, page_size=page_size, page_token=page_token),
        pb.ListWorkflowVersionsResponse,
        lambda response: Page(
            items=[Workflow.from_proto(entry) for entry in response.versions],
            next_page_token=response.next_page_token,
        ),
    )


def update_workflow(name: str, document: Document, *, if_match: str = "", allow_missing: bool = False) -> Call[Applied]:
    """Give a workflow new content; unchanged content keeps the version.

    Args:
        name: Name of the workflow; the document must carry the same.
        document: The workflow document.
        if_match: Only if the newest version has this sha256; empty means always.
        allow_missing: Create the workflow if it is missing.
    """
    return Call(
        _SERVICE,
        "UpdateWorkflow",
        pb.UpdateWorkflowRequest(
            name=name, spec_json=document_bytes(document), if_match=if_match, allow_missing=allow_missing
        ),
        pb.UpdateWorkflowResponse,
        lambda response: Applied(Workflow.from_proto(response.workflow), response.changed),
    )


def apply_workflow(document: Document) -> Call[Applied]:
    """Create the workflow that a document names, or give it the document's content.

    Raises:
        InvalidError: If the document is not JSON or has no name.
    """
    data = document_bytes(document)
    try:
        content = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidError(f"The workflow document is not JSON: {error}.", reason="INVALID_WORKFLOW") from error
    name = content.get("name") if isinstance(content, dict) else None
    if not isinstance(name, str) or not name:
        raise InvalidError('The workflow document has no name: give it one, "name": "…".', reason="INVALID_WORKFLOW")
    return update_workflow(name, data, allow_missing=True)


def delete_workflow(name: str, *, if_match: str = "") -> Call[None]:
    """Delete a workflow; its versions stay readable through the jobs that used them."""
    return Call(
        _SERVICE,
        "DeleteWorkflow",
        pb.DeleteWorkflowRequest(name=name, if_match=if_match),
        pb.DeleteWorkflowResponse,
        lambda _: None,
    )


def validate_workflow(document: Document) -> Call[Validation]:
    """Check a document without storing it; what is wrong is in the result."""
    return Call(
        _SERVICE,
        "ValidateWorkflow",
        pb.ValidateWorkflowRequest(spec_json=document_bytes(document)),
        pb.ValidateWorkflowResponse,
        Validation.from_proto,
    )


def plan_workflow(
    workflow: str | None = None,
    *,
    spec: Document | None = None,
    version: int = 0,
    params: Mapping[str, Any] | None = None,
    source_items: Mapping[str, int] | None = None,
) -> Call[Plan]:
    """Show stages, counts and estimated time of a run without running it.

    Args:
        workflow: Name of a stored workflow, or
        spec: a document.
        version: Version of a stored workflow; 0 means the newest.
        params: Params of the run.
        source_items: Items that sources give as far as they have been counted, by node.

    Raises:
        InvalidError: If not exactly one of `workflow` and `spec` is given.
    """
    if (workflow is None) == (spec is None):
        raise InvalidError("Give either the name of a stored workflow or a document as `spec`.")
    request = pb.PlanWorkflowRequest(
        version=version, params_json=json_bytes(params, what="The params"), source_items=source_items
    )
    if workflow is not None:
        request.name = workflow
    if spec is not None:
        request.spec_json = document_bytes(spec)
    return Call(_SERVICE, "PlanWorkflow", request, pb.PlanWorkflowResponse, Plan.from_proto)
