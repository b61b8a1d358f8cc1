"""Pulls dispatches from NATS, one lane at a time, while there is room to run them.

A pulled message is claimed at once when there is room; when there is none within half a second it goes back, so that
another executor may have it. Lanes are served in their order: `now` before `bulk`.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from typing import TYPE_CHECKING, Final

import nats.errors
import nats.js.errors
import structlog

from pixloom.queue import LANES, STREAM, consumer_name, declare_consumers, declare_stream, subject

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nats.aio.msg import Msg
    from nats.js import JetStreamContext

__all__ = ["Puller", "Room"]

FETCH_S: Final = 30.0
HOLD_S: Final = 0.5
RETRY_MAX_S: Final = 2.0


class Room:
    """How many batches may be under way; waiters with the lower rank go first.

    Args:
        batches: Returns how many at this moment.
        urgent: Returns how many more there may be for those of rank 0, so that they never wait for the others.
        is_open: Tells whether any may be taken at all.
    """

    def __init__(
        self, *, batches: Callable[[], int], urgent: Callable[[], int] = lambda: 0, is_open: Callable[[], bool]
    ) -> None:
        self._batches = batches
        self._urgent = urgent
        self._is_open = is_open
        self._under_way = 0
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    async def wait(self, rank: int) -> None:
        """Wait until there is room, without taking it."""
        await self.take(rank)
        self.give()

    async def take(self, rank: int) -> None:
        """Wait for room and take it."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (rank, next(self._order), waiter))
        self.wake()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.give()
            raise

    def enter(self) -> None:
        """Take room without waiting: somebody has seen that there is some."""
        self._under_way += 1

    def give(self) -> None:
        """Give room back."""
        self._under_way -= 1
        self.wake()

    def wake(self) -> None:
        """Serve waiters if there is room."""
        while self._waiters and self._is_open():
            rank, _, waiter = self._waiters[0]
            if self._under_way >= self._batches() + (0 if rank else self._urgent()):
                return
            heapq.heappop(self._waiters)
            if not waiter.done():
                self._under_way += 1
                waiter.set_result(None)


class Puller:
    """Pulls one lane of one pool.

    Args:
        jitter: Returns a number from 0 to 1 that spreads the retries of many executors.
    """

    def __init__(
        self,
        *,
        js: JetStreamContext,
        pool: str,
        lane: str,
        room: Room,
        take: Callable[[Msg], Awaitable[None]],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._js = js
        self._pool = pool
        self._lane = lane
        self._room = room
        self._take = take
        self._jitter = jitter
        self._running: set[asyncio.Task[None]] = set()
        self._asking: asyncio.Task[list[Msg]] | None = None
        self._log = structlog.get_logger("puller")

    async def run(self) -> None:
        """Pull until cancelled; what was taken goes on."""
        delay = 0.05
        while True:
            try:
                await self._pull()
                delay = 0.05
            except (nats.errors.Error, OSError, TimeoutError) as error:
                self._log.warning("pull_failed", pool=self._pool, lane=self._lane, error=type(error).__name__)
                await asyncio.sleep(delay * (1 + self._jitter()))
                delay = min(delay * 2, RETRY_MAX_S)

    def ask_again(self) -> None:
        """Give up the request that waits for a message: the server that knew of it is gone."""
        if self._asking is not None:
            self._asking.cancel()

    async def _pull(self) -> None:
        """Subscribe, and pull until something breaks."""
        await declare_stream(self._js)
        await declare_consumers(self._js, self._pool)
        durable = consumer_name(self._pool, self._lane)
        subscription = await self._js.pull_subscribe(subject(self._pool, self._lane), durable, STREAM)
        rank = LANES.index(self._lane)
        try:
            while True:
                # What waits here for a slot, another executor cannot have.
                await self._room.wait(rank)
                try:
                    messages = await self._ask(subscription)
                except nats.errors.TimeoutError:
                    continue
                for message in messages:
                    await self._start(message, rank)
        finally:
            await _unsubscribe(subscription)

    async def _ask(self, subscription: JetStreamContext.PullSubscription) -> list[Msg]:
        """Return the next message.

        Raises:
            ConnectionResetError: If the server that was asked is gone.
        """
        asking = self._asking = asyncio.create_task(subscription.fetch(1, timeout=FETCH_S))
        try:
            # fetch is known to stall at times (nats-py #933): this limit is the watchdog.
            done, _ = await asyncio.wait({asking}, timeout=FETCH_S + 5)
        finally:
            asking.cancel()
        if not done:
            raise TimeoutError
        if asking.cancelled():
            raise ConnectionResetError
        return asking.result()

    async def _start(self, message: Msg, rank: int) -> None:
        try:
            async with asyncio.timeout(HOLD_S):
                await self._room.take(rank)
        except TimeoutError:
            await message.nak()
            return
        task = asyncio.create_task(self._work(message))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _work(self, message: Msg) -> None:
        try:
            await self._take(message)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            self._log.warning("batch_dropped", error=type(error).__name__)
        finally:
            self._room.give()

    async def finish(self) -> None:
        """Wait for what was taken."""
        if self._running:
            await asyncio.wait(self._running)


async def _unsubscribe(subscription: JetStreamContext.PullSubscription) -> None:
    try:
        await subscription.unsubscribe()
    except (nats.errors.Error, OSError):
        return
