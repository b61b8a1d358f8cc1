from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from pixloom.rpc.server import build_server, listen
from pixloom.telemetry.spans import PinnedIdGenerator


class SpanLog(SpanProcessor):
    """Spans in the order they ended, with a way to wait for one."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)
        self._loop.call_soon_threadsafe(self._changed.set)

    async def wait_for(self, name: str, kind: str) -> ReadableSpan:
        async with asyncio.timeout(60):
            while True:
                for span in self.spans:
                    if (span.name, span.kind.name) == (name, kind):
                        return span
                self._changed.clear()
                await self._changed.wait()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
async def span_log() -> SpanLog:
    return SpanLog()


@pytest.fixture
async def provider(span_log: SpanLog) -> AsyncIterator[TracerProvider]:
    made = TracerProvider(id_generator=PinnedIdGenerator(), shutdown_on_exit=False)
    made.add_span_processor(span_log)
    yield made
    made.shutdown()


@pytest.fixture
def socket_folder() -> Iterator[Path]:
    # Short, because a socket's path has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="plx") as folder:
        yield Path(folder)


Serve = Callable[[Callable[[grpc.aio.Server], object]], Awaitable[str]]


@pytest.fixture
async def serve(socket_folder: Path, provider: TracerProvider) -> AsyncIterator[Serve]:
    """Start real servers on unix sockets; returns their addresses."""
    async with AsyncExitStack() as stack:
        count = 0

        async def start(register: Callable[[grpc.aio.Server], object]) -> str:
            nonlocal count
            count += 1
            server = build_server(tracer_provider=provider)
            register(server)
            address = f"unix:{socket_folder}/{count}"
            listen(server, address)
            await server.start()
            stack.push_async_callback(server.stop, None)
            return address

        yield start
