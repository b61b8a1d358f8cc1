"""The docs page, served from the files of an installed package: nothing is fetched from elsewhere."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import orjson
from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from pixloom_gateway.rest.openapi import as_openapi_30
from pixloom_gateway.rest.replies import JSON

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.resources.abc import Traversable

__all__ = ["docs_routes"]

_TYPES: Final = {"css": "text/css", "js": "text/javascript", "png": "image/png"}
_FILES: Final = frozenset(
    {"swagger-ui.css", "swagger-ui-bundle.js", "swagger-ui-standalone-preset.js", "favicon-32x32.png"}
)
_POLICY: Final = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Pixloom API</title>
<link rel="icon" type="image/png" href="/api/docs/favicon-32x32.png">
<link rel="stylesheet" href="/api/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/api/docs/swagger-ui-bundle.js"></script>
<script src="/api/docs/swagger-ui-standalone-preset.js"></script>
<script src="/api/docs/start.js"></script>
</body>
</html>
"""
_START: Final = b"""window.addEventListener("load", () => {
  window.ui = SwaggerUIBundle({
    url: "/api/docs/openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    validatorUrl: null,
    presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset.slice(1)],
    layout: "BaseLayout",
  });
});
"""


def docs_routes(document: Callable[[], dict[str, Any]]) -> APIRouter:
    """Return the routes of the OpenAPI document and the page that shows it."""
    routes = APIRouter(include_in_schema=False)
    folder = _folder()

    @routes.get("/api/openapi.json")
    async def openapi() -> Response:
        return Response(orjson.dumps(document()), media_type=JSON)

    @routes.get("/api/docs")
    async def page() -> Response:
        return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})

    @routes.get("/api/docs/openapi.json")
    async def openapi_for_page() -> Response:
        return Response(orjson.dumps(as_openapi_30(document())), media_type=JSON)

    @routes.get("/api/docs/start.js")
    async def start() -> Response:
        return Response(_START, media_type=_TYPES["js"])

    @routes.get("/api/docs/{name}")
    async def file(name: str) -> Response:
        if name not in _FILES:
            raise HTTPException(404)
        content = folder.joinpath(name).read_bytes()
        return Response(
            content, media_type=_TYPES[name.rpartition(".")[2]], headers={"Cache-Control": "private, max-age=86400"}
        )

    return routes


def _folder() -> Traversable:
    """Return the folder with the page's files; its name carries their version."""
    for entry in files("swagger_ui_bundle").joinpath("vendor").iterdir():
        if entry.joinpath("swagger-ui-bundle.js").is_file():
            return entry
    raise FileNotFoundError("swagger-ui-bundle.js")
