"""What a handler raises becomes a status: errors of Pixloom as they are, anything else as INTERNAL.

The text of an unexpected error may hold anything (a database address, a row of somebody's data), so it goes to the
log only, and the caller gets the trace id under which it is found there.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from opentelemetry import trace

from pixloom.errors import InternalError, OurError, PixloomError
from pixloom.rpc.handlers import wrap_handler
from pixloom.rpc.status import PROBLEMS_BYTES, abort

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

__all__ = ["ErrorInterceptor"]


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns exceptions of handlers into statuses; put it after tracing."""

    def __init__(self, *, problems_bytes: int = PROBLEMS_BYTES) -> None:
        self._problems_bytes = problems_bytes
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("pixloom.rpc")

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

        @asynccontextmanager
        async def around(context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
            try:
                yield
            except (grpc.aio.AbortError, asyncio.CancelledError):
                raise
            except PixloomError as error:
                if isinstance(error, OurError):
                    self._log.exception("rpc_failed", method=method, reason=error.reason)
                await abort(context, error, problems_bytes=self._problems_bytes)
            except Exception:  # noqa: BLE001 (whatever a handler raises must not reach the caller)
                self._log.exception("rpc_crashed", method=method)
                await abort(context, _defect())

        return wrap_handler(handler, around)


def _defect() -> InternalError:
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return InternalError("The service failed; its log says why.")
    trace_id = trace.format_trace_id(span.trace_id)
    return InternalError(
        f"The service failed; its log says why under trace {trace_id}.", metadata={"trace_id": trace_id}
    )
