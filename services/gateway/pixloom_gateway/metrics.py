"""What the gateway counts, in a registry of its own."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from pixloom.telemetry import names

__all__ = ["METRICS_TYPE", "GatewayMetrics"]

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class GatewayMetrics:
    """Requests by route and calls to the scheduler by method."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._http = Histogram(
            names.METRIC_HTTP_SECONDS,
            "Time until a response began",
            ("method", "route", "code"),
            registry=self._registry,
        )
        self._calls = Histogram(
            names.METRIC_RPC_SECONDS, "Time of calls to the scheduler", ("method", "code"), registry=self._registry
        )

    def request_ended(self, *, method: str, route: str, code: int, seconds: float) -> None:
        """Count a request."""
        self._http.labels(method, route, str(code)).observe(seconds)

    def call_ended(self, method: str, code: str, seconds: float) -> None:
        """Count a call to the scheduler."""
        self._calls.labels(method, code).observe(seconds)

    def render(self) -> bytes:
        """Return everything in the text format of Prometheus."""
        return generate_latest(self._registry)
