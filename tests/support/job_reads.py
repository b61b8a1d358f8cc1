"""Reads of jobs for tests without executors: nothing is dispatched."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, cast

from pixloom_scheduler.dispatch import Dispatcher
from pixloom_scheduler.estimates import Estimates
from pixloom_scheduler.executors import ExecutorRegistry
from pixloom_scheduler.reads import JobReads
from pixloom_scheduler.waiting import WaitingReasons

if TYPE_CHECKING:
    from pixloom_scheduler.clock import DatabaseClock
    from pixloom_scheduler.journal.reader import Reader
    from pixloom_scheduler.replica import Replica

__all__ = ["job_reads"]


def job_reads(replica: Replica, reader: Reader, clock: DatabaseClock) -> JobReads:
    """Return reads of the jobs of a replica that no executor has a session with."""
    executors, nothing = ExecutorRegistry(), cast("Any", None)  # nothing is composed or published
    dispatcher = Dispatcher(
        js=nothing,
        replica=replica,
        executors=executors,
        composer=nothing,
        clock=clock,
        costs={},
        new_id=lambda: uuid.uuid4().hex,
    )
    return JobReads(
        replica=replica,
        reader=reader,
        waiting=WaitingReasons(dispatcher=dispatcher, executors=executors),
        estimates=Estimates(costs={}, slots=executors.slots),
        clock=clock,
    )
