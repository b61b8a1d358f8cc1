"""Calls back when a moment of the database's clock has come: back-offs, lease deadlines, job deadlines."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixloom_scheduler.clock import DatabaseClock

__all__ = ["Timers"]


class Timers:
    """A heap of moments and what to do then. Nothing is ever taken out: a call that has become moot does nothing."""

    def __init__(self, clock: DatabaseClock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._earlier = asyncio.Event()

    def at(self, due: float, call: Callable[[], None]) -> None:
        """Call `call` at `due`, seconds by the database's clock."""
        first = self._heap[0][0] if self._heap else float("inf")
        heapq.heappush(self._heap, (due, next(self._order), call))
        if due < first:
            self._earlier.set()

    async def run(self) -> None:
        """Call back until cancelled."""
        while True:
            now = self._clock.now()
            while self._heap and self._heap[0][0] <= now:
                heapq.heappop(self._heap)[2]()
            self._earlier.clear()
            wait = self._heap[0][0] - now if self._heap else None
            try:
                async with asyncio.timeout(wait):
                    await self._earlier.wait()
            except TimeoutError:
                continue
