"""Calls back when a moment of the database's clock has come: back-offs, lease deadlines, job deadlines."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pixloom_scheduler.alarms import wait_or_set

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixloom_scheduler.clock import DatabaseClock

__all__ = ["Timers"]

SPARE_ENTRIES: Final = 64
"""Entries of no use that the heap may hold besides as many as are of use."""


@dataclass(slots=True)
class _Timer:
    """A call to come.

    Attributes:
        call: What to do; None once it is not wanted any more.
        job: The job that it is about; empty if it is about none.
    """

    call: Callable[[], None] | None
    job: str


class Timers:
    """A heap of moments and what to do then.

    A call that has become moot does nothing. Those about a job are forgotten with it: a deadline may lie days ahead, and
    would keep the whole job in memory until then.
    """

    def __init__(self, clock: DatabaseClock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, _Timer]] = []
        self._by_job: dict[str, dict[int, _Timer]] = {}
        self._unwanted = 0
        self._order = itertools.count()
        self._earlier = asyncio.Event()

    def __len__(self) -> int:
        return len(self._heap)

    def at(self, due: float, call: Callable[[], None], *, job: str = "") -> None:
        """Call `call` at `due`, seconds by the database's clock, unless `job` is forgotten before."""
        first = self._heap[0][0] if self._heap else float("inf")
        number, timer = next(self._order), _Timer(call, job)
        heapq.heappush(self._heap, (due, number, timer))
        if job:
            self._by_job.setdefault(job, {})[number] = timer
        if due < first:
            self._earlier.set()

    def forget(self, job: str) -> None:
        """Make none of the calls about a job."""
        timers = self._by_job.pop(job, {})
        for timer in timers.values():
            timer.call = None
        self._unwanted += len(timers)
        if self._unwanted > len(self._heap) // 2 + SPARE_ENTRIES:
            self._heap = [entry for entry in self._heap if entry[2].call is not None]
            heapq.heapify(self._heap)
            self._unwanted = 0

    async def run(self) -> None:
        """Call back until cancelled."""
        while True:
            now = self._clock.now()
            while self._heap and self._heap[0][0] <= now:
                self._fire()
            self._earlier.clear()
            wait = self._heap[0][0] - now if self._heap else None
            await wait_or_set(self._earlier, wait)

    def _fire(self) -> None:
        _, number, timer = heapq.heappop(self._heap)
        call = timer.call
        if call is None:
            self._unwanted -= 1
            return
        if timer.job:
            others = self._by_job[timer.job]
            del others[number]
            if not others:
                del self._by_job[timer.job]
        call()
