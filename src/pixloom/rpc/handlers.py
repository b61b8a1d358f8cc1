"""Wrapping of RPC handlers: one way in for the four kinds, so that an interceptor is written once.

A handler runs in a task of its own, with its own context variables. A wrapper is an async context manager round it;
for streams it is entered and left inside the generator that gRPC drives. When gRPC abandons that generator because
the client is gone, the generator is closed later, by another task: a wrapper whose end matters must also hook
`context.add_done_callback`.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    Around = Callable[[grpc.aio.ServicerContext[Any, Any]], AbstractAsyncContextManager[None]]

__all__ = ["WrappedHandlers", "wrap_handler"]


class WrappedHandlers:
    """Handlers with something round them, made once for each method and not for each call.

    Args:
        around: Returns what is put round the calls of a method.
    """

    def __init__(self, around: Callable[[str], Around]) -> None:
        self._around = around
        self._known: dict[str, tuple[Any, grpc.RpcMethodHandler[Any, Any]]] = {}

    def of(self, method: str, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        """Return the wrapped handler of a registered method."""
        known = self._known.get(method)
        if known is None or known[0] is not handler:
            known = self._known[method] = (handler, wrap_handler(handler, self._around(method)))
        return known[1]


def wrap_handler(handler: grpc.RpcMethodHandler[Any, Any], around: Around) -> grpc.RpcMethodHandler[Any, Any]:
    """Return a handler that runs inside `around(context)`.

    Args:
        handler: What a servicer registered; its behaviours are coroutine functions or async generator functions.
        around: Makes the context manager of one RPC.
    """
    inner: Any = handler
    behaviour = inner.unary_unary or inner.stream_unary or inner.unary_stream or inner.stream_stream

    async def run(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        async with around(context):
            return await behaviour(request, context)

    async def iterate(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        async with around(context):
            responses = behaviour(request, context)
            if inspect.isawaitable(responses):
                # The other style of streaming handlers: they call `context.write` themselves.
                await responses
                return
            async for response in responses:
                yield response

    make: Any = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[bool(inner.request_streaming), bool(inner.response_streaming)]
    wrapped: grpc.RpcMethodHandler[Any, Any] = make(
        iterate if inner.response_streaming else run,
        request_deserializer=inner.request_deserializer,
        response_serializer=inner.response_serializer,
    )
    return wrapped
