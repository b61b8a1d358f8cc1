"""What happens to a job, as server-sent events.

A durable event carries its journal number as `id:`, so a browser that reconnects sends it as Last-Event-ID and misses
nothing. Snapshots carry none, so they never move that number. The last event is `end`; a stream that breaks off
without it goes on with the next connection.
"""

# ruff: noqa: FAST003, TC001 - FastAPI reads annotations at run time, and `{id}` is the alias in `JobId`

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
from fastapi import APIRouter, Header, Query
from starlette.responses import Response, StreamingResponse

from pixloom.errors import InvalidError, PixloomError
from pixloom.resources import Event, Snapshot
from pixloom_gateway.rest.jobs import JobId
from pixloom_gateway.rest.problems import problem_of
from pixloom_gateway.rest.replies import PROBLEMS
from pixloom_gateway.upstream.watch import watch_job

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from pixloom.v1 import job_pb2
    from pixloom_gateway.rest.context import RouteContext

__all__ = ["event_routes", "frame"]

_MAX_SEQ: Final = 2**63 - 1
_HEARTBEAT: Final = b": heartbeat\n\n"
# How long a browser waits before it connects again.
_RETRY: Final = b"retry: 2000\n\n"
_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def event_routes(context: RouteContext) -> APIRouter:
    """Return the route of events."""
    routes = APIRouter(tags=["job results"], responses=PROBLEMS)

    @routes.get(
        "/jobs/{id}/events",
        response_class=StreamingResponse,
        responses={200: {"description": "Events", "content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    )
    async def watch_events(
        job_id: JobId,
        last_event_id: Annotated[str | None, Header(description="Number of the last event seen.")] = None,
        after_seq: Annotated[int, Query(ge=0, le=_MAX_SEQ, description="The same, for a first connection.")] = 0,
    ) -> Response:
        """Stream durable events and snapshots of progress until the job has ended."""
        after = _number(last_event_id) if last_event_id else after_seq
        updates = watch_job(context.scheduler, job_id, after_seq=after)
        try:
            # The first update decides between a stream and a problem document.
            first = await anext(updates, None)
        except BaseException:
            await updates.aclose()
            raise
        frames = _frames(first, updates, context, instance=f"/api/v1/jobs/{job_id}/events")
        return StreamingResponse(frames, media_type="text/event-stream", headers=_HEADERS)

    return routes


def frame(update: job_pb2.WatchJobResponse) -> bytes:
    """Return an update as a server-sent event."""
    if update.WhichOneof("update") == "event":
        event = Event.from_proto(update.event)
        return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, event.type.encode(), event.model_dump_json().encode())
    return b"event: snapshot\ndata: %s\n\n" % Snapshot.from_proto(update.snapshot).model_dump_json().encode()


async def _frames(
    first: job_pb2.WatchJobResponse | None,
    updates: AsyncGenerator[job_pb2.WatchJobResponse],
    context: RouteContext,
    *,
    instance: str,
) -> AsyncIterator[bytes]:
    async with aclosing(updates):
        yield _RETRY
        update = first
        state: str | None = None
        try:
            while update is not None:
                if update.WhichOneof("update") == "snapshot":
                    state = Snapshot.from_proto(update.snapshot).job.state
                yield frame(update)
                waiting: asyncio.Task[Any] = asyncio.ensure_future(anext(updates, None))
                closing: asyncio.Task[Any] = asyncio.ensure_future(context.closing.wait())
                try:
                    while not waiting.done():
                        await asyncio.wait(
                            {waiting, closing}, timeout=context.heartbeat_s, return_when=asyncio.FIRST_COMPLETED
                        )
                        if closing.done() and not waiting.done():
                            return
                        if not waiting.done():
                            yield _HEARTBEAT
                    update = waiting.result()
                finally:
                    closing.cancel()
                    if not waiting.done():
                        # The generator can only be closed once it stands still.
                        waiting.cancel()
                        await asyncio.wait({waiting})
        except PixloomError as error:
            yield b"event: error\ndata: %s\n\n" % problem_of(error, instance=instance).model_dump_json().encode()
            return
        yield b"event: end\ndata: %s\n\n" % orjson.dumps({"state": state})


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= _MAX_SEQ):
        raise InvalidError(f"Last-Event-ID {text[:50]!r} is not valid: it is the id of an event, a number.")
    return int(text)
