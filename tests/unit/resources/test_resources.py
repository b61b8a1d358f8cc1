from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from pixloom import resources
from pixloom.v1 import executor_admin_pb2, item_pb2, job_pb2, op_pb2, workflow_pb2


def job_message() -> Any:
    message = job_pb2.Job(
        id="j",
        name="n",
        workflow="w",
        version=2,
        generation=1,
        state=job_pb2.JOB_STATE_RUNNING,
        params_json='{"a": [1, 2.5, null], "é": "ü"}'.encode(),
        metadata_json=b"",
        tags={"b": "1", "a": "2"},
    )
    message.create_time.FromJsonString("2026-01-02T03:04:05.678901Z")
    message.estimated_duration.FromMilliseconds(1500)
    message.outputs["x"].CopyFrom(job_pb2.Output(kind=job_pb2.OUTPUT_KIND_COLLECTION, count=0, node="y"))
    return message


def test_job_has_values_as_the_contract_says() -> None:
    shown = resources.Job.from_proto(job_message()).model_dump(mode="json")
    assert shown["state"] == "RUNNING"
    assert shown["create_time"] == "2026-01-02T03:04:05.678901Z"
    assert shown["end_time"] is None
    assert (shown["estimated_duration_s"], shown["actual_duration_s"]) == (1.5, None)
    assert shown["params"] == {"a": [1, 2.5, None], "é": "ü"}
    assert (shown["metadata"], list(shown["tags"])) == ({}, ["a", "b"])
    assert (shown["error"], shown["reason"], shown["trace_id"]) == (None, None, None)
    assert shown["outputs"]["x"]["count"] == 0


def test_job_survives_json() -> None:
    job = resources.Job.from_proto(job_message())
    assert resources.Job.model_validate_json(job.model_dump_json()) == job


def test_client_tolerates_fields_of_a_newer_server() -> None:
    job = resources.Job.from_proto(job_message())
    assert resources.Job.model_validate({**job.model_dump(), "colour": "red"}) == job


def test_resources_are_immutable() -> None:
    job = resources.Job.from_proto(job_message())
    with pytest.raises(ValidationError):
        job.id = "k"


@pytest.mark.parametrize(
    ("enum", "prefix", "words"),
    [
        (job_pb2.JobState, "JOB_STATE_", resources.JobState),
        (job_pb2.NodeState, "NODE_STATE_", resources.NodeState),
        (job_pb2.AttemptOutcome, "ATTEMPT_OUTCOME_", resources.AttemptOutcome),
        (item_pb2.ItemState, "ITEM_STATE_", resources.ItemState),
        (job_pb2.OutputKind, "OUTPUT_KIND_", resources.OutputKind),
    ],
)
def test_words_are_those_of_the_protos(enum: Any, prefix: Any, words: Any) -> None:
    expected = [name.removeprefix(prefix) for name in enum.keys()[1:]]
    assert [word.upper() for word in words] == expected


def test_values_artifacts_and_collections_are_told_apart() -> None:
    value = resources.Output.from_proto(job_pb2.Output(kind=job_pb2.OUTPUT_KIND_VALUE, value_json=b"null", node="n"))
    artifact = resources.Output.from_proto(
        job_pb2.Output(
            kind=job_pb2.OUTPUT_KIND_ARTIFACT,
            node="n",
            artifact=item_pb2.ArtifactRef(sha256="0", size_bytes=3, media_type="image/png"),
        )
    )
    assert (value.kind, value.value, value.artifact, value.count) == ("value", None, None, None)
    assert artifact.kind == "artifact"
    assert artifact.artifact == resources.Artifact(sha256="0", size_bytes=3, media_type="image/png")


def test_validation_is_valid_without_problems() -> None:
    assert resources.Validation.from_proto(workflow_pb2.ValidateWorkflowResponse(sha256="a")).valid
    problem = workflow_pb2.Problem(pointer="/a", detail="d", reason="R")
    found = resources.Validation.from_proto(workflow_pb2.ValidateWorkflowResponse(problems=[problem]))
    assert (found.valid, found.problems[0].pointer) == (False, "/a")


def test_plan_tells_unknown_from_zero() -> None:
    plan = resources.Plan.from_proto(
        workflow_pb2.PlanWorkflowResponse(stages=[workflow_pb2.StagePlan(items=0), workflow_pb2.StagePlan()])
    )
    assert [stage.items for stage in plan.stages] == [0, None]


def test_every_message_has_its_resource() -> None:
    op = op_pb2.Op(
        name="a@1",
        kind=op_pb2.OP_KIND_SOURCE,
        output=op_pb2.PORT_TYPE_TABLE,
        inputs=[op_pb2.Port(name="i", type=op_pb2.PORT_TYPE_RECORD, optional=True)],
    )
    assert resources.Op.from_proto(op).inputs[0].type == "record"
    assert resources.Executor.from_proto(executor_admin_pb2.Executor(id="e", pools=["cpu"])).pools == ["cpu"]
    snapshot = job_pb2.JobSnapshot(
        job=job_message(), nodes=[job_pb2.Node(id="n", state=job_pb2.NODE_STATE_PENDING, reasons={"R": 2})]
    )
    assert resources.Snapshot.from_proto(snapshot).nodes[0].reasons == {"R": 2}
    event = resources.Event.from_proto(job_pb2.JobEvent(seq=4, type="node_ended", node="n", state="FAILED"))
    assert (event.seq, event.node, event.reason) == (4, "n", None)
    item = resources.Item.from_proto(
        item_pb2.Item(key="k", state=item_pb2.ITEM_STATE_FILTERED, ordinal=[1, 0], attributes_json=b'{"a":1}')
    )
    assert (item.ordinal, item.state, item.attributes, item.width) == ([1, 0], "FILTERED", {"a": 1}, None)
    attempt = resources.Attempt.from_proto(
        job_pb2.Attempt(id="j.1.0.0.1", outcome=job_pb2.ATTEMPT_OUTCOME_LOST, number=1)
    )
    assert attempt.outcome == "LOST"


def test_importing_the_resources_brings_no_grpc_along() -> None:
    code = "import sys, pixloom.resources; print('grpc' in sys.modules, 'fastapi' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
