from __future__ import annotations

import json
from typing import Any

import grpc
import pytest

from pixloom.errors import REASONS, OverloadedError, Problem, error_from_reason
from pixloom.rpc.status import from_rpc_error
from pixloom.v1 import job_pb2, job_pb2_grpc

BODY = {"spec": {"name": "w"}}


@pytest.mark.parametrize("reason", sorted(REASONS))
async def test_every_reason_of_the_scheduler_is_the_same_problem_in_rest(http: Any, peer: Any, reason: Any) -> None:
    place = Problem("/nodes/0/op", "unknown op; did you mean image.resize?", "UNKNOWN_OP")
    peer.fault = error_from_reason(reason, "what, where, remedy", problems=(place,))
    answer = await http.post("/api/v1/jobs", json=BODY)
    wire = REASONS[reason]
    assert answer.status_code == wire.http_status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem == {
        "type": f"urn:pixloom:problem:{reason.lower().replace('_', '-')}",
        "title": wire.title,
        "status": wire.http_status,
        "detail": "what, where, remedy",
        "instance": "/api/v1/jobs",
        "reason": reason,
        "errors": [{"pointer": place.pointer, "detail": place.detail, "reason": "UNKNOWN_OP"}],
        "trace_id": answer.headers["x-trace-id"],
        "retryable": wire.retryable,
    }
    assert ("retry-after" in answer.headers) == (wire.http_status == 503)


@pytest.mark.parametrize("reason", sorted(REASONS))
async def test_every_reason_of_the_scheduler_travels_through_grpc(gateway: Any, peer: Any, reason: Any) -> None:
    peer.fault = error_from_reason(reason, "what, where, remedy", metadata={"state": "RUNNING"})
    async with grpc.aio.insecure_channel(gateway.grpc_address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await job_pb2_grpc.JobServiceStub(channel).CreateJob(job_pb2.CreateJobRequest(workflow="w"))
    assert caught.value.code().name == REASONS[reason].grpc_code
    error = from_rpc_error(caught.value)
    assert (error.reason, error.message, error.metadata["state"]) == (reason, "what, where, remedy", "RUNNING")


async def test_retry_after_is_what_the_scheduler_asks_for(http: Any, peer: Any) -> None:
    peer.fault = OverloadedError("too much", retry_after_s=7.2)
    answer = await http.post("/api/v1/jobs", json=BODY)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "8")


async def test_unexpected_error_shows_nothing_but_the_trace(http: Any, peer: Any) -> None:
    peer.fault = RuntimeError("postgresql://user:secret@host")
    answer = await http.post("/api/v1/jobs", json=BODY)
    problem = answer.json()
    assert (answer.status_code, problem["reason"]) == (500, "INTERNAL")
    assert "secret" not in answer.text
    assert problem["trace_id"] in problem["detail"]


async def test_own_validation_is_a_problem_with_pointers(http: Any) -> None:
    answer = await http.get("/api/v1/jobs", params={"page_size": 5000})
    assert answer.status_code == 400
    assert answer.json()["reason"] == "INVALID_ARGUMENT"
    assert answer.json()["errors"][0]["pointer"] == "/query/page_size"


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/nowhere", 404, "NOT_FOUND"),
        ("GET", "/api/v1/jobs/none", 404, "NOT_FOUND"),
        ("DELETE", "/api/v1/ops", 405, "NOT_SUPPORTED"),
        ("POST", "/api/v1/jobs/x:dance", 405, "NOT_SUPPORTED"),
        ("GET", "/api/v1/artifacts/xyz", 400, "INVALID_ARGUMENT"),
        ("GET", "/api/v1/jobs?state=DANCING", 400, "INVALID_ARGUMENT"),
        ("GET", "/api/v1/jobs?tag=x", 400, "INVALID_ARGUMENT"),
        ("GET", "/api/v1/jobs?filter=none", 400, "INVALID_ARGUMENT"),
        ("GET", "/api/v1/attempts/x", 404, "NOT_FOUND"),
        ("GET", "/api/v1/workflows/x/versions/0", 400, "INVALID_ARGUMENT"),
    ],
)
async def test_whatever_is_wrong_is_a_problem(http: Any, method: Any, path: Any, status: Any, reason: Any) -> None:
    answer = await http.request(method, path)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("body", "pointer", "status"),
    [
        (b'{"workflow":"a","workflow":"b"}', "/workflow", 400),
        (b'{"workflow":"a\\u0000"}', "/workflow", 400),
        (b'{"spec":{"name":"a","name":"b"}}', "/spec/name", 422),
        (b'{"spec":{"name":"a"},"params":{"x":NaN}}', "/params/x", 400),
        (b'{"workflow":"a","priority":10}', "/priority", 400),
        (b'{"workflow":"a","priority":"5"}', "/priority", 400),
        (b'{"workflow":"a","colour":1}', "/colour", 400),
        (b'{"workflow":"a","tags":{"x":1}}', "/tags/x", 400),
        (b"[1]", "", 400),
        (b"{", "", 400),
        (b"\xff", "", 400),
    ],
)
async def test_bad_job_bodies_are_refused_with_their_place(
    http: Any, peer: Any, body: Any, pointer: Any, status: Any
) -> None:
    answer = await http.post("/api/v1/jobs", content=body)
    assert answer.status_code == status, answer.text
    assert pointer in [entry["pointer"] for entry in answer.json()["errors"]]
    assert peer.jobs.seen_requests == []


@pytest.mark.parametrize("body", [{}, {"workflow": "a", "spec": {"name": "a"}}])
async def test_job_needs_either_a_name_or_a_document(http: Any, body: Any) -> None:
    answer = await http.post("/api/v1/jobs", json=body)
    assert answer.status_code == 400
    assert "either" in answer.json()["detail"]


async def test_deep_bodies_are_refused(http: Any) -> None:
    answer = await http.post(
        "/api/v1/jobs", content=b'{"workflow":"a","params":' + b'{"a":' * 50000 + b"1" + b"}" * 50001
    )
    assert answer.status_code == 400


@pytest.mark.parametrize("path", ["/api/v1/workflows", "/api/v1/jobs", "/api/workflow"])
async def test_bodies_beyond_the_limit_are_refused_at_once(http: Any, peer: Any, path: Any) -> None:
    answer = await http.post(path, content=b" " * (5 * 2**20 + 1))
    assert (answer.status_code, answer.json()["reason"]) == (413, "TOO_LARGE")


async def test_bodies_that_grow_beyond_the_limit_are_refused(http: Any) -> Any:
    async def chunks() -> Any:
        for _ in range(90):
            yield b" " * 65536

    answer = await http.post("/api/v1/jobs", content=chunks())
    assert (answer.status_code, answer.json()["reason"]) == (413, "TOO_LARGE")


async def test_document_larger_than_its_limit_is_refused(http: Any) -> None:
    document = json.dumps({"name": "w", "description": "x" * (4 * 2**20)}).encode()
    answer = await http.post("/api/v1/workflows", content=document)
    assert (answer.status_code, answer.json()["reason"]) == (413, "TOO_LARGE")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "schedules"),
        ("POST", "hooks"),
        ("DELETE", "keys/k1"),
        ("POST", "callbacks/t1"),
        ("GET", "jobs/j1/trace"),
        ("GET", "jobs/j1/nodes/a/logs"),
        ("POST", "jobs/j1/nodes/a:approve"),
    ],
)
async def test_what_is_not_built_says_so(http: Any, method: str, path: str) -> None:
    answer = await http.request(method, f"/api/v1/{path}")
    assert (answer.status_code, answer.json()["reason"]) == (501, "NOT_SUPPORTED")
    assert "not built yet" in answer.json()["detail"]
