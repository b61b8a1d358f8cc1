"""No field of a resource goes unchecked: tests/e2e/engine/test_fields.py says what must be true of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pixloom.resources import Executor
from pixloom.v1 import executor_admin_pb2, job_pb2
from tests.support.field_checks import CHECKS, PARTS

if TYPE_CHECKING:
    from google.protobuf.message import Message

MESSAGES: dict[str, type[Message]] = {
    "Job": job_pb2.Job, "Node": job_pb2.Node, "Attempt": job_pb2.Attempt, "Event": job_pb2.JobEvent,
    "Snapshot": job_pb2.JobSnapshot, "TaskCounts": job_pb2.TaskCounts, "ItemCounts": job_pb2.ItemCounts,
    "JobError": job_pb2.JobError, "Output": job_pb2.Output, "Executor": executor_admin_pb2.Executor,
}  # fmt: skip
EXECUTOR_FIELDS = {
    "id", "pools", "ops", "slots", "busy", "draining", "hostname", "pid", "version", "start_time", "last_seen_time",
}  # fmt: skip
"""Each is asserted by name in `test_every_field_of_an_executor_is_true`."""


@pytest.mark.parametrize("resource", [*CHECKS, *PARTS, Executor], ids=lambda resource: resource.__name__)
def test_every_field_has_a_check_and_is_what_the_protos_name(resource: Any) -> None:
    fields = set(resource.model_fields)
    if resource in CHECKS:
        assert fields == set(CHECKS[resource])
    if resource is Executor:
        assert fields == EXECUTOR_FIELDS
    named = {
        field.name + ("_s" if field.message_type is not None and field.message_type.name == "Duration" else "")
        for field in MESSAGES[resource.__name__].DESCRIPTOR.fields
    }
    assert {name.removesuffix("_json") for name in named} == fields
