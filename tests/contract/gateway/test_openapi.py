from __future__ import annotations

from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV30SpecValidator, OpenAPIV31SpecValidator

# What interfaces.md promises and is served so far.
V1 = {
    "/workflows": {"get", "post"},
    "/workflows/{name}": {"get", "put", "delete"},
    "/workflows/{name}/versions": {"get"},
    "/workflows/{name}/versions/{n}": {"get"},
    "/workflows:validate": {"post"},
    "/workflows:plan": {"post"},
    "/jobs": {"get", "post"},
    "/jobs/{id}": {"get", "patch", "delete"},
    **{
        f"/jobs/{{id}}:{verb}": {"post"} for verb in ("start", "pause", "resume", "cancel", "recover", "retry", "rerun")
    },
    "/jobs:cancelAll": {"post"},
    "/jobs/{id}/results": {"get"},
    "/jobs/{id}/nodes": {"get"},
    "/jobs/{id}/nodes/{node}": {"get"},
    "/jobs/{id}/nodes/{node}/items": {"get"},
    "/jobs/{id}/nodes/{node}/attempts": {"get"},
    "/attempts/{id}": {"get"},
    "/jobs/{id}/events": {"get"},
    "/artifacts/{sha256}": {"get", "head"},
    "/artifacts": {"post"},
    "/ops": {"get"},
    "/ops/{name}": {"get"},
    "/executors": {"get"},
    "/executors/{id}:drain": {"post"},
}
ROOT = {
    "/healthz": {"get"},
    "/readyz": {"get"},
    "/metrics": {"get"},
    "/api/workflow": {"post"},
    "/api/workflow/trigger/{execution_id}": {"post"},
    "/api/workflows": {"get", "post"},
    "/api/workflows/{instance_id}": {"get"},
    "/api/workflows/{instance_id}/results": {"get"},
}
JOB_FIELDS = [
    "id",
    "name",
    "workflow",
    "version",
    "sha256",
    "generation",
    "state",
    "reason",
    "progress",
    "current_step",
    "total_steps",
    "tasks",
    "items",
    "params",
    "tags",
    "metadata",
    "priority",
    "project",
    "external_id",
    "recovery_attempts",
    "max_recovery_attempts",
    "error",
    "create_time",
    "update_time",
    "start_time",
    "end_time",
    "last_checkpoint_time",
    "estimated_end_time",
    "estimated_duration_s",
    "actual_duration_s",
    "trace_id",
    "outputs",
]
NODE_FIELDS = [
    "id",
    "op",
    "step_index",
    "state",
    "waiting_reason",
    "dependencies",
    "retry_count",
    "max_attempts",
    "result",
    "error",
    "items",
    "tasks",
    "estimated_duration_s",
    "actual_duration_s",
    "start_time",
    "end_time",
]
ATTEMPT_FIELDS = [
    "id",
    "node",
    "task",
    "number",
    "generation",
    "executor_id",
    "outcome",
    "reason",
    "start_time",
    "end_time",
]
PROBLEM_FIELDS = ["type", "title", "status", "detail", "instance", "reason", "errors", "trace_id", "retryable"]


@pytest.fixture
async def document(http: Any) -> Any:
    return (await http.get("/api/openapi.json")).json()


async def test_every_promised_path_and_method_is_in_the_document(document: Any) -> None:
    expected = {f"/api/v1{path}": methods for path, methods in V1.items()} | ROOT
    assert {path: set(operations) for path, operations in document["paths"].items()} == expected


async def test_document_is_valid_openapi_31(document: Any) -> None:
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()


async def test_document_of_the_docs_page_is_valid_openapi_30(http: Any) -> None:
    older = (await http.get("/api/docs/openapi.json")).json()
    assert older["openapi"].startswith("3.0")
    OpenAPIV30SpecValidator(older).validate()


@pytest.mark.parametrize(
    ("schema", "fields"),
    [("Job", JOB_FIELDS), ("Node", NODE_FIELDS), ("Attempt", ATTEMPT_FIELDS), ("Problem", PROBLEM_FIELDS)],
)
async def test_resources_have_the_promised_fields(document: Any, schema: Any, fields: Any) -> None:
    assert set(fields) - set(document["components"]["schemas"][schema]["properties"]) == set()


async def test_every_operation_names_problem_documents(document: Any) -> None:
    for path, operations in document["paths"].items():
        if path in {"/healthz", "/readyz", "/metrics"}:
            continue
        for operation in operations.values():
            assert "application/problem+json" in operation["responses"]["default"]["content"]


async def test_operation_ids_are_unique(document: Any) -> None:
    ids = [operation["operationId"] for operations in document["paths"].values() for operation in operations.values()]
    assert len(ids) == len(set(ids))


async def test_docs_page_fetches_nothing_from_elsewhere(http: Any) -> None:
    page = await http.get("/api/docs")
    assert page.status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    for name in ("swagger-ui-bundle.js", "swagger-ui.css", "swagger-ui-standalone-preset.js", "start.js"):
        assert f"/api/docs/{name}" in page.text
        assert (await http.get(f"/api/docs/{name}")).status_code == 200
    assert (await http.get("/api/docs/swagger-ui.js.map")).status_code == 404
