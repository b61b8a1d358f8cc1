"""Who asks: only pages and programs that name this machine.

Loopback alone does not keep strangers out. A page from anywhere can make a browser on this machine send requests here,
under its own name (cross-site requests: the Origin differs from the Host) or under a name that it lets resolve to
127.0.0.1 (DNS rebinding: the Host is a stranger's). Both are refused before anything is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from pixloom.errors import ForbiddenError
from pixloom_gateway.rest.problems import problem_response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["OriginMiddleware", "refusal_of"]

_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


class OriginMiddleware:
    """Refuses requests with a foreign Host or Origin."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        server = scope.get("server")
        refusal = refusal_of(_values(scope, b"host"), _values(scope, b"origin"), port=server[1] if server else None)
        if refusal is not None:
            await problem_response(ForbiddenError(refusal), instance=scope["path"])(scope, receive, send)
            return
        await self._app(scope, receive, send)


def refusal_of(hosts: list[str], origins: list[str], *, port: int | None) -> str | None:
    """Return why a request is refused, or None.

    Args:
        hosts: Its Host headers.
        origins: Its Origin headers.
        port: The port it came in by; None if it came by something else.
    """
    if len(hosts) != 1:
        return "The request must have one Host header."
    host = hosts[0].strip().lower()
    name, given_port = _split_host(host)
    if name not in _LOOPBACK_NAMES or (given_port is not None and given_port != str(port)):
        return f"The Host {hosts[0][:100]!r} is not this service: use localhost, 127.0.0.1 or [::1] with its port."
    if not origins:
        return None
    if len(origins) != 1:
        return "The request has several Origin headers."
    origin = urlsplit(origins[0].strip().lower())
    if origin.scheme not in {"http", "https"} or origin.netloc != host:
        return f"The Origin {origins[0][:100]!r} is another site than the Host {host!r}."
    return None


def _split_host(host: str) -> tuple[str, str | None]:
    if host.startswith("["):
        name, bracket, rest = host.partition("]")
        if not bracket:
            return host, None
        return name + "]", rest[1:] if rest.startswith(":") else (rest or None)
    name, colon, port = host.partition(":")
    return name, port if colon else None


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]
