"""What a node whose turn has not come says of the jobs before it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from pixloom.graph.plan import StageKind
from pixloom.v1 import executor_pb2, op_pb2
from pixloom_scheduler.clock import DatabaseClock
from pixloom_scheduler.dispatch import Dispatcher
from pixloom_scheduler.executors import ExecutorRegistry, ExecutorSession, HeldLease
from pixloom_scheduler.waiting import WaitingReasons
from tests.support.live_jobs import live_job

if TYPE_CHECKING:
    from pixloom_scheduler.live import LiveJob

SHAPE: list[tuple[StageKind, list[int]]] = [(StageKind.WHOLE, [])]


class Replica:
    """Jobs that wait and are offered nowhere."""

    is_committing = True

    def __init__(self, *jobs: LiveJob) -> None:
        self._jobs = {live.run.id: live for live in jobs}

    def find(self, job_id: str) -> LiveJob | None:
        return self._jobs.get(job_id)


def reasons(*jobs: LiveJob, draining: bool = False, leases: int = 0) -> list[str]:
    """Return why the only node of each job waits.

    Args:
        jobs: The jobs.
        draining: Whether the only executor, which has one slot, is draining.
        leases: Leases that it was granted since it last said how many slots are busy.
    """
    nothing = cast("Any", None)
    executors = ExecutorRegistry()
    hello = executor_pb2.Hello(executor_id="x", pools=["cpu"], slots=1, ops=[op_pb2.Op(name="debug.noop@1")])
    session = ExecutorSession(hello, asyncio.Queue(), start=0.0, last_seen=0.0, draining=draining)
    for number in range(leases):
        session.holdings.hold(b"%d" % number, HeldLease("other", number, 1))
    executors.add(session)
    dispatcher = Dispatcher(
        js=nothing,
        replica=cast("Any", Replica(*jobs)),
        executors=executors,
        composer=nothing,
        clock=DatabaseClock(),
        costs={},
        new_id=lambda: "",
    )
    for live in jobs:
        dispatcher.note_all(live)
    waiting = WaitingReasons(dispatcher=dispatcher, executors=executors)
    return [waiting.of(live, now=0.0)[0] for live in jobs]


async def test_jobs_with_higher_priority_are_counted() -> None:
    jobs = [live_job(number, SHAPE, priority=9) for number in range(3)]
    assert reasons(*jobs, live_job(9, SHAPE, priority=1))[-1] == "3 jobs with higher priority first"


async def test_among_equals_the_older_ones_come_first() -> None:
    first, second, third = reasons(*(live_job(number, SHAPE) for number in range(3)))
    assert first == "about to be taken by an executor, 0 of 1 slots are busy"
    assert (second, third) == ("queued behind 1 job", "queued behind 2 jobs")


async def test_slots_are_busy_with_what_was_granted_since_the_last_heartbeat() -> None:
    assert reasons(live_job(0, SHAPE), leases=2) == ["waits for a free executor, 1 of 1 slots are busy"]


async def test_executors_that_drain_are_told_apart_from_none() -> None:
    assert reasons(live_job(0, SHAPE), draining=True) == ["no executor serves pool cpu, 1 is draining"]
