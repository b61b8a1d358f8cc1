"""The last resort: whatever nobody turned into an answer becomes a problem document and a line in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from pixloom.errors import PixloomError
from pixloom_gateway.rest.problems import defect, problem_response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["FailureMiddleware"]

_LOG: Final = structlog.get_logger("pixloom.gateway")


class FailureMiddleware:
    """Answers what the application raised."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = finished = False

        async def send_noted(message: Message) -> None:
            nonlocal started, finished
            started = True
            finished = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        except PixloomError as error:
            if started:
                raise
            await problem_response(error, instance=scope["path"])(scope, receive, send)
        except Exception:  # the last resort: the log has the traceback, the caller only the trace id
            _LOG.exception("request_crashed", method=scope["method"], path=scope["path"])
            if not started:
                await problem_response(defect(), instance=scope["path"])(scope, receive, send)
            elif not finished:
                # The server must cut the connection, or the caller would take a part for the whole.
                raise
