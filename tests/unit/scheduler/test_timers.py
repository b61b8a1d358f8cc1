"""Calls to come, and those that are not wanted any more."""

from __future__ import annotations

import asyncio
import gc
import weakref

from pixloom_scheduler.clock import DatabaseClock
from pixloom_scheduler.timers import SPARE_ENTRIES, Timers


class Job:
    """Something large that a call holds on to."""

    def end(self):
        raise AssertionError("it was forgotten")


async def test_calls_come_in_their_order_and_those_of_a_forgotten_job_do_not():
    clock = DatabaseClock()
    timers, called, ended = Timers(clock), [], asyncio.Event()
    now = clock.now()
    timers.at(now + 0.02, lambda: called.append("b"), job="kept")
    timers.at(now + 0.01, lambda: called.append("a"))
    timers.at(now + 0.015, lambda: called.append("gone"), job="gone")
    timers.at(now + 0.03, ended.set, job="kept")
    timers.forget("gone")
    timers.forget("never known")
    running = asyncio.create_task(timers.run())
    async with asyncio.timeout(60):
        await ended.wait()
    running.cancel()
    assert (called, len(timers)) == (["a", "b"], 0)


async def test_jobs_that_ended_leave_nothing_behind_though_their_deadlines_are_days_ahead():
    timers, jobs = Timers(DatabaseClock()), []
    for number in range(1000):
        job = Job()
        jobs.append(weakref.ref(job))
        timers.at(1e12 + number, job.end, job=str(number))
        timers.forget(str(number))
    del job
    gc.collect()
    assert [job for job in jobs if job() is not None] == []
    assert len(timers) <= 2 * SPARE_ENTRIES + 1
