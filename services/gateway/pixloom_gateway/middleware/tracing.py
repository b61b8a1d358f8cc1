"""A server span for every request, child of the caller's, its trace id in the response headers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace

from pixloom.telemetry import names
from pixloom.telemetry.propagation import extract

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from pixloom_gateway.metrics import GatewayMetrics

__all__ = ["TracingMiddleware"]

# Probes come every second and say nothing.
_UNTRACED: Final = frozenset({"/healthz", "/readyz", "/metrics"})
_OTHER_ROUTE: Final = "(none)"


class TracingMiddleware:
    """Traces and counts requests; put it outermost."""

    def __init__(
        self, app: ASGIApp, *, metrics: GatewayMetrics, tracer_provider: trace.TracerProvider | None = None
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._tracer = trace.get_tracer("pixloom.gateway", tracer_provider=tracer_provider)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] in _UNTRACED:
            await self._app(scope, receive, send)
            return
        parent = extract(_trace_headers(scope))
        span = self._tracer.start_span(
            scope["method"],
            context=parent,
            kind=trace.SpanKind.SERVER,
            attributes={"http.request.method": scope["method"], "url.path": scope["path"], "url.scheme": "http"},
        )
        token = otel_context.attach(trace.set_span_in_context(span, parent))
        started_at = time.monotonic()
        code = 0
        seconds = 0.0

        async def send_traced(message: Message) -> None:
            nonlocal code, seconds
            if message["type"] == "http.response.start":
                code, seconds = message["status"], time.monotonic() - started_at
                span_context = span.get_span_context()
                if span_context.is_valid:
                    trace_id = trace.format_trace_id(span_context.trace_id).encode()
                    message["headers"] = [*message.get("headers", ()), (names.HEADER_TRACE_ID.encode(), trace_id)]
            await send(message)

        try:
            await self._app(scope, receive, send_traced)
        finally:
            route = _route_of(scope)
            span.update_name(f"{scope['method']} {route}" if route != _OTHER_ROUTE else scope["method"])
            span.set_attribute("http.route", route)
            span.set_attribute("http.response.status_code", code)
            if code >= 500 or code == 0:
                span.set_status(trace.Status(trace.StatusCode.ERROR))
            span.end()
            otel_context.detach(token)
            self._metrics.request_ended(method=scope["method"], route=route, code=code, seconds=seconds)


def _trace_headers(scope: Scope) -> dict[str, str]:
    return {
        key.decode("latin-1"): value.decode("latin-1")
        for key, value in scope["headers"]
        if key in (b"traceparent", b"tracestate")
    }


def _route_of(scope: Scope) -> str:
    """Return the path of the route with its parameters by name, so that it takes few values."""
    route: Any = scope.get("route")
    path = getattr(route, "path", None)
    if path is None:
        return _OTHER_ROUTE
    # A route knows its path below the router that holds it; parameters never span segments, so the rest is the prefix.
    prefix = scope["path"].split("/")[: -path.count("/")]
    return "/".join(prefix) + str(path)
