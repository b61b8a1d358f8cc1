"""A gRPC server as every part runs it: tracing, errors, health and reflection.

server = build_server(interceptors=[…])
add_JobServiceServicer_to_server(Jobs(…), server)
health = await publish_services(server, ["pixloom.v1.JobService"])
listen(server, settings.scheduler_listen)
await server.start()
await health.set("", SERVING)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from pixloom.errors import MachineError
from pixloom.rpc.error_interceptor import ErrorInterceptor
from pixloom.rpc.status import PROBLEMS_BYTES
from pixloom.settings import loopback_only
from pixloom.telemetry.grpc_interceptors import TracingServerInterceptor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.trace import TracerProvider

__all__ = ["INTERNAL_PROBLEMS_BYTES", "MAX_MESSAGE_BYTES", "build_server", "listen", "publish_services"]

MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024
# What fits into the trailers that `pixloom.rpc.channel` accepts, base64 and the rest of them counted in.
INTERNAL_PROBLEMS_BYTES: Final = 40 * 1024

_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A second server on the same port must fail rather than take half of the calls.
    ("grpc.so_reuseport", 0),
    # Ask a silent client every 10 s whether it is there, and allow clients to ask every 5 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
)


def build_server(
    *,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    options: Sequence[tuple[str, Any]] = (),
    maximum_concurrent_rpcs: int | None = None,
    tracer_provider: TracerProvider | None = None,
    problems_bytes: int = PROBLEMS_BYTES,
) -> grpc.aio.Server:
    """Make a server that traces its calls and turns errors into statuses.

    Args:
        interceptors: More interceptors, inside of tracing and errors, first one outermost.
        options: More channel arguments; they win over the default ones.
        maximum_concurrent_rpcs: Calls beyond are answered RESOURCE_EXHAUSTED; None means no limit.
        tracer_provider: Who makes the spans; the process's own if not given.
        problems_bytes: Room for the problems of an error. A server that only channels of `pixloom.rpc.channel` call
            may give up to `INTERNAL_PROBLEMS_BYTES`, so that none is left out on the way to the gateway.

    Returns:
        The server, without services and addresses yet.
    """
    return grpc.aio.server(
        interceptors=(
            TracingServerInterceptor(tracer_provider),
            ErrorInterceptor(problems_bytes=problems_bytes),
            *interceptors,
        ),
        options=tuple({**dict(_OPTIONS), **dict(options)}.items()),
        maximum_concurrent_rpcs=maximum_concurrent_rpcs,
    )


async def publish_services(server: grpc.aio.Server, services: Sequence[str]) -> health.aio.HealthServicer:
    """Add health and reflection for services that are registered; call it before the start.

    Args:
        server: The server.
        services: Full names, such as `pixloom.v1.JobService`.

    Returns:
        The health service: everything is NOT_SERVING until its `set` says otherwise; `""` is the whole server.
    """
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for name in ("", *services):
        await servicer.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
    reflection.enable_server_reflection((*services, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return servicer


def listen(server: grpc.aio.Server, address: str) -> int:
    """Bind a server to a loopback address or a unix socket.

    Args:
        server: The server, not started yet.
        address: `host:port` (port 0 takes a free one) or `unix:/path`.

    Returns:
        The port; 1 for a unix socket.

    Raises:
        InvalidError: If the address is not a loopback one.
        MachineError: If it is in use.
    """
    if not address.startswith("unix:"):
        host, port = loopback_only(address)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError as error:
        raise MachineError(
            f"{address} cannot be bound: another process uses it. Stop that one or choose another address."
        ) from error
    if bound == 0:
        raise MachineError(f"{address} cannot be bound: another process uses it. Choose another address.")
    return bound
