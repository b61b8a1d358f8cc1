"""What a collector is to those who export spans: a real OTLP/gRPC endpoint that keeps them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from opentelemetry.proto.trace.v1 import trace_pb2

__all__ = ["OtlpReceiver", "ReceivedSpan", "otlp_receiver"]


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """A span as it arrived.

    Attributes:
        service: Name of the service that sent it.
        name: Name.
        kind: server, client or internal.
        id: Its id, hexadecimal.
        parent_id: Id of its parent, hexadecimal; empty for a root.
        attributes: Attributes with text or number.
        start_ns: When it started.
        end_ns: When it ended.
    """

    service: str
    name: str
    kind: str
    id: str
    parent_id: str
    attributes: dict[str, Any]
    start_ns: int
    end_ns: int


class OtlpReceiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps spans by trace.

    Attributes:
        endpoint: Value for OTEL_EXPORTER_OTLP_ENDPOINT.
    """

    def __init__(self) -> None:
        self.endpoint = ""
        self._traces: dict[str, dict[str, ReceivedSpan]] = defaultdict(dict)
        self._arrived = asyncio.Event()

    async def Export(self, request: Any, context: Any) -> Any:
        """Take spans."""
        for resource in request.resource_spans:
            facts = {entry.key: entry.value.string_value for entry in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self._traces[span.trace_id.hex()][span.span_id.hex()] = _read(facts["service.name"], span)
        self._arrived.set()
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self, trace_id: str) -> list[ReceivedSpan]:
        """Return what has arrived of a trace."""
        return list(self._traces[trace_id].values())

    async def wait_for(
        self, trace_id: str, complete: Callable[[list[ReceivedSpan]], bool], *, within_s: float = 60
    ) -> list[ReceivedSpan]:
        """Wait until a trace is complete and return it; after `within_s` seconds return it as it is."""
        try:
            async with asyncio.timeout(within_s):
                while not complete(self.spans(trace_id)):
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            pass
        return self.spans(trace_id)


@asynccontextmanager
async def otlp_receiver() -> AsyncIterator[OtlpReceiver]:
    """Serve a receiver on a free port."""
    receiver = OtlpReceiver()
    server = grpc.aio.server()
    register: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    register(receiver, server)
    receiver.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield receiver
    finally:
        await server.stop(None)


def _read(service: str, span: trace_pb2.Span) -> ReceivedSpan:
    kinds = {1: "internal", 2: "server", 3: "client"}
    attributes = {
        entry.key: entry.value.string_value or entry.value.int_value or entry.value.double_value
        for entry in span.attributes
    }
    return ReceivedSpan(
        service=service,
        name=span.name,
        kind=kinds.get(span.kind, str(span.kind)),
        id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes=attributes,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
    )
