from __future__ import annotations

from typing import Any

import grpc

from pixloom.v1 import job_pb2, job_pb2_grpc

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def by_id(spans: Any) -> Any:
    return {span.context.span_id: span for span in spans.finished()}


async def test_rest_call_is_one_trace_down_to_the_scheduler(http: Any, spans: Any) -> None:
    answer = await http.post("/api/v1/jobs", json={"spec": {"name": "w"}}, headers={"traceparent": PARENT})
    assert answer.headers["x-trace-id"] == TRACE
    found = by_id(spans)
    assert {f"{span.context.trace_id:032x}" for span in found.values()} == {TRACE}
    chain, span = [], next(span for span in found.values() if span.kind.name == "SERVER" and "CreateJob" in span.name)
    while span is not None:
        chain.append((span.kind.name, span.name))
        last, span = span, found.get(span.parent.span_id)
    assert chain == [
        ("SERVER", "pixloom.v1.JobService/CreateJob"),
        ("CLIENT", "pixloom.v1.JobService/CreateJob"),
        ("SERVER", "POST /api/v1/jobs"),
    ]
    assert f"{last.parent.span_id:016x}" == "b7ad6b7169203331"
    assert last.attributes["http.response.status_code"] == 201


async def test_grpc_call_is_one_trace_down_to_the_scheduler(gateway: Any, spans: Any) -> None:
    async with grpc.aio.insecure_channel(gateway.grpc_address) as channel:
        stub = job_pb2_grpc.JobServiceStub(channel)
        call = stub.CreateJob(job_pb2.CreateJobRequest(workflow="w"), metadata=(("traceparent", PARENT),))
        await call
        trailers = dict(await call.trailing_metadata())
    assert trailers["x-trace-id"] == TRACE
    found = by_id(spans)
    assert {f"{span.context.trace_id:032x}" for span in found.values()} == {TRACE}
    assert [span.kind.name for span in spans.finished()] == ["SERVER", "CLIENT", "SERVER"]


async def test_requests_without_a_parent_have_traces_of_their_own(http: Any) -> None:
    ids = {(await http.get("/api/v1/ops")).headers["x-trace-id"] for _ in range(3)}
    assert len(ids) == 3
    refused = await http.get("/api/v1/ops", headers={"Host": "evil.example"})
    assert refused.json()["trace_id"] == refused.headers["x-trace-id"]


async def test_malformed_parent_is_ignored(http: Any) -> None:
    for value in ("x", "00-0-0-0", "ff-" + "1" * 32 + "-" + "1" * 16 + "-01"):
        answer = await http.get("/api/v1/ops", headers={"traceparent": value})
        assert (answer.status_code, len(answer.headers["x-trace-id"])) == (200, 32)


async def test_probes_leave_no_spans(http: Any, spans: Any) -> None:
    await http.get("/healthz")
    await http.get("/metrics")
    assert spans.finished() == ()
