"""The gateway's life: both servers in one loop, from listening to the last answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Final

import structlog
import uvicorn
from grpc_health.v1 import health_pb2

from pixloom.errors import MachineError
from pixloom.rpc.server import listen
from pixloom.settings import loopback_only

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import grpc
    from grpc_health.v1.health import aio as health_aio
    from starlette.types import ASGIApp

    from pixloom_gateway.addresses import Addresses
    from pixloom_gateway.upstream.scheduler import Scheduler

__all__ = ["Gateway"]

_LOG: Final = structlog.get_logger("pixloom.gateway")
_BACKLOG: Final = 1024
# What is under way when the process stops has this long to end.
_GRACE_S: Final = 3.0
# How often the Date header of the answers is set anew, seconds.
_TICK_S: Final = 1.0


class _Server(uvicorn.Server):
    """A server that leaves signals to the process, and that wakes once a second instead of ten times."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._leaving = asyncio.Event()

    def leave(self) -> None:
        """Take nothing new and end."""
        self.should_exit = True
        self._leaving.set()

    async def main_loop(self) -> None:
        """Keep the date of the answers right until it is time to leave."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S):
                    await self._leaving.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no handlers."""
        yield


class Gateway:
    """Serves REST and gRPC until it is stopped."""

    def __init__(
        self,
        *,
        application: ASGIApp,
        rpc_server: grpc.aio.Server,
        rpc_services: Sequence[str],
        health: health_aio.HealthServicer,
        scheduler: Scheduler,
        closing: asyncio.Event,
        addresses: Addresses,
    ) -> None:
        """Take the parts; nothing listens yet.

        Args:
            application: The REST application.
            rpc_server: The gRPC server with its services, not started.
            rpc_services: Their full names.
            health: Its health service.
            scheduler: The client to close at the end.
            closing: Set when stopping begins.
            addresses: Loopback addresses of both sides; port 0 takes a free one, and is replaced by it.
        """
        self._application = application
        self._rpc_server = rpc_server
        self._rpc_services = ("", *rpc_services)
        self._health = health
        self._scheduler = scheduler
        self._closing = closing
        self._addresses = addresses
        self._http: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def http_address(self) -> str:
        """Where REST is served, `host:port`."""
        return self._addresses.http

    @property
    def grpc_address(self) -> str:
        """Where gRPC is served, `host:port`."""
        return self._addresses.grpc

    async def start(self) -> None:
        """Listen; when this returns both sides answer.

        Raises:
            InvalidError: If an address is not a loopback one.
            MachineError: If an address is in use.
        """
        addresses = self._addresses
        http_socket, addresses.http = _bind(addresses.http)
        try:
            host, _ = loopback_only(addresses.grpc)
            port = listen(self._rpc_server, addresses.grpc)
            addresses.grpc = _address(host, port)
            await self._rpc_server.start()
        except BaseException:
            http_socket.close()
            raise
        config = uvicorn.Config(
            self._application,
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_keep_alive=30,
            timeout_graceful_shutdown=int(_GRACE_S),
        )
        self._http = _Server(config)
        self._serving = asyncio.create_task(self._http.serve(sockets=[http_socket]))
        for name in self._rpc_services:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        _LOG.info("gateway_listening", http=self.http_address, grpc=self.grpc_address)

    async def wait(self) -> None:
        """Return when the HTTP server has ended, which it does by itself only when something is wrong."""
        if self._serving is not None:
            await asyncio.shield(self._serving)

    async def stop(self) -> None:
        """Take nothing new, finish what is under way, and close; calling it again does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        await self._health.enter_graceful_shutdown()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._rpc_server.stop(_GRACE_S))
            if self._http is not None and self._serving is not None:
                self._http.leave()
                group.create_task(_ended(self._serving))
        await self._scheduler.close()
        _LOG.info("gateway_stopped")


async def _ended(task: asyncio.Task[None]) -> None:
    await task


def _bind(address: str) -> tuple[socket.socket, str]:
    host, port = loopback_only(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A port that was just given up can be taken at once; one that somebody listens on cannot.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(_BACKLOG)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise MachineError(
            f"{address} cannot be bound: {error.strerror}. Stop what uses it or set PIXLOOM_GATEWAY_HTTP_LISTEN."
        ) from error
    return bound, _address(host, bound.getsockname()[1])


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
