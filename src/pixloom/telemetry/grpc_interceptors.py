"""The server side of tracing over gRPC: one span an RPC, child of the caller's, its trace id in the trailers.

The span of a streaming RPC must end when the client goes away, although gRPC then abandons the handler's generator
in the middle. So its end is hooked to the RPC and not to the handler, and the context is attached but never
detached: every RPC runs in a task of its own, whose context ends with it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
from opentelemetry import context as otel_context
from opentelemetry import trace

from pixloom.rpc.handlers import WrappedHandlers
from pixloom.telemetry import names
from pixloom.telemetry.propagation import extract

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from opentelemetry.context import Context

__all__ = ["UNTRACED_METHODS", "TracingServerInterceptor", "is_untraced"]

# Probes say nothing; a session lives as long as its executor, so its span would say nothing until then.
UNTRACED_METHODS: Final = ("/grpc.health.", "/grpc.reflection.", "/pixloom.v1.ExecutorService/Session")

# Codes that are the server's fault, by the OpenTelemetry semantic conventions for gRPC.
_SERVER_FAULTS: Final = frozenset(
    code.value[0]
    for code in (
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    )
)
_CANCELLED: Final = grpc.StatusCode.CANCELLED.value[0]
_UNKNOWN: Final = grpc.StatusCode.UNKNOWN.value[0]


def is_untraced(method: str) -> bool:
    """Return whether calls of a method (`/package.Service/Method`) have no span."""
    return method.startswith(UNTRACED_METHODS)


def method_attributes(method: str) -> dict[str, str]:
    """Return the attributes that name an RPC."""
    service, _, name = method.removeprefix("/").rpartition("/")
    return {names.ATTR_RPC_SYSTEM: "grpc", names.ATTR_RPC_SERVICE: service, names.ATTR_RPC_METHOD: name}


class TracingServerInterceptor(grpc.aio.ServerInterceptor):
    """Gives every RPC of a server a span; put it first."""

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        tracer = trace.get_tracer("pixloom.rpc", tracer_provider=provider)
        self._wrapped = WrappedHandlers(lambda method: lambda context: _Traced(tracer, method, context))

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler of one RPC."""
        handler = await continuation(handler_call_details)
        if handler is None or is_untraced(handler_call_details.method):
            return handler
        return self._wrapped.of(handler_call_details.method, handler)


class _Traced:
    """Round one call: its span."""

    __slots__ = ("_context", "_method", "_rpc", "_tracer")

    def __init__(self, tracer: trace.Tracer, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self._tracer = tracer
        self._method = method
        self._context = context
        self._rpc: _RpcSpan | None = None

    async def __aenter__(self) -> None:
        parent = extract(_text_metadata(self._context.invocation_metadata()))
        self._rpc = _RpcSpan(self._tracer, self._method, parent, self._context)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        if self._rpc is None:
            return
        if error is None:
            self._rpc.end(_code_of(self._context))
        elif isinstance(error, asyncio.CancelledError | GeneratorExit):
            self._rpc.end(_CANCELLED)
        else:
            self._rpc.end(_code_of(self._context) or _UNKNOWN)


class _RpcSpan:
    """The span of one RPC; ends once, with whatever ends first."""

    __slots__ = ("_ended", "_span")

    def __init__(
        self, tracer: trace.Tracer, method: str, parent: Context, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        self._ended = False
        self._span = tracer.start_span(
            method.removeprefix("/"),
            context=parent,
            kind=trace.SpanKind.SERVER,
            attributes=method_attributes(method),
        )
        otel_context.attach(trace.set_span_in_context(self._span, parent))
        trace_id = trace.format_trace_id(self._span.get_span_context().trace_id)
        context.set_trailing_metadata(((names.HEADER_TRACE_ID, trace_id),))
        # A plain function is what gRPC calls; the stubs ask for a class of theirs.
        context.add_done_callback(cast("Any", self._end_with_rpc))

    def _end_with_rpc(self, context: Any) -> None:
        # A handler that ran to its end has set its code; without one the client went away.
        self.end(_code_of(context) or _CANCELLED)

    def end(self, code: int) -> None:
        """End the span with the number of a gRPC status code, unless it has ended."""
        if self._ended:
            return
        self._ended = True
        self._span.set_attribute(names.ATTR_RPC_CODE, code)
        if code in _SERVER_FAULTS:
            self._span.set_status(trace.Status(trace.StatusCode.ERROR))
        self._span.end()


def _code_of(context: grpc.aio.ServicerContext[Any, Any]) -> int:
    """Return the status code set so far as a number; 0 if none is."""
    code: Any = context.code()
    if isinstance(code, grpc.StatusCode):
        return int(code.value[0])
    return int(code or 0)


def _text_metadata(metadata: Any) -> dict[str, str]:
    return {key: value for key, value in metadata or () if isinstance(value, str)}
