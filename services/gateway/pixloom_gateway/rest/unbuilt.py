"""Paths of the interface whose meaning is not built yet: whoever asks is told so, not that there is nothing."""

# ruff: noqa: TC002 - FastAPI reads annotations at run time

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from pixloom.errors import InvalidError

__all__ = ["unbuilt_routes"]

_ANY: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_PATHS: Final[dict[str, tuple[str, ...]]] = {
    "/schedules": _ANY,
    "/schedules/{id}": _ANY,
    "/hooks": _ANY,
    "/hooks/{id}": _ANY,
    "/keys": _ANY,
    "/keys/{id}": _ANY,
    "/callbacks/{token}": _ANY,
    "/jobs/{id}/trace": ("GET",),
    "/jobs/{id}/nodes/{node}/logs": ("GET",),
    "/jobs/{id}/nodes/{node}:approve": ("POST",),
    "/jobs/{id}/nodes/{node}:reject": ("POST",),
}


def unbuilt_routes() -> APIRouter:
    """Return the routes; the OpenAPI document leaves them out."""
    routes = APIRouter(include_in_schema=False)

    async def refuse(request: Request) -> Response:
        raise InvalidError(
            f"{request.method} {request.url.path} is not built yet; /api/docs lists what is.", reason="NOT_SUPPORTED"
        )

    for path, methods in _PATHS.items():
        routes.add_api_route(path, refuse, methods=list(methods))
    return routes
