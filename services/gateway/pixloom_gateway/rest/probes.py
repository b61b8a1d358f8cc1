"""Routes that machines ask: alive, ready, metrics."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.responses import Response

from pixloom_gateway.metrics import METRICS_TYPE
from pixloom_gateway.rest.replies import reply_json

if TYPE_CHECKING:
    from pixloom_gateway.metrics import GatewayMetrics
    from pixloom_gateway.readiness import ReadinessCheck

__all__ = ["probe_routes"]


def probe_routes(readiness: ReadinessCheck, metrics: GatewayMetrics, *, version: str) -> APIRouter:
    """Return `/healthz`, `/readyz` and `/metrics`."""
    routes = APIRouter(tags=["probes"])

    @routes.get("/healthz")
    async def healthz() -> Response:
        """Tell that the process is alive."""
        return reply_json({"alive": True, "version": version}, headers={"Cache-Control": "no-store"})

    @routes.get("/readyz", responses={503: {"description": "What is missing"}})
    async def readyz() -> Response:
        """Tell whether jobs can be run now, and what is missing."""
        found = await readiness.check()
        return reply_json(asdict(found), status=200 if found.ready else 503, headers={"Cache-Control": "no-store"})

    @routes.get("/metrics", responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
    async def get_metrics() -> Response:
        """Return the metrics in the text format of Prometheus."""
        return Response(metrics.render(), headers={"Content-Type": METRICS_TYPE})

    return routes
