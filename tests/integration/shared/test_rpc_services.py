"""Health, reflection and size limits of a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from pixloom.rpc.channel import aio_channel
from pixloom.rpc.server import build_server, listen, publish_services
from pixloom.v1 import op_pb2, op_pb2_grpc
from tests.faults.proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import grpc
    from opentelemetry.sdk.trace import TracerProvider

NAME = "pixloom.v1.OpService"


class Ops(op_pb2_grpc.OpServiceServicer):
    async def GetOp(self, request: op_pb2.GetOpRequest, context: Any) -> op_pb2.GetOpResponse:
        return op_pb2.GetOpResponse()

    async def ListOps(self, request: op_pb2.ListOpsRequest, context: Any) -> op_pb2.ListOpsResponse:
        return op_pb2.ListOpsResponse(ops=[op_pb2.Op(documentation="x" * 6_000_000)])


async def test_server_is_not_serving_until_it_is_told_so_and_shows_its_services(
    socket_folder: Any, provider: TracerProvider, span_log: Any
) -> None:
    server = build_server(tracer_provider=provider)
    op_pb2_grpc.add_OpServiceServicer_to_server(Ops(), server)
    health = await publish_services(server, [NAME])
    address = f"unix:{socket_folder}/health"
    listen(server, address)
    await server.start()
    states = health_pb2.HealthCheckResponse
    async with aio_channel(address, tracer_provider=provider) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for name in ("", NAME):
            assert (
                await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=60)
            ).status == states.NOT_SERVING
            await health.set(name, states.SERVING)
            assert (await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=60)).status == states.SERVING

        async def ask() -> Any:
            yield reflection_pb2.ServerReflectionRequest(list_services="")

        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(cast("Any", channel))
        async for answer in reflection.ServerReflectionInfo(ask(), timeout=60):
            assert {entry.name for entry in answer.list_services_response.service} == {
                NAME,
                "grpc.health.v1.Health",
                "grpc.reflection.v1alpha.ServerReflection",
            }
    await server.stop(None)
    assert span_log.spans == [], "probes leave no spans"


async def test_messages_of_several_megabytes_pass(
    serve: Callable[[Callable[[grpc.aio.Server], object]], Awaitable[str]],
) -> None:
    address = await serve(lambda server: op_pb2_grpc.add_OpServiceServicer_to_server(Ops(), server))
    async with aio_channel(address) as channel:
        response = await op_pb2_grpc.OpServiceStub(channel).ListOps(op_pb2.ListOpsRequest(), timeout=60)
    assert len(response.ops[0].documentation) == 6_000_000


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:0"])
async def test_port_zero_takes_a_free_port(address: str, provider: TracerProvider) -> None:
    server = build_server(tracer_provider=provider)
    assert listen(server, address) > 1024
    await server.stop(None)


@pytest.mark.parametrize("retries", [0, 1], ids=["without retries", "with retries"])
async def test_a_server_that_does_not_get_the_processor_is_waited_for_and_not_given_up(
    retries: int, provider: TracerProvider
) -> None:
    server = build_server(tracer_provider=provider)
    op_pb2_grpc.add_OpServiceServicer_to_server(Ops(), server)
    port = listen(server, "127.0.0.1:0")
    await server.start()
    async with FaultProxy() as proxy:
        proxy.aim(("127.0.0.1", port))
        # What the server sends first comes late; until then the client is not connected.
        proxy.latency_s = 0.3
        options = (("grpc.enable_retries", retries),)
        async with aio_channel(f"127.0.0.1:{proxy.port}", options=options, tracer_provider=provider) as channel:
            await op_pb2_grpc.OpServiceStub(channel).GetOp(op_pb2.GetOpRequest(), timeout=60)
        assert proxy.connections == 1
    await server.stop(None)
