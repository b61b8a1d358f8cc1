"""What a handler raises becomes a status: errors of Pixloom as they are, anything else as INTERNAL.

The text of an unexpected error may hold anything (a database address, a row of somebody's data), so it goes to the
log only, and the caller gets the trace id under which it is found there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import structlog
from opentelemetry import trace

from pixloom.errors import InternalError, OurError, PixloomError
from pixloom.rpc.handlers import WrappedHandlers
from pixloom.rpc.status import PROBLEMS_BYTES, abort

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

__all__ = ["ErrorInterceptor"]

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger("pixloom.rpc")


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns exceptions of handlers into statuses; put it after tracing."""

    def __init__(self, *, problems_bytes: int = PROBLEMS_BYTES) -> None:
        self._problems_bytes = problems_bytes
        self._wrapped = WrappedHandlers(lambda method: lambda context: _Guard(method, context, self._problems_bytes))

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler of one RPC."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(("/grpc.health.", "/grpc.reflection.")):
            return handler
        return self._wrapped.of(method, handler)


class _Guard:
    """Round one call: what it raises becomes its status."""

    __slots__ = ("_context", "_method", "_problems_bytes")

    def __init__(self, method: str, context: grpc.aio.ServicerContext[Any, Any], problems_bytes: int) -> None:
        self._method = method
        self._context = context
        self._problems_bytes = problems_bytes

    async def __aenter__(self) -> None:
        return

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception) or isinstance(error, grpc.aio.AbortError):
            return
        if isinstance(error, PixloomError):
            if isinstance(error, OurError):
                _log.error("rpc_failed", method=self._method, reason=error.reason, exc_info=error)
            await abort(self._context, error, problems_bytes=self._problems_bytes)
        else:
            # Whatever a handler raises must not reach the caller.
            _log.error("rpc_crashed", method=self._method, exc_info=error)
            await abort(self._context, _defect())


def _defect() -> InternalError:
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return InternalError("The service failed; its log says why.")
    trace_id = trace.format_trace_id(span.trace_id)
    return InternalError(
        f"The service failed; its log says why under trace {trace_id}.", metadata={"trace_id": trace_id}
    )
