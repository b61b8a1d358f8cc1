"""How much a request may bring and how long it may take until its answer begins."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pixloom.errors import DeadlineError, InvalidError
from pixloom.graph.limits import MAX_DOCUMENT_BYTES
from pixloom_gateway.rest.preferences import preferred_wait_s
from pixloom_gateway.uploads import MAX_UPLOAD_BYTES

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["DEFAULT_LIMITS", "LimitsMiddleware", "RequestLimits"]


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Limits of one kind of request.

    Attributes:
        max_bytes: Most bytes of the body.
        timeout_s: Most seconds until the answer begins, besides those that the caller prefers to wait.
    """

    max_bytes: int
    timeout_s: float


# A document and what a job puts round it.
DEFAULT_LIMITS: Final = RequestLimits(max_bytes=MAX_DOCUMENT_BYTES + 256 * 1024, timeout_s=30.0)
UPLOAD_LIMITS: Final = RequestLimits(max_bytes=MAX_UPLOAD_BYTES, timeout_s=600.0)
_UPLOAD_PATH: Final = "/api/v1/artifacts"


class LimitsMiddleware:
    """Ends requests that are too large or take too long; what it raises is answered outside."""

    def __init__(
        self, app: ASGIApp, *, default: RequestLimits = DEFAULT_LIMITS, upload: RequestLimits = UPLOAD_LIMITS
    ) -> None:
        self._app = app
        self._default = default
        self._upload = upload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limits = self._upload if scope["path"] == _UPLOAD_PATH else self._default
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > limits.max_bytes:
            raise _too_large(limits.max_bytes)
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > limits.max_bytes:
                    raise _too_large(limits.max_bytes)
            return message

        timeout_s = limits.timeout_s + preferred_wait_s(headers.get(b"prefer", b"").decode("latin-1"))
        try:
            async with asyncio.timeout(timeout_s) as timeout:

                async def send_begun(message: Message) -> None:
                    # Streams last as long as they last.
                    if timeout.when() is not None:
                        timeout.reschedule(None)
                    await send(message)

                await self._app(scope, receive_counted, send_begun)
        except TimeoutError as error:
            if not timeout.expired():
                raise
            raise DeadlineError(
                f"The request took longer than {timeout_s:g} s; try again.", retry_after_s=1.0
            ) from error


def _too_large(max_bytes: int) -> InvalidError:
    return InvalidError(f"The body is larger than {max_bytes:,} bytes.", reason="TOO_LARGE")
