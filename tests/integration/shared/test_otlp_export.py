"""Spans of two services, exported over OTLP/gRPC to a real receiver and put together there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from pixloom.rpc.channel import aio_channel
from pixloom.rpc.server import build_server, listen
from pixloom.telemetry import names
from pixloom.telemetry.propagation import remote_context
from pixloom.telemetry.setup import configure_tracing, shutdown_tracing
from pixloom.telemetry.spans import emit_span
from pixloom.v1 import op_pb2, op_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opentelemetry.proto.trace.v1 import trace_pb2


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """What a collector is to its senders; keeps the spans by service."""

    def __init__(self) -> None:
        self.spans: dict[str, list[trace_pb2.Span]] = {}
        self.instances: dict[str, str] = {}
        self.answering = asyncio.Event()
        self.answering.set()

    async def Export(self, request: Any, context: Any) -> Any:
        await self.answering.wait()
        for resource in request.resource_spans:
            facts = {entry.key: entry.value.string_value for entry in resource.resource.attributes}
            service = facts["service.name"]
            self.instances[service] = facts.get("service.instance.id", "")
            for scope in resource.scope_spans:
                self.spans.setdefault(service, []).extend(scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()


class Ops(op_pb2_grpc.OpServiceServicer):
    async def GetOp(self, request: op_pb2.GetOpRequest, context: Any) -> op_pb2.GetOpResponse:
        return op_pb2.GetOpResponse()

    async def ListOps(self, request: op_pb2.ListOpsRequest, context: Any) -> op_pb2.ListOpsResponse:
        return op_pb2.ListOpsResponse()


@pytest.fixture
async def receiver(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receiver]:
    made = Receiver()
    server = grpc.aio.server()
    register: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    register(made, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    for name in ("OTEL_TRACES_SAMPLER", "OTEL_SERVICE_NAME", "OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    yield made
    await server.stop(None)


async def test_call_between_two_services_arrives_as_one_trace(receiver: Receiver, socket_folder: Any) -> None:
    gateway = configure_tracing("pixloom-gateway", install=False)
    scheduler = configure_tracing("pixloom-scheduler", instance_id="replica-1", install=False)
    server = build_server(tracer_provider=scheduler)
    op_pb2_grpc.add_OpServiceServicer_to_server(Ops(), server)
    address = f"unix:{socket_folder}/s"
    listen(server, address)
    await server.start()
    with gateway.get_tracer("t").start_as_current_span("request") as request:
        async with aio_channel(address, tracer_provider=gateway) as channel:
            await op_pb2_grpc.OpServiceStub(channel).ListOps(op_pb2.ListOpsRequest(), timeout=60)
    trace_id = request.get_span_context().trace_id
    emit_span(
        names.SPAN_JOB,
        context=remote_context(trace_id=trace_id, span_id=request.get_span_context().span_id),
        trace_id=trace_id,
        span_id=42,
        start_time_ns=1_000_000_000,
        end_time_ns=2_000_000_000,
        attributes={names.ATTR_JOB_ID: "j1"},
        tracer=scheduler.get_tracer("t"),
    )
    await server.stop(None)
    for provider in (gateway, scheduler):
        assert await asyncio.to_thread(shutdown_tracing, provider)
    assert sorted(receiver.spans) == ["pixloom-gateway", "pixloom-scheduler"]
    assert receiver.instances["pixloom-scheduler"] == "replica-1"
    every = [span for spans in receiver.spans.values() for span in spans]
    assert {span.trace_id for span in every} == {trace_id.to_bytes(16, "big")}
    client, root = receiver.spans["pixloom-gateway"]
    by_name = {span.name: span for span in receiver.spans["pixloom-scheduler"]}
    assert by_name["pixloom.v1.OpService/ListOps"].parent_span_id == client.span_id
    assert client.parent_span_id == root.span_id == by_name[names.SPAN_JOB].parent_span_id
    job = by_name[names.SPAN_JOB]
    assert int.from_bytes(job.span_id, "big") == 42
    assert (job.start_time_unix_nano, job.end_time_unix_nano) == (1_000_000_000, 2_000_000_000)


async def test_caller_that_does_not_sample_is_followed(receiver: Receiver) -> None:
    provider = configure_tracing("pixloom-gateway", install=False)
    parent = remote_context(trace_id=1, span_id=2, sampled=False)
    provider.get_tracer("t").start_span("s", context=parent).end()
    assert await asyncio.to_thread(shutdown_tracing, provider)
    assert receiver.spans == {}


async def test_name_of_the_service_may_be_given_by_the_environment(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    provider = configure_tracing("pixloom-gateway", install=False)
    provider.get_tracer("t").start_span("s").end()
    assert await asyncio.to_thread(shutdown_tracing, provider)
    assert list(receiver.spans) == ["mine"]


async def test_collector_that_does_not_answer_delays_the_end_no_longer_than_told(receiver: Receiver) -> None:
    receiver.answering.clear()
    provider = configure_tracing("pixloom-gateway", install=False)
    provider.get_tracer("t").start_span("s").end()
    assert not await asyncio.to_thread(shutdown_tracing, provider, timeout_s=0.2)
    receiver.answering.set()
    assert await asyncio.to_thread(shutdown_tracing, provider)
