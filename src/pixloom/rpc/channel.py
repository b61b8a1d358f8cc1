"""gRPC channels as every client opens them: traced, kept alive, with retries for calls that may be repeated."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import grpc

from pixloom.telemetry.grpc_clients import TracingSyncInterceptor, tracing_client_interceptors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.trace import TracerProvider

__all__ = ["FIXED_WINDOW", "aio_channel", "service_config", "sync_channel"]

_MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024

FIXED_WINDOW: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1024 * 1024),
)
"""For both sides of the sessions of executors: a window that is large from the beginning and not fitted to the line.

To fit it, gRPC follows what arrives with pings that are answered. Of a stream that carries a heartbeat each second, they
were half of what woke its threads, each of which then looks for more work a dozen times within the next second.
"""


@cache
def service_config() -> str:
    """Return the service config (JSON) with the retries; it may be used with clients in any language."""
    return files("pixloom.rpc").joinpath("service_config.json").read_text(encoding="utf-8")


def _options(more: Sequence[tuple[str, Any]]) -> tuple[tuple[str, Any], ...]:
    defaults: dict[str, Any] = {
        "grpc.service_config": service_config(),
        "grpc.enable_retries": 1,
        "grpc.max_receive_message_length": _MAX_MESSAGE_BYTES,
        "grpc.max_send_message_length": _MAX_MESSAGE_BYTES,
        # Room for the problems of a document, which travel in the trailers of an error.
        "grpc.max_metadata_size": 64 * 1024,
        "grpc.absolute_max_metadata_size": 128 * 1024,
        # Notice a peer that is gone without a word, but do not disturb idle ones.
        "grpc.keepalive_time_ms": 10_000,
        "grpc.keepalive_timeout_ms": 5_000,
        "grpc.http2.max_pings_without_data": 0,
        # A peer that restarts is back within a second or two.
        "grpc.initial_reconnect_backoff_ms": 100,
        # By this name gRPC knows how long an attempt to connect may take. A peer that does not get the processor must
        # not seem to be away: of calls that are not repeated, each would fail.
        "grpc.min_reconnect_backoff_ms": 2_000,
        "grpc.max_reconnect_backoff_ms": 2_000,
        # Everything is on loopback: a proxy of the environment would only be in the way.
        "grpc.enable_http_proxy": 0,
    }
    return tuple({**defaults, **dict(more)}.items())


def aio_channel(
    address: str,
    *,
    options: Sequence[tuple[str, Any]] = (),
    tracer_provider: TracerProvider | None = None,
    is_traced: bool = True,
) -> grpc.aio.Channel:
    """Open a channel for asyncio; it connects with the first call.

    Args:
        address: `host:port` or `unix:/path`.
        options: More channel arguments; they win over the default ones.
        tracer_provider: Who makes the client spans; the process's own if not given.
        is_traced: Whether calls carry the trace context. A session of an executor does without: its messages carry
            their own, and gRPC sends each message of an intercepted stream through a queue and two tasks.
    """
    interceptors = tuple(tracing_client_interceptors(tracer_provider)) if is_traced else ()
    return grpc.aio.insecure_channel(address, options=_options(options), interceptors=interceptors)


def sync_channel(address: str, *, options: Sequence[tuple[str, Any]] = ()) -> grpc.Channel:
    """Open a channel for threads; it connects with the first call.

    Args:
        address: `host:port` or `unix:/path`.
        options: More channel arguments; they win over the default ones.
    """
    return grpc.intercept_channel(grpc.insecure_channel(address, options=_options(options)), TracingSyncInterceptor())
