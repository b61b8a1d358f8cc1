"""Watching a job through restarts of its scheduler: no durable event is lost or shown twice."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from pixloom.errors import DeadlineError, UnavailableError
from pixloom.v1 import job_pb2
from pixloom_gateway.upstream import methods

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from pixloom_gateway.upstream.scheduler import Scheduler

__all__ = ["watch_job"]

_FIRST_DELAY_S: Final = 0.1
_LONGEST_DELAY_S: Final = 2.0
# How long a watcher that has seen something waits for a scheduler to come back.
_PATIENCE_S: Final = 60.0
# How long one that has not waits for the owner of its job: a takeover, and one second more.
_FIRST_PATIENCE_S: Final = 4.0


async def watch_job(
    scheduler: Scheduler, job_id: str, *, after_seq: int = 0, patience_s: float = _PATIENCE_S
) -> AsyncGenerator[job_pb2.WatchJobResponse]:
    """Yield what happens to a job until it has ended.

    Args:
        scheduler: Who knows.
        job_id: Id of the job.
        after_seq: Number of the last event seen; 0 means from the beginning.
        patience_s: How long to wait for a scheduler that went away in the middle.

    Raises:
        PixloomError: The job is not there, or the scheduler stayed away.
    """
    loop = asyncio.get_running_loop()
    seen, delay_s = after_seq, _FIRST_DELAY_S
    give_up_at = loop.time() + min(_FIRST_PATIENCE_S, patience_s)
    while True:
        try:
            request = job_pb2.WatchJobRequest(id=job_id, after_seq=seen)
            async with aclosing(scheduler.stream(methods.WATCH_JOB, request)) as updates:
                async for update in updates:
                    delay_s, give_up_at = _FIRST_DELAY_S, loop.time() + patience_s
                    if update.WhichOneof("update") == "event":
                        if update.event.seq <= seen:
                            continue
                        seen = update.event.seq
                    yield update
        except (UnavailableError, DeadlineError):
            if loop.time() > give_up_at:
                raise
        else:
            return
        await asyncio.sleep(min(delay_s, max(give_up_at - loop.time(), _FIRST_DELAY_S)))
        delay_s = min(delay_s * 2, _LONGEST_DELAY_S)
