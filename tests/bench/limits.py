"""What this machine and its libraries allow at most: gRPC without anything behind it, and commits of one row.

Every job costs a call that creates it and a watch that tells its end, each from the client through the gateway to the
scheduler; every stage one message to an executor, one back, and a commit. These figures bound what the engine can reach.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import time
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import grpc
import uvloop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from multiprocessing.connection import Connection

    from tests.bench.workloads import Bench

__all__ = ["bare"]

Figures = dict[str, Any]
SERVICE: Final = "bench.Echo"
CALL: Final = f"/{SERVICE}/Call"
WATCH: Final = f"/{SERVICE}/Watch"
STREAM: Final = f"/{SERVICE}/Stream"
MESSAGE: Final = bytes(300)
UPDATES: Final = 3
"""Messages of a watch: what is there at first, what came of it, the end."""

MANY: Final = 300
ROUNDS: Final = 1000


async def bare(bench: Bench) -> Figures:
    """Calls and watches through a relay, messages there and back, and commits, with nothing else to do."""
    context = multiprocessing.get_context("spawn")
    processes = []
    addresses: list[str] = []
    try:
        for upstream in ("", None):
            ours, theirs = context.Pipe()
            target = addresses[-1] if upstream is None else upstream
            processes.append(context.Process(target=_serve, args=(theirs, target), daemon=True))
            processes[-1].start()
            addresses.append(await asyncio.to_thread(ours.recv))
        async with grpc.aio.insecure_channel(addresses[0]) as near, grpc.aio.insecure_channel(addresses[1]) as relayed:
            figures = {
                "message_there_and_back_ms": await _there_and_back_ms(near),
                "relayed_call_ms": await _one_at_a_time_ms(lambda: _call(relayed)),
                "relayed_calls_per_s": await _at_once_per_s(lambda: _call(relayed)),
                "relayed_calls_with_watch_per_s": await _at_once_per_s(lambda: _call_and_watch(relayed)),
            }
    finally:
        for process in processes:
            process.terminate()
            await asyncio.to_thread(process.join)
    return {**figures, "commit_ms": await _commit_ms(bench.stack.wiring.database_url)}


async def _call(channel: Any) -> None:
    await channel.unary_unary(CALL)(MESSAGE)


async def _call_and_watch(channel: Any) -> None:
    await _call(channel)
    async for _ in channel.unary_stream(WATCH)(MESSAGE):
        pass


async def _one_at_a_time_ms(call: Callable[[], Awaitable[None]]) -> float:
    for _ in range(20):
        await call()
    begin = time.perf_counter()
    for _ in range(ROUNDS):
        await call()
    return round((time.perf_counter() - begin) / ROUNDS * 1000, 3)


async def _at_once_per_s(call: Callable[[], Awaitable[None]]) -> int:
    rates = []
    for _ in range(5):
        begin = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(MANY)))
        rates.append(MANY / (time.perf_counter() - begin))
    return round(statistics.median(rates))


async def _there_and_back_ms(channel: grpc.aio.Channel) -> float:
    call: Any = channel.stream_stream(STREAM)()

    async def once() -> None:
        await call.write(MESSAGE)
        await call.read()

    took = await _one_at_a_time_ms(once)
    call.cancel()
    return took


async def _commit_ms(database_url: str) -> float:
    """Return the median of transactions that write one row and are on disk then."""
    connection = await asyncpg.connect(database_url)
    times = []
    try:
        await connection.execute("CREATE TABLE bench_commit (id int PRIMARY KEY, value text)")
        for number in range(ROUNDS):
            begin = time.perf_counter()
            await connection.execute("INSERT INTO bench_commit VALUES ($1, $2)", number, "x" * 100)
            times.append(time.perf_counter() - begin)
        await connection.execute("DROP TABLE bench_commit")
    finally:
        await connection.close()
    return round(statistics.median(times) * 1000, 3)


def _serve(ready: Connection, upstream: str) -> None:
    """Serve as long as this process lives: echo, or pass on to another server."""
    uvloop.run(_serve_forever(ready, upstream))


async def _serve_forever(ready: Connection, upstream: str) -> None:
    channel: Any = grpc.aio.insecure_channel(upstream) if upstream else None

    async def call(request: bytes, context: Any) -> bytes:
        del context
        if channel is None:
            return request
        answer: bytes = await channel.unary_unary(CALL)(request)
        return answer

    async def watch(request: bytes, context: Any) -> AsyncIterator[bytes]:
        del context
        if channel is None:
            for _ in range(UPDATES):
                yield request
            return
        async for update in channel.unary_stream(WATCH)(request):
            yield update

    async def stream(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        del context
        async for request in requests:
            yield request

    server = grpc.aio.server()
    handlers: dict[str, Any] = {
        "Call": grpc.unary_unary_rpc_method_handler(call),
        "Watch": grpc.unary_stream_rpc_method_handler(watch),
        "Stream": grpc.stream_stream_rpc_method_handler(stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ready.send(f"127.0.0.1:{port}")
    await server.wait_for_termination()
