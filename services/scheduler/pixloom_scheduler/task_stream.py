"""The stream on NATS that carries offered work: declared before it is used, and made anew when it does not work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import nats.errors
import nats.js.errors
import structlog

from pixloom.queue import STREAM, consumer_name, declare_consumers, declare_stream, replace_stream, subject
from pixloom_scheduler.crash_points import reach

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from nats.js import JetStreamContext

    from pixloom.v1 import executor_pb2
    from pixloom_scheduler.clock import DatabaseClock

__all__ = ["TaskStream"]

PUBLISH_TIMEOUT_S: Final = 2.0
BROKEN_AFTER_S: Final = 10.0
"""How long nothing can be published over a connection that stands before the stream is made anew."""


class TaskStream:
    """Publishes offers.

    Args:
        js: The connection.
        clock: Seconds.
        on_new: Called when the stream is found to be another one than before: what that one held is gone.
    """

    def __init__(self, *, js: JetStreamContext, clock: DatabaseClock, on_new: Callable[[], None]) -> None:
        self._js = js
        self._clock = clock
        self._on_new = on_new
        self._declared: set[str] = set()
        self._created: datetime | None = None
        self._failing_since = 0.0
        self._log = structlog.get_logger("dispatch")

    async def publish(self, pool: str, lane: str, batch: executor_pb2.LeaseBatch) -> int:
        """Publish an offer and return its place in the stream.

        Raises:
            nats.errors.Error, OSError, TimeoutError: If NATS has not taken it; it may have all the same.
        """
        if pool not in self._declared:
            await self._declare()
            await declare_consumers(self._js, pool)
            self._declared.add(pool)
        reach("publish.before")
        ack = await self._js.publish(
            subject(pool, lane),
            batch.SerializeToString(),
            timeout=PUBLISH_TIMEOUT_S,
            headers={**batch.trace_context, "Nats-Msg-Id": batch.dispatch_id},
        )
        reach("publish.after")
        self._failing_since = 0.0
        return ack.seq

    async def mend(self) -> None:
        """Take in that something was not published: after a full disk nothing ever would be, and a new stream helps."""
        self._declared.clear()
        now = self._clock.now()
        self._failing_since = self._failing_since or now
        if now - self._failing_since < BROKEN_AFTER_S:
            return
        self._failing_since = 0.0
        try:
            await replace_stream(self._js)
            self._log.warning("stream_replaced")
        except (nats.errors.Error, OSError, TimeoutError) as error:
            self._log.warning("stream_not_replaced", error=type(error).__name__)

    async def extent(self, pool: str, lane: str) -> tuple[int, int]:
        """Return the place up to which all of a lane was acknowledged, and the last place in the stream."""
        try:
            info = await self._js.consumer_info(STREAM, consumer_name(pool, lane))
            floor = info.ack_floor.stream_seq if info.ack_floor is not None else 0
            return floor, (await self._js.stream_info(STREAM)).state.last_seq
        except nats.js.errors.NotFoundError:
            self._declared.clear()
            return 0, 0

    async def delivered(self, pool: str, lane: str) -> int:
        """Return the place up to which a lane was given to executors."""
        try:
            info = await self._js.consumer_info(STREAM, consumer_name(pool, lane))
        except nats.js.errors.NotFoundError:
            return 0
        return info.delivered.stream_seq if info.delivered is not None else 0

    async def reconnected(self) -> None:
        """Declare the stream again if NATS came back without it."""
        self._failing_since = 0.0
        try:
            await self._declare()
        except (nats.errors.Error, OSError, TimeoutError) as error:
            self._log.warning("declare_failed", error=type(error).__name__)

    async def _declare(self) -> None:
        await declare_stream(self._js)
        # An executor may have been faster in creating it, so only the time of its creation tells that it is new.
        created = (await self._js.stream_info(STREAM)).created
        if created == self._created:
            return
        known, self._created = self._created is not None, created
        if known:
            self._declared.clear()
            self._on_new()
