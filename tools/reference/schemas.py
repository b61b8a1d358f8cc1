"""The JSON documents: the schema of workflows, and the gateway's OpenAPI document."""

from __future__ import annotations

import json
from dataclasses import fields
from importlib.metadata import version
from typing import Any

from pixloom.graph import workflow_json_schema
from pixloom_gateway.metrics import GatewayMetrics
from pixloom_gateway.rest.application import build_routes
from pixloom_gateway.rest.context import RouteContext
from pixloom_gateway.rest.openapi import openapi_document

__all__ = ["openapi_page", "workflow_schema_page"]


def _json(document: Any) -> str:
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def workflow_schema_page() -> str:
    """Return the JSON Schema of workflow documents."""
    return _json(workflow_json_schema())


def openapi_page() -> str:
    """Return the OpenAPI document; describing the routes calls none of the parts behind them."""
    nothing: Any = None
    context = RouteContext(**dict.fromkeys((field.name for field in fields(RouteContext)), nothing))
    app = build_routes(context, readiness=nothing, metrics=GatewayMetrics(), version=version("pixloom"))
    return _json(openapi_document(app))
