"""Spans of real calls: all four kinds, errors, cancels, and what is left out."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from opentelemetry import trace

from pixloom.errors import InternalError, NotFoundError
from pixloom.rpc.channel import aio_channel, sync_channel
from pixloom.telemetry.propagation import remote_context

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

Serve = Callable[[Callable[[grpc.aio.Server], object]], Awaitable[str]]
SERVICE = "pixloom.test.Echo"


class Echo:
    """Handlers of every kind and style over plain bytes."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self.tracer = tracer
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()

    def _mark(self) -> None:
        self.tracer.start_span("inside").end()

    async def unary(self, request: bytes, context: Any) -> bytes:
        self._mark()
        if request == b"missing":
            raise NotFoundError("No.")
        if request == b"broken":
            raise InternalError("Oh.")
        if request == b"hang":
            self.begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return request

    async def download(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        self._mark()
        yield request
        self._mark()
        if request == b"hang":
            self.begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        while request == b"flood":
            self.begun.set()
            yield b"x" * 1_000_000
        yield request

    async def write(self, request: bytes, context: Any) -> None:
        self._mark()
        await context.write(request)
        await context.write(request)

    async def upload(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        self._mark()
        return b"".join([request async for request in requests])

    async def chat(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        self._mark()
        async for request in requests:
            yield request

    def register(self, server: grpc.aio.Server) -> None:
        handlers: dict[str, Any] = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Download": grpc.unary_stream_rpc_method_handler(self.download),
            "Write": grpc.unary_stream_rpc_method_handler(self.write),
            "Upload": grpc.stream_unary_rpc_method_handler(self.upload),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
        }
        session: dict[str, Any] = {"Session": grpc.stream_stream_rpc_method_handler(self.chat)}
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(SERVICE, handlers),
                grpc.method_handlers_generic_handler("pixloom.v1.ExecutorService", session),
            )
        )


@pytest.fixture
async def echo(provider: TracerProvider) -> Echo:
    return Echo(provider.get_tracer("test"))


@pytest.fixture
async def channel(serve: Serve, echo: Echo, provider: TracerProvider) -> AsyncIterator[grpc.aio.Channel]:
    address = await serve(echo.register)
    async with aio_channel(address, tracer_provider=provider) as opened:
        yield opened


async def _requests() -> AsyncIterator[bytes]:
    yield b"a"
    yield b"b"


async def _call(channel: grpc.aio.Channel, method: str) -> bytes:
    path = f"/{SERVICE}/{method}"
    any_channel: Any = channel
    if method == "Unary":
        return bytes(await any_channel.unary_unary(path)(b"ab", timeout=60))
    if method == "Upload":
        return bytes(await any_channel.stream_unary(path)(_requests(), timeout=60))
    if method == "Chat":
        return b"".join([part async for part in any_channel.stream_stream(path)(_requests(), timeout=60)])
    return b"".join([part async for part in any_channel.unary_stream(path)(b"ab", timeout=60)])


def _context_of(span: ReadableSpan) -> trace.SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context


def _parent_id(span: ReadableSpan) -> int:
    return span.parent.span_id if span.parent is not None else 0


@pytest.mark.parametrize(
    ("method", "expected", "marks"),
    [("Unary", b"ab", 1), ("Download", b"abab", 2), ("Write", b"abab", 1), ("Upload", b"ab", 1), ("Chat", b"ab", 1)],
)
async def test_call_is_one_trace_from_caller_to_what_happens_inside_the_handler(
    channel: grpc.aio.Channel, span_log: Any, provider: TracerProvider, method: str, *, expected: bytes, marks: int
) -> None:
    with provider.get_tracer("test").start_as_current_span("caller") as caller:
        assert await _call(channel, method) == expected
    client = await span_log.wait_for(f"{SERVICE}/{method}", "CLIENT")
    server = await span_log.wait_for(f"{SERVICE}/{method}", "SERVER")
    inside = span_log.named("inside")
    assert len(inside) == marks
    assert {_context_of(span).trace_id for span in (client, server, *inside)} == {caller.get_span_context().trace_id}
    assert _parent_id(client) == caller.get_span_context().span_id
    assert _parent_id(server) == _context_of(client).span_id
    assert {_parent_id(span) for span in inside} == {_context_of(server).span_id}
    assert dict(server.attributes) == {
        "rpc.system": "grpc",
        "rpc.service": SERVICE,
        "rpc.method": method,
        "rpc.grpc.status_code": 0,
    }
    assert len(span_log.named(f"{SERVICE}/{method}")) == 2
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_calls_without_a_caller_begin_traces_of_their_own(channel: grpc.aio.Channel, span_log: Any) -> None:
    for _ in range(2):
        assert await _call(channel, "Unary") == b"ab"
    assert len({_context_of(span).trace_id for span in span_log.named(f"{SERVICE}/Unary")}) == 2


async def test_trailers_name_the_trace(channel: grpc.aio.Channel, provider: TracerProvider) -> None:
    any_channel: Any = channel
    with provider.get_tracer("test").start_as_current_span("caller") as caller:
        call = any_channel.unary_unary(f"/{SERVICE}/Unary")(b"x", timeout=60)
        await call
    assert dict(await call.trailing_metadata())["x-trace-id"] == f"{caller.get_span_context().trace_id:032x}"


@pytest.mark.parametrize(
    ("request_", "code", "is_server_fault"),
    [(b"missing", grpc.StatusCode.NOT_FOUND, False), (b"broken", grpc.StatusCode.INTERNAL, True)],
)
async def test_failed_call_has_its_code_and_is_an_error_of_the_server_only_if_it_is_its_fault(
    channel: grpc.aio.Channel, span_log: Any, request_: bytes, code: grpc.StatusCode, *, is_server_fault: bool
) -> None:
    any_channel: Any = channel
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await any_channel.unary_unary(f"/{SERVICE}/Unary")(request_, timeout=60)
    assert caught.value.code() is code
    server = await span_log.wait_for(f"{SERVICE}/Unary", "SERVER")
    client = await span_log.wait_for(f"{SERVICE}/Unary", "CLIENT")
    assert server.attributes["rpc.grpc.status_code"] == client.attributes["rpc.grpc.status_code"] == code.value[0]
    assert server.status.is_ok is not is_server_fault
    assert not client.status.is_ok


@pytest.mark.parametrize("method", ["Unary", "Download"])
async def test_cancelled_call_ends_both_spans_and_reaches_the_handler(
    channel: grpc.aio.Channel, span_log: Any, echo: Echo, method: str
) -> None:
    any_channel: Any = channel
    open_call = any_channel.unary_unary if method == "Unary" else any_channel.unary_stream
    call = open_call(f"/{SERVICE}/{method}")(b"hang", timeout=60)
    if method == "Download":
        assert await call.read() == b"hang"
    else:
        waiting = asyncio.ensure_future(call.code())
    await asyncio.wait_for(echo.begun.wait(), 60)
    assert call.cancel()
    server = await span_log.wait_for(f"{SERVICE}/{method}", "SERVER")
    client = await span_log.wait_for(f"{SERVICE}/{method}", "CLIENT")
    await asyncio.wait_for(echo.cancelled.wait(), 60)
    if method == "Unary":
        assert await waiting is grpc.StatusCode.CANCELLED
    assert server.attributes["rpc.grpc.status_code"] == client.attributes["rpc.grpc.status_code"] == 1
    assert len(span_log.named(f"{SERVICE}/{method}")) == 2


async def test_client_that_leaves_a_flood_unread_ends_the_span_once(
    channel: grpc.aio.Channel, span_log: Any, echo: Echo
) -> None:
    # The handler is then stuck in sending, outside its generator, which gRPC abandons.
    any_channel: Any = channel
    call = any_channel.unary_stream(f"/{SERVICE}/Download")(b"flood", timeout=60)
    assert await call.read() == b"flood"
    await asyncio.wait_for(echo.begun.wait(), 60)
    call.cancel()
    server = await span_log.wait_for(f"{SERVICE}/Download", "SERVER")
    await span_log.wait_for(f"{SERVICE}/Download", "CLIENT")
    assert server.attributes["rpc.grpc.status_code"] == 1
    gc.collect()
    assert await _call(channel, "Unary") == b"ab"
    assert len(span_log.named(f"{SERVICE}/Download")) == 2


async def test_client_that_runs_out_of_time_ends_both_spans(channel: grpc.aio.Channel, span_log: Any) -> None:
    any_channel: Any = channel
    await channel.channel_ready()  # what the time runs out for is the call
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        # Time enough for the call to reach the handler, without which there is no span of the server.
        await any_channel.unary_unary(f"/{SERVICE}/Unary")(b"hang", timeout=1.5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    client = await span_log.wait_for(f"{SERVICE}/Unary", "CLIENT")
    assert client.attributes["rpc.grpc.status_code"] == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    await span_log.wait_for(f"{SERVICE}/Unary", "SERVER")


async def test_session_of_an_executor_has_no_span(channel: grpc.aio.Channel, span_log: Any) -> None:
    any_channel: Any = channel
    call = any_channel.stream_stream("/pixloom.v1.ExecutorService/Session")(_requests(), timeout=60)
    assert b"".join([part async for part in call]) == b"ab"
    assert [span.name for span in span_log.spans] == ["inside"]


async def test_writing_client_style_is_traced_as_well(channel: grpc.aio.Channel, span_log: Any) -> None:
    any_channel: Any = channel
    call = any_channel.stream_stream(f"/{SERVICE}/Chat")(timeout=60)
    for part in (b"1", b"2"):
        await call.write(part)
        assert await call.read() == part
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    server = await span_log.wait_for(f"{SERVICE}/Chat", "SERVER")
    client = await span_log.wait_for(f"{SERVICE}/Chat", "CLIENT")
    assert _parent_id(server) == _context_of(client).span_id


async def test_sync_client_passes_its_trace_on(serve: Serve, echo: Echo, span_log: Any) -> None:
    address = await serve(echo.register)
    parent = remote_context(trace_id=0xABC, span_id=0xDEF)

    def call() -> bytes:
        with sync_channel(address) as blocking, trace.use_span(trace.get_current_span(parent)):
            any_channel: Any = blocking
            path = f"/{SERVICE}"
            answers = [
                bytes(any_channel.unary_unary(f"{path}/Unary")(b"1", timeout=60)),
                *any_channel.unary_stream(f"{path}/Download")(b"2", timeout=60),
                bytes(any_channel.stream_unary(f"{path}/Upload")(iter([b"3"]), timeout=60)),
                *any_channel.stream_stream(f"{path}/Chat")(iter([b"4"]), timeout=60),
            ]
            return b"".join(answers)

    assert await asyncio.to_thread(call) == b"12234"
    for method in ("Unary", "Download", "Upload", "Chat"):
        server = await span_log.wait_for(f"{SERVICE}/{method}", "SERVER")
        assert (_context_of(server).trace_id, _parent_id(server)) == (0xABC, 0xDEF)
