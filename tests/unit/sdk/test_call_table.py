from __future__ import annotations

import inspect
from typing import Any

import pytest
from google.protobuf import descriptor_pool

from pixloom import AsyncClient, Client
from pixloom.errors import InvalidError
from pixloom.sdk import catalogue_calls, job_calls, job_verbs, workflow_calls
from pixloom.sdk.api import Api
from pixloom.sdk.call import Call, Pages, Unary

_SERVICES = ("WorkflowService", "JobService", "OpService", "ExecutorAdminService", "ArtifactService")
# The scheduler alone serves this one; the streams are methods of the clients themselves.
_ELSEWHERE = {"ListManifests", "WatchJob", "DownloadArtifact", "UploadArtifact"}
_EXAMPLES: list[Call[Any]] = [
    workflow_calls.create_workflow({"name": "w"}),
    workflow_calls.get_workflow("w"),
    workflow_calls.list_workflows(),
    workflow_calls.update_workflow("w", {"name": "w"}),
    workflow_calls.delete_workflow("w"),
    workflow_calls.validate_workflow({}),
    workflow_calls.plan_workflow("w"),
    workflow_calls.list_workflow_versions("w"),
    job_calls.create_job("w"),
    job_calls.get_job("j"),
    job_calls.list_jobs(),
    job_calls.update_job("j", priority=1),
    job_calls.delete_job("j"),
    job_calls.get_results("j"),
    job_calls.list_nodes("j"),
    job_calls.list_items("j", "n"),
    job_calls.list_attempts("j"),
    job_verbs.start_job("j"),
    job_verbs.pause_job("j"),
    job_verbs.resume_job("j"),
    job_verbs.cancel_job("j"),
    job_verbs.recover_job("j"),
    job_verbs.retry_job("j"),
    job_verbs.rerun_job("j"),
    job_verbs.cancel_all_jobs(),
    catalogue_calls.get_op("o"),
    catalogue_calls.list_ops(),
    catalogue_calls.list_executors(),
    catalogue_calls.drain_executor("e"),
    catalogue_calls.get_artifact("0" * 64),
]


def _methods(service: str) -> Any:
    return descriptor_pool.Default().FindServiceByName(f"pixloom.v1.{service}").methods_by_name


@pytest.mark.parametrize("call", _EXAMPLES, ids=lambda call: call.rpc)
def test_every_call_names_an_rpc_with_its_messages(call: Call[object]) -> None:
    method = _methods(call.service)[call.rpc]

    assert method.input_type.full_name == call.request.DESCRIPTOR.full_name
    assert method.output_type.full_name == call.response.DESCRIPTOR.full_name


def test_every_rpc_of_the_public_services_has_a_call() -> None:
    served = {name for service in _SERVICES for name in _methods(service)} - _ELSEWHERE

    assert {call.rpc for call in _EXAMPLES} == served


def test_every_call_is_a_method_of_both_clients() -> None:
    modules = (workflow_calls, job_calls, job_verbs, catalogue_calls)
    builders = {
        function
        for module in modules
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if name in module.__all__ and inspect.signature(function).return_annotation.startswith("Call[")
    }
    table = {value.build for value in vars(Api).values() if isinstance(value, Unary | Pages)}

    assert table == builders
    assert issubclass(Client, Api)
    assert issubclass(AsyncClient, Api)


def test_methods_carry_the_documentation_of_their_call() -> None:
    assert Api.get_job.__doc__ == "Return a job."


def test_ids_of_calls_differ() -> None:
    assert job_calls.create_job("w").request != job_calls.create_job("w").request


@pytest.mark.parametrize("given", [{}, {"workflow": "w", "spec": {}}])
def test_job_needs_a_name_or_a_document(given: Any) -> None:
    with pytest.raises(InvalidError, match="Give either"):
        job_calls.create_job(**given)


def test_document_that_is_no_json_is_refused() -> None:
    with pytest.raises(InvalidError, match="cannot be written as JSON"):
        workflow_calls.create_workflow({"name": object()})


@pytest.mark.parametrize("document", ["{", "[]", "{}", '{"name": 3}'])
def test_document_without_a_name_cannot_be_applied(document: Any) -> None:
    with pytest.raises(InvalidError):
        workflow_calls.apply_workflow(document)


def test_unknown_state_names_the_known_ones() -> None:
    with pytest.raises(InvalidError, match="RUNNING"):
        job_calls.list_jobs(states=["sleeping"])


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("get_workflow", {"name": "w", "version": -1}),
        ("list_jobs", {"page_size": 2**40}),
        ("get_job", {"job_id": "\udcff"}),
        ("create_job", {"workflow": "w", "tags": {"a": "\ud800"}}),
    ],
)
def test_value_that_fits_into_no_message_is_refused(name: str, given: dict[str, Any]) -> None:
    with Client("127.0.0.1:9") as client, pytest.raises(InvalidError, match="cannot be sent"):
        getattr(client, name)(**given)
