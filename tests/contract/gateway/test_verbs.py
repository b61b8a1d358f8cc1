"""What the verbs of REST become, what they answer, and what the OpenAPI document says of them."""

from __future__ import annotations

import asyncio
from typing import Any

import jsonschema
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pixloom.errors import InvalidError, Problem
from pixloom.v1 import job_pb2

VERBS = ("start", "pause", "resume", "cancel", "recover", "retry", "rerun")
BEGUN = {"start": False}


async def submit(http: Any, **more: Any) -> str:
    answer = await http.post("/api/v1/jobs", json={"workflow": "thumbs", **more})
    assert answer.status_code == 201
    return str(answer.json()["id"])


@pytest.mark.parametrize(
    ("verb", "body", "expected"),
    [
        ("start", None, job_pb2.StartJobRequest(request_id="k")),
        ("start", {"params": {"a": 1}}, job_pb2.StartJobRequest(params_json=b'{"a":1}', request_id="k")),
        ("pause", None, job_pb2.PauseJobRequest()),
        ("pause", {"now": True}, job_pb2.PauseJobRequest(now=True)),
        ("resume", None, job_pb2.ResumeJobRequest()),
        ("cancel", {"now": True, "reason": "enough"}, job_pb2.CancelJobRequest(now=True, reason="enough")),
        ("recover", None, job_pb2.RecoverJobRequest(request_id="k")),
        ("recover", {"from": "thumbs"}, job_pb2.RecoverJobRequest(from_node="thumbs", request_id="k")),
        (
            "retry",
            {"nodes": ["a"], "reasons": ["X", "Y"]},
            job_pb2.RetryJobRequest(nodes=["a"], reasons=["X", "Y"], request_id="k"),
        ),
        (
            "rerun",
            {"from": "b", "params": {}},
            job_pb2.RerunJobRequest(from_node="b", params_json=b"{}", request_id="k"),
        ),
    ],
)
async def test_a_verb_becomes_its_call(http: Any, peer: Any, verb: str, body: Any, expected: Any) -> None:
    job_id = await submit(http)
    if verb in {"recover", "retry"}:
        await peer.jobs.emit(job_id, "job_ended", state="FAILED")
    expected.id = job_id
    answer = await http.post(f"/api/v1/jobs/{job_id}:{verb}", json=body, headers={"Idempotency-Key": "k"})
    assert answer.status_code == (201 if verb == "rerun" else 200), answer.text
    assert peer.jobs.seen_verbs == [expected]
    assert ("id" in answer.json()) is True


async def test_a_body_that_is_left_out_is_an_empty_one(http: Any, peer: Any) -> None:
    job_id = await submit(http)
    answer = await http.post(f"/api/v1/jobs/{job_id}:pause", content=b"")
    assert (answer.status_code, answer.json()["state"]) == (200, "PAUSED")
    assert peer.jobs.seen_verbs == [job_pb2.PauseJobRequest(id=job_id)]


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        (":pause", {"now": "yes"}, "/now"),
        (":cancel", {"when": 1}, "/when"),
        (":start", {"params": [1]}, "/params"),
        (":recover", {"from": 3}, "/from"),
        (":retry", {"reasons": "TRUNCATED"}, "/reasons"),
        (":rerun", {"params": 1}, "/params"),
    ],
)
async def test_a_body_that_does_not_fit_is_refused_with_its_place(
    http: Any, peer: Any, path: str, body: Any, pointer: str
) -> None:
    answer = await http.post(f"/api/v1/jobs/j1{path}", json=body)
    assert answer.status_code == 400
    assert [place["pointer"] for place in answer.json()["errors"]] == [pointer]
    assert peer.jobs.seen_verbs == []


@pytest.mark.parametrize(
    ("path", "body", "pointer", "known"),
    [
        ("/j1:retry", {"reason": "TRUNCATED"}, "/reason", "`nodes`, `reasons`"),
        ("/j1:recover", {"node": "a"}, "/node", "`from`"),
        (":cancelAll", {"filter": {"state": "RUNNING"}}, "/filter/state", "`workflow`, `tags`, `states`"),
    ],
)
async def test_a_field_that_is_none_is_answered_with_those_there_are(
    http: Any, peer: Any, path: str, body: Any, pointer: str, known: str
) -> None:
    answer = await http.post(f"/api/v1/jobs{path}", json=body)
    assert answer.status_code == 400
    (place,) = answer.json()["errors"]
    assert (place["pointer"], place["detail"]) == (pointer, f"there is no such field; there are {known}")
    assert peer.jobs.seen_verbs == []


@pytest.mark.parametrize("verb", ["start", "pause", "resume", "cancel"])
async def test_a_state_that_does_not_fit_is_a_conflict_that_names_it(http: Any, peer: Any, verb: str) -> None:
    job_id = await submit(http)
    await peer.jobs.emit(job_id, "job_ended", state="COMPLETED")
    answer = await http.post(f"/api/v1/jobs/{job_id}:{verb}")
    assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
    assert answer.json()["reason"] == "STATE_CONFLICT"
    assert "COMPLETED" in answer.json()["detail"]
    assert (await http.post(f"/api/v1/jobs/none:{verb}")).status_code == 404


async def test_wrong_params_keep_their_places_on_the_way_to_the_caller(http: Any, peer: Any) -> None:
    job_id = await submit(http, **BEGUN)
    place = Problem("/params/width", "8 is less than the minimum of 16", "INVALID_PARAM")
    peer.fault = InvalidError("/params/width: 8 is less …", reason="INVALID_PARAMS", problems=(place,))
    for path in (f"/api/v1/jobs/{job_id}:start", f"/api/workflow/trigger/{job_id}"):
        answer = await http.post(path, json={"params": {"width": 8}})
        assert (answer.status_code, answer.json()["reason"]) == (422, "INVALID_PARAMS")
        assert answer.json()["errors"] == [
            {"pointer": place.pointer, "detail": place.detail, "reason": "INVALID_PARAM"}
        ]


async def test_two_steps_answer_as_their_callers_expect(http: Any, peer: Any) -> None:
    submitted = await http.post("/api/workflow", json={"name": "thumbs", "nodes": []})
    assert (submitted.status_code, list(submitted.json())) == (201, ["execution_id"])
    execution = submitted.json()["execution_id"]
    assert peer.jobs.seen_requests[-1].start is False
    for _ in range(2):
        answer = await http.post(f"/api/workflow/trigger/{execution}", json={"params": {"a": 1}})
        assert (answer.status_code, answer.json()) == (202, {"instance_id": execution})
        assert answer.headers["location"] == f"/api/workflows/{execution}"
    assert peer.jobs.seen_verbs == 2 * [job_pb2.StartJobRequest(id=execution, params_json=b'{"a":1}')]
    assert (await http.post("/api/workflow/trigger/none")).status_code == 404
    await peer.jobs.emit(execution, "job_ended", state="CANCELLED")
    refused = await http.post(f"/api/workflow/trigger/{execution}")
    assert (refused.status_code, "CANCELLED" in refused.json()["detail"]) == (409, True)


async def test_patch_delete_and_cancel_all_become_their_calls(http: Any, peer: Any) -> None:
    job_id = await submit(http)
    await http.patch(f"/api/v1/jobs/{job_id}", json={"priority": 0, "tags": {"a": "b"}})
    body = {"filter": {"workflow": "w", "tags": {"a": "b"}, "states": ["paused", "RUNNING"]}, "now": True}
    assert (await http.post("/api/v1/jobs:cancelAll", json=body)).json() == {"cancelled": 1}
    await http.delete(f"/api/v1/jobs/{job_id}")
    assert (await http.delete(f"/api/v1/jobs/{job_id}?allow_missing=true")).status_code == 204
    assert peer.jobs.seen_verbs == [
        job_pb2.UpdateJobRequest(
            job=job_pb2.Job(id=job_id, tags={"a": "b"}), update_mask=FieldMask(paths=["priority", "tags"])
        ),
        job_pb2.CancelAllJobsRequest(
            workflow="w",
            tags={"a": "b"},
            states=[job_pb2.JOB_STATE_PAUSED, job_pb2.JOB_STATE_RUNNING],
            now=True,
        ),
        job_pb2.DeleteJobRequest(id=job_id),
        job_pb2.DeleteJobRequest(id=job_id, allow_missing=True),
    ]


async def test_cancel_all_names_a_state_that_is_none(http: Any) -> None:
    answer = await http.post("/api/v1/jobs:cancelAll", json={"filter": {"states": ["WAITING"]}})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "/filter/states")


async def test_grpc_carries_the_same_verbs(gateway: Any, http: Any, peer: Any) -> None:
    job_id = await submit(http)
    from pixloom.errors import StateConflictError
    from pixloom.sdk.aio import AsyncClient

    async with AsyncClient(gateway.grpc_address) as client:
        assert (await client.pause_job(job_id, now=True)).state == "PAUSED"
        assert (await client.resume_job(job_id)).state == "RUNNING"
        assert (await client.cancel_job(job_id, reason="enough")).state == "CANCELLED"
        with pytest.raises(StateConflictError, match="CANCELLED") as refused:
            await client.pause_job(job_id)
        assert refused.value.metadata["state"] == "CANCELLED"
        assert (await client.recover_job(job_id, from_node="a")).generation == 2
    assert [type(request).__name__ for request in peer.jobs.seen_verbs] == [
        "PauseJobRequest",
        "ResumeJobRequest",
        "CancelJobRequest",
        "PauseJobRequest",
        "RecoverJobRequest",
    ]


async def test_examples_fit_their_schemas_and_conflicts_are_described(http: Any) -> None:
    document = (await http.get("/api/openapi.json")).json()
    paths = [f"/api/v1/jobs/{{id}}:{verb}" for verb in VERBS]
    operations = {path: document["paths"][path]["post"] for path in (*paths, "/api/workflow/trigger/{execution_id}")}
    operations["delete"] = document["paths"]["/api/v1/jobs/{id}"]["delete"]
    operations["patch"] = document["paths"]["/api/v1/jobs/{id}"]["patch"]
    for path, operation in operations.items():
        for status in ("404", "409"):
            content = operation["responses"][status]["content"]["application/problem+json"]
            assert content["example"]["status"] == int(status), path
            problem = {**document["components"]["schemas"]["Problem"], "components": document["components"]}
            jsonschema.validate(content["example"], problem)
    for path in (*operations, "/api/v1/jobs:cancelAll"):
        operation = operations.get(path) or document["paths"][path]["post"]
        if "requestBody" not in operation:
            assert path in {"delete", "/api/v1/jobs/{id}:resume"}
            continue
        body = operation["requestBody"]["content"]["application/json"]
        jsonschema.validate(body["example"], body["schema"])
    for path in ("/api/v1/jobs/{id}:start", "/api/v1/jobs/{id}:rerun", "/api/workflow/trigger/{execution_id}"):
        assert "422" in operations[path]["responses"]


async def test_many_verbs_at_once_are_all_answered(http: Any, peer: Any) -> None:
    jobs = [await submit(http) for _ in range(8)]
    answers = await asyncio.gather(*(http.post(f"/api/v1/jobs/{job_id}:pause") for job_id in jobs))
    assert {answer.status_code for answer in answers} == {200}
    assert {request.id for request in peer.jobs.seen_verbs} == set(jobs)
