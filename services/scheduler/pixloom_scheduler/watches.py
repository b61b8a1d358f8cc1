"""Streams of what happens to a job: numbered events that are durable, and snapshots that are not."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from pixloom.errors import UnavailableError
from pixloom.v1 import job_pb2
from pixloom_scheduler.core.model import JobRun
from pixloom_scheduler.journal.rows import decode
from pixloom_scheduler.step import OWNER_CHANGED
from pixloom_scheduler.stored_plans import plan_of
from pixloom_scheduler.views import event_view

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import date

    from pixloom_scheduler.clock import DatabaseClock
    from pixloom_scheduler.journal.reader import Reader
    from pixloom_scheduler.live import LiveJob
    from pixloom_scheduler.reads import JobReads

__all__ = ["Watches"]

SNAPSHOT_EVERY_S: Final = 0.2
REFRESH_S: Final = 2.0
"""How often a job without news is shown again: what it waits for may be in other jobs, or a matter of time."""
SNAPSHOT_SHARE: Final = 40
"""Of a job with thousands of nodes snapshots are rarer: making them takes at most a fortieth of the loop's time."""


class Watches:
    """Serves watchers."""

    def __init__(self, *, reads: JobReads, reader: Reader, clock: DatabaseClock) -> None:
        self._reads = reads
        self._reader = reader
        self._clock = clock

    async def watch(self, job_id: str, after: int) -> AsyncIterator[job_pb2.WatchJobResponse]:
        """Yield events behind `after` and snapshots, at most five a second; the last message is the final snapshot.

        Raises:
            NotFoundError: If there is no such job.
            UnavailableError: If another replica took the job over meanwhile.
        """
        live = await self._reads.durable(job_id)
        if live is None:
            async for update in self._watch_stored(job_id, after):
                yield update
            return
        if not live.events or live.events[0].seq > max(after, 0) + 1:
            # Memory begins behind what the watcher has seen: the journal has what lies between.
            known = live.events[0].seq if live.events else live.committed_seq + 1
            for event in await self._stored_events(live.header.day, job_id, after, live.run):
                if event.seq < known:
                    yield job_pb2.WatchJobResponse(event=event)
                    after = event.seq
        place = 0
        next_snapshot = 0.0
        while True:
            news = live.news
            if live.is_gone:
                # Whoever watches goes on from the last number it saw, at the next owner.
                raise UnavailableError(OWNER_CHANGED, retry_after_s=0.1)
            while place < len(live.events):
                event = live.events[place]
                place += 1
                if event.seq > after:
                    yield job_pb2.WatchJobResponse(event=event)
            ended = _has_ended(live)
            now = asyncio.get_running_loop().time()
            if now >= next_snapshot and live.run.seq != live.committed_seq:
                # Shown is what is durable, and the events before it; nothing while the database is away.
                with contextlib.suppress(UnavailableError):
                    await self._reads.until_durable(live)
                continue
            # An end is shown once it is durable: whoever sees it stops watching.
            if ended or (now >= next_snapshot and not live.run.state.is_terminal):
                snapshot = self._reads.snapshot(live)
                took_s = asyncio.get_running_loop().time() - now
                next_snapshot = now + max(SNAPSHOT_EVERY_S, SNAPSHOT_SHARE * took_s)
                yield job_pb2.WatchJobResponse(snapshot=snapshot)
                is_shown = True
            else:
                is_shown = False
            if ended:
                return
            await self._wait(news, live, next_snapshot, is_shown=is_shown)

    async def until_ended(self, live: LiveJob, *, wait_s: float) -> None:
        """Return once a job has ended and its end is durable, it went to another replica, or `wait_s` are over."""
        try:
            async with asyncio.timeout(wait_s):
                while not (live.is_gone or _has_ended(live)):
                    await live.news.wait()
        except TimeoutError:
            return

    @staticmethod
    async def _wait(news: asyncio.Event, live: LiveJob, next_snapshot: float, *, is_shown: bool) -> None:
        """Wait for something to show: an event at once, mere counts when the next snapshot is due.

        Args:
            news: Set when there is news that the watcher has not looked at.
            live: The job.
            next_snapshot: When the next snapshot is due, seconds.
            is_shown: Whether the latest snapshot shows all there was; why nodes wait may change all the same.
        """
        seen = len(live.events)
        loop = asyncio.get_running_loop()
        until = max(next_snapshot, loop.time() + REFRESH_S) if is_shown else next_snapshot
        if live.run.state.is_terminal:
            # Its end is shown once it is durable, and that will be news.
            await news.wait()
            return
        while len(live.events) == seen and loop.time() < until:
            try:
                async with asyncio.timeout_at(until):
                    await news.wait()
            except TimeoutError:
                return
            news, until = live.news, next_snapshot

    async def _watch_stored(self, job_id: str, after: int) -> AsyncIterator[job_pb2.WatchJobResponse]:
        stored = await self._reads.stored(job_id)
        run = JobRun.of(stored.id, stored.partition, await plan_of(stored))
        for event in await self._stored_events(stored.day, job_id, after, run):
            yield job_pb2.WatchJobResponse(event=event)
        snapshot = job_pb2.JobSnapshot(job=self._reads.view_stored(stored), nodes=await self._reads.nodes(job_id))
        yield job_pb2.WatchJobResponse(snapshot=snapshot)

    async def _stored_events(self, day: date, job_id: str, after: int, run: JobRun) -> list[job_pb2.JobEvent]:
        events = []
        for row in await self._reader.events(day, job_id, after):
            event = event_view(run, decode(row), seq=row["seq"], time=row["time"].timestamp())
            event.generation = row["generation"]
            events.append(event)
        return events


def _has_ended(live: LiveJob) -> bool:
    """Return whether a job has ended and the database has its end."""
    return live.run.state.is_terminal and live.run.seq == live.committed_seq
