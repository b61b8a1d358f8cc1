from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from pixloom.rpc.status import from_rpc_error
from pixloom.v1 import executor_admin_pb2, executor_admin_pb2_grpc, job_pb2, job_pb2_grpc, op_pb2, op_pb2_grpc
from tests.integration.gateway.peer import SERVICES


@pytest.fixture
async def channel(gateway: Any) -> Any:
    async with grpc.aio.insecure_channel(gateway.grpc_address) as opened:
        yield opened


async def test_calls_are_passed_on_with_metadata_and_deadline(channel: Any, peer: Any) -> None:
    stub = job_pb2_grpc.JobServiceStub(channel)
    request = job_pb2.CreateJobRequest(workflow="w", params_json=b'{"a": 1}', request_id="r")
    call = stub.CreateJob(request, metadata=(("x-custom", "1"), ("x-data-bin", b"\x00\xff")), timeout=60)
    answer = await call
    assert answer.job.workflow == "w"
    assert peer.jobs.seen_requests == [request]
    (metadata,) = peer.jobs.seen_metadata
    assert (metadata["x-custom"], metadata["x-data-bin"]) == ("1", b"\x00\xff")
    assert [key for key, _ in await call.trailing_metadata()].count("x-trace-id") == 1
    ops = await op_pb2_grpc.OpServiceStub(channel).ListOps(op_pb2.ListOpsRequest())
    assert [op.name for op in ops.ops] == ["image.thumbnail@1"]
    executors = await executor_admin_pb2_grpc.ExecutorAdminServiceStub(channel).ListExecutors(
        executor_admin_pb2.ListExecutorsRequest()
    )
    assert [executor.id for executor in executors.executors] == ["e1"]


async def test_watch_streams_and_ends_with_the_job(channel: Any, peer: Any) -> None:
    stub = job_pb2_grpc.JobServiceStub(channel)
    job_id = (await stub.CreateJob(job_pb2.CreateJobRequest(workflow="w"))).job.id
    seen = []
    async for update in stub.WatchJob(job_pb2.WatchJobRequest(id=job_id)):
        seen.append(update.WhichOneof("update"))
        if len(seen) == 1:
            await peer.jobs.emit(job_id, "job_ended", state="COMPLETED")
    assert seen[0] == "event"
    assert seen[-1] == "snapshot"
    assert seen.count("event") == 2


async def test_watch_goes_on_over_a_restart_of_the_scheduler(channel: Any, peer: Any, peer_address: Any) -> None:
    stub = job_pb2_grpc.JobServiceStub(channel)
    job_id = (await stub.CreateJob(job_pb2.CreateJobRequest(workflow="w"))).job.id
    numbers = []
    async for update in stub.WatchJob(job_pb2.WatchJobRequest(id=job_id)):
        if update.WhichOneof("update") == "event":
            numbers.append(update.event.seq)
            if len(numbers) == 1:
                await peer.stop()
                await peer.jobs.emit(job_id, "job_ended", state="COMPLETED")
                await peer.start(peer_address)
    assert numbers == [1, 2]


async def test_watch_of_a_client_that_leaves_is_ended(channel: Any, peer: Any) -> None:
    stub = job_pb2_grpc.JobServiceStub(channel)
    job_id = (await stub.CreateJob(job_pb2.CreateJobRequest(workflow="w"))).job.id
    call = stub.WatchJob(job_pb2.WatchJobRequest(id=job_id))
    await call.read()
    call.cancel()
    await asyncio.wait_for(peer.jobs.idle.wait(), 60)


async def test_unknown_job_keeps_its_details(channel: Any) -> None:
    stub = job_pb2_grpc.JobServiceStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetJob(job_pb2.GetJobRequest(id="none"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert from_rpc_error(caught.value).message == "There is no job none."
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in stub.WatchJob(job_pb2.WatchJobRequest(id="none")):
            pass
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_calls_that_only_the_scheduler_serves_are_passed_on(channel: Any) -> None:
    stub = job_pb2_grpc.JobServiceStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListManifests(job_pb2.ListManifestsRequest(id="none"))
    assert caught.value.code() in {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED}


async def test_health_and_reflection_are_served(channel: Any) -> None:
    health: Any = health_pb2_grpc.HealthStub(channel)  # its stubs know no methods
    for name in ("", *SERVICES, "pixloom.v1.ArtifactService"):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    async for answer in reflection.ServerReflectionInfo(iter([request])):
        names = {entry.name for entry in answer.list_services_response.service}
        assert set(SERVICES) | {"pixloom.v1.ArtifactService", "grpc.health.v1.Health"} <= names
