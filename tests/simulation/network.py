"""Streams between executors and schedulers: in order in each direction, late, and apt to break.

A `SimulatedChannel` takes the place of a `grpc.aio.Channel`, so that the real stubs, sessions and servicers talk
through it. Messages are serialised on the way, as on a wire. A stream that breaks is noticed by its two ends at
different times.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import grpc

from pixloom.rpc.bundles import unbundled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pixloom_scheduler.rpc.session import ExecutorSessions
    from tests.simulation.loop import Process
    from tests.simulation.world import World

__all__ = ["Network", "SimulatedChannel", "Stream"]


def _broken(detail: str) -> grpc.aio.AioRpcError:
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, details=detail)


class Network:
    """Who listens where, and which streams are open.

    Attributes:
        servers: Process and servicer by address.
        streams: Open streams.
        on_request: Sees, and may alter or multiply, what an executor sends.
        on_response: Sees what a scheduler sends, at the moment it leaves.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.servers: dict[str, tuple[Process, ExecutorSessions]] = {}
        self.streams: dict[Stream, None] = {}
        self.on_request: Callable[[Stream, Any], list[tuple[float, Any]]] = lambda _, message: [(0.0, message)]
        self.on_response: list[Callable[[Stream, Any], None]] = []

    def listen(self, address: str, process: Process, sessions: ExecutorSessions) -> None:
        """Let a servicer be reached."""
        self.servers[address] = (process, sessions)

    def hang_up(self, process: Process) -> None:
        """Take in that a process is gone: its peers find out soon."""
        for address in [address for address, (owner, _) in self.servers.items() if owner is process]:
            del self.servers[address]
        for stream in list(self.streams):
            if process in (stream.client, stream.server):
                stream.snap(0.001 + self.world.latency())


class SimulatedChannel:
    """What the executor's stub is made with."""

    def __init__(self, network: Network, process: Process, address: str) -> None:
        self._network = network
        self._process = process
        self._address = address

    async def close(self) -> None:
        """Close it; the stream on it has ended by then."""

    def stream_stream(self, method: str, **options: Any) -> Callable[..., Stream]:
        """Return what opens a stream."""
        del method, options
        return lambda requests: Stream(self._network, self._process, self._address, requests)

    def unary_unary(self, method: str, **options: Any) -> Callable[..., Any]:
        """Return what makes a call."""
        del options
        name = method.rpartition("/")[2]

        async def call(request: Any, *, timeout: float) -> Any:
            world = self._network.world
            await asyncio.sleep(world.latency())
            if self._address not in self._network.servers:
                raise _broken("nobody listens")
            process, sessions = self._network.servers[self._address]
            answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

            async def serve() -> None:
                try:
                    response = await getattr(sessions, name)(request, None)
                except Exception as error:  # noqa: BLE001  # as a server answers any error with a code
                    if not answer.done():
                        answer.set_exception(_broken(str(error)))
                else:
                    if not answer.done():
                        answer.set_result(response)

            process.spawn(serve())
            try:
                async with asyncio.timeout(timeout):
                    return await answer
            except TimeoutError as error:
                raise _broken("deadline exceeded") from error

        return call


class Stream:
    """One open call, as its client sees it."""

    def __init__(self, network: Network, client: Process, address: str, requests: AsyncIterator[Any]) -> None:
        self.client = client
        self.server: Process | None = None
        self.address = address
        self._network = network
        self._world = network.world
        self._requests = requests
        self._to_client: asyncio.Queue[Any] = asyncio.Queue()
        self._to_server: asyncio.Queue[Any] = asyncio.Queue()
        self._serving: asyncio.Task[None] | None = None
        self._free_at = [0.0, 0.0]
        self._stalled_until = 0.0
        self._is_cut = False
        network.streams[self] = None
        self._pumping = client.spawn(self._pump())
        self._world.after(self._world.latency(), self._connect)

    # -- The client's side ------------------------------------------------------------------------------------------

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        message = await self._to_client.get()
        if message is None:
            raise StopAsyncIteration
        if isinstance(message, BaseException):
            raise message
        return message

    def cancel(self) -> bool:
        """Give the call up; who still reads from it gets a CancelledError, as with gRPC."""
        self._cut(asyncio.CancelledError, self._world.latency())
        return True

    async def _pump(self) -> None:
        async for together in self._requests:
            # Faults strike what travels together one by one.
            for message in unbundled(together):
                for delay, sent in self._network.on_request(self, message):
                    if delay:
                        self._world.after(delay, self.send_to_server, sent)
                    else:
                        self.send_to_server(sent)

    # -- The way ------------------------------------------------------------------------------------------------------

    def send_to_server(self, message: Any) -> None:
        """Let a message arrive at the server, after those sent before it."""
        if not self._is_cut:
            self._send(0, self._to_server, type(message).FromString(message.SerializeToString()))

    def stall(self, seconds: float) -> None:
        """Let nothing through for a while."""
        self._stalled_until = self._world.loop.time() + seconds

    def _send(self, direction: int, queue: asyncio.Queue[Any], message: Any) -> None:
        at = max(self._world.loop.time() + self._world.latency(), self._free_at[direction] + 1e-6, self._stalled_until)
        self._free_at[direction] = at
        self._world.after(at - self._world.loop.time(), queue.put_nowait, message)

    def snap(self, notice_s: float) -> None:
        """Break it; each end notices at most `notice_s` later."""
        self._cut(None, notice_s)

    def _cut(self, error: type[BaseException] | None, notice_s: float) -> None:
        if self._is_cut:
            return
        self._is_cut = True
        self._network.streams.pop(self, None)
        self._pumping.cancel()
        if error is None:
            self._world.after(
                self._world.rng.uniform(0, notice_s), self._to_client.put_nowait, _broken("connection lost")
            )
        else:
            self._to_client.put_nowait(error())
        if self._serving is not None:
            self._world.after(self._world.rng.uniform(0, notice_s), self._serving.cancel)

    # -- The server's side --------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        if self._is_cut:
            return
        if self.address not in self._network.servers or not self.client.is_alive:
            self._cut(None, 0.001)
            return
        self.server, sessions = self._network.servers[self.address]
        self._serving = self.server.spawn(self._serve(sessions))

    async def _serve(self, sessions: ExecutorSessions) -> None:
        responses: Any = sessions.Session(self._arriving(), None)  # type: ignore[arg-type]
        async with contextlib.aclosing(responses):
            async for together in responses:
                for response in unbundled(together):
                    for watch in self._network.on_response:
                        watch(self, response)
                    if not self._is_cut:
                        self._send(1, self._to_client, type(response).FromString(response.SerializeToString()))
        if not self._is_cut:
            self._send(1, self._to_client, None)
            self._world.after(0.01, self._cut, asyncio.CancelledError, 0.0)

    async def _arriving(self) -> AsyncIterator[Any]:
        while True:
            yield await self._to_server.get()
