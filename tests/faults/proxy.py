"""A TCP proxy that does to connections what networks do: latency, silence one way or both, refusal, cuts.

Every connection through it has two directions. What arrives in one is passed on after `latency_s`, unless that
direction is silent: then it is swallowed while both ends believe that the connection stands, which is what a half-open
connection is. A `Filter` sees the bytes of the client before they are passed on and may cut the connection there.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass, field
from enum import Flag, auto
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Cut", "FaultProxy", "Filter", "Side"]

CHUNK_BYTES = 64 * 1024


class Side(Flag):
    """A direction of a connection, named by where the bytes go."""

    NONE = 0
    TO_SERVER = auto()
    TO_CLIENT = auto()
    BOTH = TO_SERVER | TO_CLIENT


class Cut(Exception):  # noqa: N818 - it is no error but a verdict
    """Ends a connection.

    Args:
        passed: Bytes that still go to the server.
        await_answer: Whether the server's next bytes are waited for, and swallowed, before the cut.
    """

    def __init__(self, passed: bytes = b"", *, await_answer: bool = False) -> None:
        super().__init__()
        self.passed = passed
        self.await_answer = await_answer


class Filter(Protocol):
    """Sees what one client sends."""

    def client_sent(self, data: bytes) -> None:
        """Look at bytes that are about to be passed on.

        Raises:
            Cut: If the connection is to end here.
        """


class _Nothing:
    def client_sent(self, data: bytes) -> None:
        pass


@dataclass(slots=True, eq=False)
class _Connection:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    swallowing: bool = False

    def cut(self) -> None:
        """Reset both ends, without the farewell of an ordinary close."""
        for writer in (self.client, self.server):
            end = writer.get_extra_info("socket")
            if end is not None and end.family != socket.AF_UNIX:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class FaultProxy:
    """Listens on 127.0.0.1 and passes connections on to one server.

    Attributes:
        latency_s: Seconds that bytes take each way.
        silent: Directions in which bytes vanish.
        connections: Number of connections that were opened so far.
        cuts: Number of connections that a filter cut.
    """

    def __init__(self, *, make_filter: Callable[[], Filter] = _Nothing) -> None:
        self.latency_s = 0.0
        self.silent = Side.NONE
        self.connections = 0
        self.cuts = 0
        self.make_filter = make_filter
        self._target: tuple[str, int] | Path | None = None
        self._server: asyncio.Server | None = None
        self._open: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._port = 0

    @property
    def port(self) -> int:
        """The port it listens on, the same for its whole life."""
        return self._port

    def aim(self, target: tuple[str, int] | Path) -> None:
        """Name the server: host and port, or a unix socket."""
        self._target = target

    async def listen(self) -> None:
        """Accept connections; does nothing if it does already."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port, limit=2 * CHUNK_BYTES)
            self._port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Refuse new connections and reset those there are."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self.cut()

    def cut(self) -> None:
        """Reset all connections."""
        for connection in list(self._open):
            connection.cut()

    def restore(self) -> None:
        """Take all faults away; connections on which bytes were lost are reset, as no network could mend them."""
        was_silent, self.silent = self.silent, Side.NONE
        self.latency_s = 0.0
        self.make_filter = _Nothing
        if was_silent:
            self.cut()

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            if isinstance(self._target, tuple):
                server_reader, server_writer = await asyncio.open_connection(*self._target)
            elif self._target is not None:
                server_reader, server_writer = await asyncio.open_unix_connection(self._target)
            else:
                raise ConnectionRefusedError
        except OSError:
            writer.transport.abort()
            return
        self.connections += 1
        connection = _Connection(writer, server_writer)
        self._open.add(connection)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump_to_server(connection, reader))
                pumps.create_task(self._pump(connection, server_reader, writer, Side.TO_CLIENT))
        except* (OSError, Cut):
            pass
        finally:
            self._open.discard(connection)
            connection.cut()

    async def _pump_to_server(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        watch = self.make_filter()
        try:
            await self._pump(connection, reader, connection.server, Side.TO_SERVER, watch=watch)
        except Cut as cut:
            self.cuts += 1
            if cut.await_answer:
                connection.swallowing = True
                connection.answered.clear()
            connection.server.write(cut.passed)
            await connection.server.drain()
            if cut.await_answer:
                async with asyncio.timeout(5):
                    await connection.answered.wait()
            raise

    async def _pump(
        self,
        connection: _Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        side: Side,
        *,
        watch: Filter | None = None,
    ) -> None:
        """Pass one direction on until it ends; what comes meanwhile waits its time in a queue."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        async def deliver() -> None:
            while True:
                due, data = await under_way.get()
                if (wait_s := due - loop.time()) > 0:
                    await asyncio.sleep(wait_s)
                writer.write(data)
                await writer.drain()

        delivery = asyncio.create_task(deliver())
        try:
            while data := await reader.read(CHUNK_BYTES):
                if side is Side.TO_CLIENT:
                    connection.answered.set()
                    if connection.swallowing:
                        continue
                if watch is not None:
                    watch.client_sent(data)
                if side in self.silent:
                    continue
                if delivery.done():
                    return
                under_way.put_nowait((loop.time() + self.latency_s, data))
        finally:
            delivery.cancel()
            await asyncio.gather(delivery, return_exceptions=True)
        if side not in self.silent:
            raise ConnectionResetError  # one end is done: the other is told
