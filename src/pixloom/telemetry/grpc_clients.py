"""The client side of tracing over gRPC: the current span travels in the metadata of every call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from opentelemetry import trace

from pixloom.telemetry import names
from pixloom.telemetry.grpc_interceptors import is_untraced, method_attributes
from pixloom.telemetry.propagation import inject

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from opentelemetry.context import Context

__all__ = ["TracingSyncInterceptor", "begin_call", "end_call", "tracing_client_interceptors"]

Metadata = tuple[tuple[str, str | bytes], ...]


def tracing_client_interceptors(
    provider: trace.TracerProvider | None = None,
) -> Sequence[grpc.aio.ClientInterceptor]:
    """Return the interceptors of an asyncio channel: a client span a call, and its context in the metadata."""
    # One object a kind of call: the channel files each interceptor under the first kind it is an instance of.
    tracer = trace.get_tracer("pixloom.rpc", tracer_provider=provider)
    return (_UnaryUnary(tracer), _UnaryStream(tracer), _StreamUnary(tracer), _StreamStream(tracer))


def begin_call(tracer: trace.Tracer, method: str, metadata: Metadata = ()) -> tuple[trace.Span | None, Metadata]:
    """Begin the span of a call that is made without interceptors, which cost a call two tasks.

    Args:
        tracer: Who makes it.
        method: What is called, `/package.Service/Method`.
        metadata: Metadata of the call.

    Returns:
        The span, for `end_call`, or None for methods without, and the metadata with the trace context.
    """
    span, context = None, None
    if not is_untraced(method):
        span = tracer.start_span(
            method.removeprefix("/"), kind=trace.SpanKind.CLIENT, attributes=method_attributes(method)
        )
        context = trace.set_span_in_context(span)
    headers = inject(context=context)
    return span, (*((key, value) for key, value in metadata if key not in headers), *headers.items())


def end_call(span: trace.Span | None, code: grpc.StatusCode) -> None:
    """End the span of a call."""
    if span is None:
        return
    span.set_attribute(names.ATTR_RPC_CODE, code.value[0])
    if code is not grpc.StatusCode.OK:
        span.set_status(trace.Status(trace.StatusCode.ERROR))
    span.end()


class _Interceptor:
    """What the four kinds have in common."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self._ending: set[asyncio.Task[None]] = set()

    def _begin(self, details: grpc.aio.ClientCallDetails) -> tuple[trace.Span | None, grpc.aio.ClientCallDetails]:
        method = _text(details.method)
        if is_untraced(method):
            return None, _with_trace(details)
        span = self._tracer.start_span(
            method.removeprefix("/"), kind=trace.SpanKind.CLIENT, attributes=method_attributes(method)
        )
        return span, _with_trace(details, trace.set_span_in_context(span))

    async def _call(
        self, continuation: Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]], details: Any, request: Any
    ) -> Any:
        span, traced = self._begin(details)
        if span is None:
            return await continuation(traced, request)
        try:
            call = await continuation(traced, request)
        except BaseException:
            end_call(span, grpc.StatusCode.UNKNOWN)
            raise
        call.add_done_callback(lambda _: self._end_later(span, call))
        return call

    def _end_later(self, span: trace.Span, call: Any) -> None:
        # The code of a call that is done is there at once, but only a coroutine tells it.
        async def end() -> None:
            end_call(span, await call.code())

        task = asyncio.get_running_loop().create_task(end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


class _UnaryUnary(_Interceptor, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._call(continuation, client_call_details, request)


class _UnaryStream(_Interceptor, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._call(continuation, client_call_details, request)


class _StreamUnary(_Interceptor, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._call(continuation, client_call_details, request_iterator)


class _StreamStream(_Interceptor, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._call(continuation, client_call_details, request_iterator)


class _SyncDetails(NamedTuple):
    """What a synchronous interceptor hands on; gRPC asks for these attributes only."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


class TracingSyncInterceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Puts the current span into the metadata of the calls of a synchronous channel."""

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Pass a call on with the trace context."""
        return continuation(_sync_with_trace(client_call_details), request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Pass a call on with the trace context."""
        return continuation(_sync_with_trace(client_call_details), request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """Pass a call on with the trace context."""
        return continuation(_sync_with_trace(client_call_details), request_iterator)

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """Pass a call on with the trace context."""
        return continuation(_sync_with_trace(client_call_details), request_iterator)


def _with_trace(details: grpc.aio.ClientCallDetails, context: Context | None = None) -> grpc.aio.ClientCallDetails:
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    for key, value in inject(context=context).items():
        metadata[key] = value
    return grpc.aio.ClientCallDetails(
        method=details.method,
        timeout=details.timeout,
        metadata=metadata,
        credentials=details.credentials,
        wait_for_ready=details.wait_for_ready,
    )


def _sync_with_trace(details: Any) -> _SyncDetails:
    headers = inject()
    metadata = [(key, value) for key, value in details.metadata or () if key not in headers]
    return _SyncDetails(
        method=details.method,
        timeout=details.timeout,
        metadata=[*metadata, *headers.items()],
        credentials=details.credentials,
        wait_for_ready=details.wait_for_ready,
        compression=details.compression,
    )


def _text(method: Any) -> str:
    return method.decode() if isinstance(method, bytes) else str(method)
