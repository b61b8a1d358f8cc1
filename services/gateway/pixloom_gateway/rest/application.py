"""The REST application: routes and the middleware round them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI

from pixloom_gateway.middleware.failures import FailureMiddleware
from pixloom_gateway.middleware.limits import DEFAULT_LIMITS, LimitsMiddleware, RequestLimits
from pixloom_gateway.middleware.origin import OriginMiddleware
from pixloom_gateway.middleware.tracing import TracingMiddleware
from pixloom_gateway.rest.artifacts import artifact_routes
from pixloom_gateway.rest.catalogue import catalogue_routes
from pixloom_gateway.rest.docs import docs_routes
from pixloom_gateway.rest.events import event_routes
from pixloom_gateway.rest.jobs import job_routes
from pixloom_gateway.rest.openapi import openapi_document
from pixloom_gateway.rest.probes import probe_routes
from pixloom_gateway.rest.problems import install_problem_handlers
from pixloom_gateway.rest.results import result_routes
from pixloom_gateway.rest.two_step import two_step_routes
from pixloom_gateway.rest.unbuilt import unbuilt_routes
from pixloom_gateway.rest.verbs import verb_routes
from pixloom_gateway.rest.workflows import workflow_routes, workflow_verbs

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider
    from starlette.types import ASGIApp

    from pixloom_gateway.metrics import GatewayMetrics
    from pixloom_gateway.readiness import ReadinessCheck
    from pixloom_gateway.rest.context import RouteContext

__all__ = ["build_application", "build_routes"]


def build_routes(context: RouteContext, *, readiness: ReadinessCheck, metrics: GatewayMetrics, version: str) -> FastAPI:
    """Return the application without the middleware."""
    app = FastAPI(
        title="Pixloom",
        version=version,
        description="Durable image-processing workflows. Errors are problem documents (RFC 9457).",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # TracingMiddleware has one span for a request; FastAPI's own would be a second one beside it, not below it.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    # Verbs first: `{id}` would take `x:start` as an id.
    api = APIRouter(prefix="/api/v1")
    for routes in (
        verb_routes(context),
        workflow_verbs(context),
        workflow_routes(context),
        job_routes(context),
        result_routes(context),
        event_routes(context),
        artifact_routes(context),
        catalogue_routes(context),
        unbuilt_routes(),
    ):
        api.include_router(routes)
    app.include_router(api)
    app.include_router(two_step_routes(context))
    app.include_router(probe_routes(readiness, metrics, version=version))
    document: dict[str, Any] = {}

    def described() -> dict[str, Any]:
        if not document:
            document.update(openapi_document(app))
        return document

    app.include_router(docs_routes(described))
    install_problem_handlers(app)
    return app


def build_application(
    context: RouteContext,
    *,
    readiness: ReadinessCheck,
    metrics: GatewayMetrics,
    version: str,
    tracer_provider: TracerProvider | None = None,
    limits: RequestLimits = DEFAULT_LIMITS,
) -> ASGIApp:
    """Return the application as it is served."""
    app: ASGIApp = build_routes(context, readiness=readiness, metrics=metrics, version=version)
    app = LimitsMiddleware(app, default=limits)
    app = OriginMiddleware(app)
    app = FailureMiddleware(app)
    return TracingMiddleware(app, metrics=metrics, tracer_provider=tracer_provider)
