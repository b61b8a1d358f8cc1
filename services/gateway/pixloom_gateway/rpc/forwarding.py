"""Calls passed on to the scheduler as bytes: neither parsed nor copied into other messages on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import grpc

from pixloom_gateway.upstream.methods import is_repeatable, read_creation
from pixloom_gateway.upstream.scheduler import error_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from google.protobuf.descriptor import ServiceDescriptor

    from pixloom_gateway.upstream.scheduler import Metadata, Scheduler

__all__ = ["add_forwarded_services", "carried_metadata"]

# What belongs to one hop: the trace context is put in anew by the channel, so that spans nest.
_HOP_KEYS: Final = frozenset({"traceparent", "tracestate", "user-agent", "content-type", "te", "host"})
_RESERVED_PREFIX: Final = "grpc-"
_STATUS_DETAILS: Final = "grpc-status-details-bin"
_PUSHBACK: Final = "grpc-retry-pushback-ms"
_TRACE_ID: Final = "x-trace-id"


def add_forwarded_services(
    server: grpc.aio.Server,
    scheduler: Scheduler,
    services: Iterable[ServiceDescriptor],
    *,
    own: dict[str, grpc.RpcMethodHandler[Any, Any]],
) -> list[str]:
    """Register services whose calls are passed on.

    Args:
        server: The server, not started yet.
        scheduler: Where they go.
        services: Their descriptors.
        own: Handlers by full method name that take the place of passing on.

    Returns:
        The full names of the services.
    """
    names = []
    for service in services:
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for method in service.methods:
            path = f"/{service.full_name}/{method.name}"
            if path in own:
                handlers[method.name] = own[path]
            elif method.server_streaming or method.client_streaming:
                raise AssertionError(path)
            else:
                handlers[method.name] = grpc.unary_unary_rpc_method_handler(_forward_to(scheduler, path))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
        names.append(service.full_name)
    return names


def carried_metadata(metadata: Iterable[Any] | None) -> Metadata:
    """Return the metadata of a call that go on to the next hop."""
    return tuple(
        (key, value)
        for key, value in metadata or ()
        if key not in _HOP_KEYS and not key.startswith((_RESERVED_PREFIX, ":"))
    )


def _forward_to(scheduler: Scheduler, path: str) -> Callable[[bytes, Any], Awaitable[bytes]]:
    repeatable = is_repeatable(path)

    async def forward(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        has_request_id, wait_s = read_creation(path, request)
        try:
            response, trailers = await scheduler.forward(
                path,
                request,
                metadata=carried_metadata(context.invocation_metadata()),
                timeout_s=context.time_remaining(),
                repeatable=repeatable or has_request_id,
                wait_s=wait_s,
            )
        except grpc.aio.AioRpcError as error:
            trailers = tuple(error.trailing_metadata() or ())
            if not any(key == _STATUS_DETAILS for key, _ in trailers):
                # Without details the status is the transport's, whose text stays here.
                raise error_of(error) from error
            await context.abort(error.code(), error.details() or "", _merged(context, trailers))
            raise AssertionError from error  # abort always raises
        context.set_trailing_metadata(_merged(context, trailers))
        return response

    return forward


def _merged(context: grpc.aio.ServicerContext[bytes, bytes], trailers: Iterable[Any]) -> Any:
    """Return the trailers set here and those received; the trace id is this side's."""
    own: Any = context.trailing_metadata() or ()
    kept = [
        (key, value)
        for key, value in trailers
        if key in (_STATUS_DETAILS, _PUSHBACK) or (key != _TRACE_ID and not key.startswith(_RESERVED_PREFIX))
    ]
    return (*own, *kept)
