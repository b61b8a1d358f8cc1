"""Routes of artifacts. Digests name content, so an answer may be kept for ever."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Header, Path, Request
from starlette.responses import Response, StreamingResponse

from pixloom.artifacts.store import absent
from pixloom.resources import Artifact
from pixloom_gateway.rest.etags import is_listed
from pixloom_gateway.rest.ranges import parse_range
from pixloom_gateway.rest.replies import PROBLEMS, quoted, reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pixloom_gateway.rest.context import RouteContext

__all__ = ["artifact_routes"]

Digest = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 of the bytes.")]
# Types that a browser shows without running anything; the rest is downloaded.
_SHOWN: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp", "image/avif", "image/tiff"})
_BINARY: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The bytes", "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}},
    206: {"description": "The bytes of the range"},
    304: {"description": "The caller has them"},
}


def artifact_routes(context: RouteContext) -> APIRouter:
    """Return the routes of artifacts."""
    routes = APIRouter(tags=["artifacts"], responses=PROBLEMS)

    @routes.head("/artifacts/{sha256}", response_class=StreamingResponse, responses=_BINARY)
    @routes.get("/artifacts/{sha256}", response_class=StreamingResponse, responses=_BINARY)
    async def get_artifact(
        request: Request,
        sha256: Digest,
        range_: Annotated[str | None, Header(alias="Range")] = None,
        if_range: Annotated[str | None, Header()] = None,
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        """Return the bytes of an artifact, or a range of them."""
        found = await context.store.ahead(sha256)
        if found is None:
            raise absent(sha256)
        headers = _headers(sha256, found.media_type)
        if is_listed(if_none_match, sha256):
            return Response(status_code=304, headers=headers)
        # A range of something else than the caller has a part of would be of no use.
        wanted = range_ if if_range is None or if_range.strip() == quoted(sha256) else None
        part = parse_range(wanted, size_bytes=found.size_bytes)
        status, start, length = 200, 0, found.size_bytes
        if part is not None:
            status, start, length = 206, part.start, part.length
            headers["Content-Range"] = part.content_range(found.size_bytes)
        headers["Content-Length"] = str(length)
        if request.method == "HEAD" or length == 0:
            return Response(status_code=status, headers=headers)
        chunks = context.store.astream(sha256, start, length)
        return StreamingResponse(_closed(chunks), status_code=status, headers=headers)

    @routes.post(
        "/artifacts",
        status_code=201,
        response_model=Artifact,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            }
        },
    )
    async def post_artifact(request: Request) -> Response:
        """Store bytes; they survive a crash of the machine once this answers."""
        reference = await context.uploads.store(request.stream())
        location = f"/api/v1/artifacts/{reference.sha256}"
        return reply(Artifact.from_proto(reference), status=201, headers={"Location": location})

    return routes


def _headers(sha256: str, media_type: str) -> dict[str, str]:
    headers = {
        "ETag": quoted(sha256),
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Type": media_type,
        "X-Content-Type-Options": "nosniff",
        # Nothing that somebody stored runs in the name of this service.
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    if media_type not in _SHOWN:
        headers["Content-Disposition"] = f'attachment; filename="{sha256}"'
    return headers


async def _closed(chunks: Any) -> AsyncIterator[bytes]:
    """Yield the chunks and close their source with the response, also when the caller leaves in the middle."""
    async with aclosing(chunks):
        async for chunk in chunks:
            yield chunk
