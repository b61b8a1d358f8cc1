from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from google.protobuf.duration_pb2 import Duration

from pixloom.errors import OverloadedError, UnavailableError
from pixloom.sdk.aio import AsyncClient
from pixloom.v1 import job_pb2
from pixloom_gateway.upstream import methods
from pixloom_gateway.upstream.scheduler import Scheduler
from tests.integration.gateway.peer import SchedulerPeer


@pytest.fixture
async def second(sockets: Any, spans: Any) -> Any:
    scheduler = SchedulerPeer()
    await scheduler.start(f"unix:{sockets}/t", tracer_provider=spans.provider)
    yield scheduler
    await scheduler.stop()


def client(gateway: Any) -> Any:
    # A gateway tries for as long as a takeover may take before it answers 503.
    return httpx2.AsyncClient(base_url=f"http://{gateway.http_address}", trust_env=False, timeout=60)


async def test_first_reachable_scheduler_answers(start_gateway: Any, second: Any, sockets: Any) -> None:
    gateway = await start_gateway([f"unix:{sockets}/none", f"unix:{sockets}/t"])
    async with client(gateway) as http:
        answer = await http.post("/api/v1/jobs", json={"spec": {"name": "w"}})
        assert answer.status_code == 201
        assert (await http.get(answer.headers["location"])).status_code == 200
        assert (await http.get("/readyz")).status_code == 200


async def test_calls_move_on_when_a_scheduler_goes_away(
    start_gateway: Any, peer: Any, peer_address: Any, second: Any, sockets: Any
) -> None:
    gateway = await start_gateway([peer_address, f"unix:{sockets}/t"])
    async with client(gateway) as http:
        await http.put("/api/v1/workflows/w", json={"name": "w"})
        assert "w" in peer.workflows.versions
        await peer.stop()
        assert (await http.put("/api/v1/workflows/w", json={"name": "w"})).status_code == 201
        assert "w" in second.workflows.versions


async def test_create_is_repeated_at_another_scheduler_under_one_request_id(
    start_gateway: Any, peer: Any, peer_address: Any, second: Any, sockets: Any
) -> None:
    peer.fault = UnavailableError("mute")
    gateway = await start_gateway([peer_address, f"unix:{sockets}/t"])
    async with client(gateway) as http:
        assert (await http.post("/api/v1/jobs", json={"spec": {"name": "w"}})).status_code == 201
    assert [entry.request_id for entry in peer.jobs.seen_requests + second.jobs.seen_requests] == ["id1", "id1"]


@pytest.mark.parametrize("over", ["rest", "grpc"])
@pytest.mark.parametrize("verb", ["recover", "retry"])
async def test_a_job_is_taken_up_at_another_scheduler_under_one_request_id(
    start_gateway: Any, peer: Any, peer_address: Any, second: Any, sockets: Any, verb: str, over: str
) -> None:
    async with client(await start_gateway([f"unix:{sockets}/t"])) as http:
        job_id = (await http.post("/api/v1/jobs", json={"spec": {"name": "w"}})).json()["id"]
    await second.jobs.emit(job_id, "job_ended", state="FAILED")
    peer.fault = UnavailableError("mute")
    gateway = await start_gateway([peer_address, f"unix:{sockets}/t"])
    if over == "rest":
        async with client(gateway) as http:
            assert (await http.post(f"/api/v1/jobs/{job_id}:{verb}")).json()["generation"] == 2
    else:
        async with AsyncClient(gateway.grpc_address) as grpc_client:
            assert (await getattr(grpc_client, f"{verb}_job")(job_id)).generation == 2
    ids = [request.request_id for request in (*peer.jobs.seen_verbs, *second.jobs.seen_verbs)]
    assert len(ids) == 2
    assert ids[0] == ids[1] != ""


async def test_a_scheduler_that_hangs_is_left_for_another(second: Any, sockets: Any) -> None:
    async def never(request: Any, context: Any) -> Any:
        del request, context
        await asyncio.Event().wait()

    hanging = SchedulerPeer()
    hanging.jobs.ListJobs = never  # type: ignore[method-assign]
    await hanging.start(f"unix:{sockets}/hanging")
    codes: list[str] = []
    scheduler = Scheduler(
        [f"unix:{sockets}/hanging", f"unix:{sockets}/t"],
        attempt_s=2,  # as well for the scheduler that answers, however busy the machine is
        observe=lambda _path, code, _seconds: codes.append(code),
    )
    try:
        for _ in range(2):
            await scheduler.call(methods.LIST_JOBS, job_pb2.ListJobsRequest())
    finally:
        await scheduler.close()
        await hanging.stop()
    assert codes == ["DEADLINE_EXCEEDED", "OK", "OK"]


async def test_a_scheduler_that_was_asked_to_wait_is_given_the_time_for_it(second: Any, sockets: Any) -> None:
    """The attempt at another address comes after the wait and not in the middle of it."""
    may_answer = asyncio.Event()
    waiting = SchedulerPeer()
    create = waiting.jobs.CreateJob

    async def slow(request: Any, context: Any) -> Any:
        await may_answer.wait()
        return await create(request, context)

    waiting.jobs.CreateJob = slow  # type: ignore[method-assign]
    await waiting.start(f"unix:{sockets}/waiting")
    codes: list[str] = []
    scheduler = Scheduler(
        [f"unix:{sockets}/waiting", f"unix:{sockets}/t"],
        attempt_s=0.2,
        observe=lambda _path, code, _seconds: codes.append(code),
    )
    request = job_pb2.CreateJobRequest(workflow="w", request_id="r", wait=Duration(seconds=60))
    try:
        call = asyncio.ensure_future(scheduler.call(methods.CREATE_JOB, request, repeatable=True, wait_s=60))
        await asyncio.sleep(0.6)
        may_answer.set()
        assert (await call).job.workflow == "w"
    finally:
        await scheduler.close()
        await waiting.stop()
    assert codes == ["OK"]
    assert second.jobs.seen_requests == []


async def test_overload_is_an_answer_and_not_tried_elsewhere(
    start_gateway: Any, peer: Any, peer_address: Any, second: Any, sockets: Any
) -> None:
    peer.fault = OverloadedError("too much", retry_after_s=2)
    gateway = await start_gateway([peer_address, f"unix:{sockets}/t"])
    async with client(gateway) as http:
        answer = await http.post("/api/v1/jobs", json={"spec": {"name": "w"}})
    assert (answer.status_code, answer.json()["reason"]) == (503, "OVERLOADED")
    assert len(peer.jobs.seen_requests) == 1
    assert second.jobs.seen_requests == []


async def test_without_a_scheduler_the_answer_is_an_honest_503(start_gateway: Any, sockets: Any) -> None:
    gateway = await start_gateway([f"unix:{sockets}/none"])
    async with client(gateway) as http:
        answer = await http.get("/api/v1/jobs")
        assert (answer.status_code, answer.json()["reason"]) == (503, "UNAVAILABLE")
        assert answer.headers["retry-after"] == "1"
        assert "unix" not in answer.text
        events = await http.get("/api/v1/jobs/x/events")
        assert events.status_code == 503
        assert (await http.get("/healthz")).status_code == 200


async def test_readiness_says_what_is_missing(http: Any, gateway: Any, peer: Any) -> None:
    ready = await http.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {
        "ready": True,
        "missing": [],
        "executors": 1,
        "grpc": gateway.grpc_address,
        "version": "0.0.test",
    }
    peer.executors.executors.clear()
    answer = await http.get("/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (503, False)
    assert answer.json()["missing"] == ["executor: none is in session"]
    await peer.serving(False)
    assert "scheduler" in (await http.get("/readyz")).json()["missing"][0]


async def test_metrics_count_requests_by_route(http: Any) -> None:
    await http.get("/api/v1/jobs/a")
    await http.get("/api/v1/jobs/b")
    await http.get("/nowhere/at/all")
    text = (await http.get("/metrics")).text
    assert 'pixloom_http_seconds_count{code="404",method="GET",route="/api/v1/jobs/{id}"} 2.0' in text
    assert "nowhere" not in text
    assert 'pixloom_rpc_seconds_count{code="NOT_FOUND",method="/pixloom.v1.JobService/GetJob"} 2.0' in text


async def test_new_jobs_go_to_all_schedulers_in_turn_and_past_one_that_does_not_answer(
    start_gateway: Any, peer: Any, peer_address: Any, second: Any, sockets: Any
) -> None:
    gateway = await start_gateway([peer_address, f"unix:{sockets}/t"])
    async with client(gateway) as http:
        for _ in range(4):
            assert (await http.post("/api/v1/jobs", json={"spec": {"name": "w"}})).status_code == 201
        assert (len(peer.jobs.seen_requests), len(second.jobs.seen_requests)) == (2, 2)
        await peer.stop()
        for _ in range(3):
            assert (await http.post("/api/v1/jobs", json={"spec": {"name": "w"}})).status_code == 201
        assert (len(peer.jobs.seen_requests), len(second.jobs.seen_requests)) == (2, 5)
