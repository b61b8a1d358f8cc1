"""What the routes need, handed to them when the application is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from pixloom.artifacts.store import ArtifactStore
    from pixloom_gateway.items import ItemReader
    from pixloom_gateway.uploads import Uploads
    from pixloom_gateway.upstream.scheduler import Scheduler

__all__ = ["RouteContext"]


@dataclass(frozen=True, slots=True)
class RouteContext:
    """Parts that routes call.

    Attributes:
        scheduler: The scheduler.
        store: The object store.
        items: Reader of items.
        uploads: Taker of uploads.
        new_id: Makes ids of calls that bring none.
        closing: Set when the process stops: streams end.
        heartbeat_s: Silence after which an event stream sends a comment.
    """

    scheduler: Scheduler
    store: ArtifactStore
    items: ItemReader
    uploads: Uploads
    new_id: Callable[[], str]
    closing: asyncio.Event
    heartbeat_s: float = 15.0
