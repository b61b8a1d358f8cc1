"""Executors that are silent lose their leases; what the scheduler was late itself does not count as their silence."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from pixloom.v1 import executor_pb2
from pixloom_scheduler.executors import ExecutorRegistry, ExecutorSession, HeldLease
from pixloom_scheduler.rpc.session import GRACE_S, HEARTBEAT_S, MOST_GRACES, SILENCE_S, ExecutorSessions

if TYPE_CHECKING:
    from collections.abc import Iterable

START = 1_000.0


class Moments:
    """A clock and its timers: both go on when they are told to."""

    def __init__(self) -> None:
        self.time = START
        self.due: list[tuple[float, Any]] = []

    def now(self) -> float:
        return self.time

    def at(self, due: float, call: Any) -> None:
        self.due.append((due, call))

    def next(self, *, late_s: float = 0.0) -> None:
        """Let the next timer come, too late by so much."""
        self.due.sort(key=lambda each: each[0])
        due, call = self.due.pop(0)
        self.time = max(self.time, due + late_s)
        call()


class Quiet:
    """A dispatcher, and grants; both note what is lost."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.gone: list[float] = []

    def executors_changed(self) -> None:
        pass

    def executor_lost(self, pools: Iterable[str], *, since: float) -> None:
        assert list(pools) == ["cpu"]
        self.gone.append(since)

    def lose(self, session: ExecutorSession, current: ExecutorSession | None) -> None:
        self.lost.append(session.id)


@pytest.fixture
def world() -> tuple[Moments, Quiet, ExecutorSessions, ExecutorSession]:
    moments, quiet, registry = Moments(), Quiet(), ExecutorRegistry()
    anything: Any = None
    parts: Any = {"grants": quiet, "dispatcher": quiet, "clock": moments, "timers": moments}
    others = ("replica", "inputs", "outputs", "costs", "catalogue", "partitions", "takeovers")
    parts |= dict.fromkeys(others, anything)
    sessions = ExecutorSessions(executors=registry, incarnation="", **parts)
    session = ExecutorSession(
        executor_pb2.Hello(executor_id="x", pools=["cpu"], slots=1), asyncio.Queue(), start=START, last_seen=START
    )
    session.holdings.hold(b"token", HeldLease("job", 1))
    registry.add(session)
    return moments, quiet, sessions, session


async def test_a_silent_executor_loses_its_leases(world):
    moments, quiet, sessions, _ = world
    sessions.watch_silence()
    while not quiet.lost:
        moments.next()
    assert SILENCE_S < moments.time - START <= SILENCE_S + HEARTBEAT_S


async def test_a_scheduler_that_stood_still_does_not_take_that_for_silence(world):
    moments, quiet, sessions, session = world
    sessions.watch_silence()
    moments.next(late_s=60.0)
    assert quiet.lost == []
    session.last_seen = moments.time  # now its heartbeats are read
    for _ in range(5):
        moments.next()
    assert quiet.lost == []


async def test_an_executor_that_is_gone_is_missed_by_a_scheduler_that_is_always_late(world):
    moments, quiet, sessions, _ = world
    sessions.watch_silence()
    for _ in range(7):
        moments.next(late_s=3.0)
    assert quiet.lost == ["x"]


async def test_a_broken_stream_has_a_grace(world):
    moments, quiet, sessions, session = world
    sessions._close(session)
    moments.next()
    assert quiet.lost == ["x"]
    assert moments.time == START + GRACE_S
    assert quiet.gone == [START]


async def test_an_executor_without_leases_may_have_been_about_to_claim(world):
    moments, quiet, sessions, session = world
    session.holdings.let_go(b"token")
    sessions._close(session)
    moments.next()
    assert quiet.gone == [START]


async def test_who_left_in_order_or_is_back_had_nothing_that_others_wait_for(world):
    moments, quiet, sessions, session = world
    sessions._close(session)
    sessions._executors.add(ExecutorSession(session.hello, asyncio.Queue(), start=START, last_seen=START))
    moments.next()
    assert quiet.gone == []
    session.holdings.let_go(b"token")
    session.draining = True
    sessions._close(session)
    assert moments.due == []


async def test_the_grace_begins_anew_when_the_scheduler_was_late_but_not_for_ever(world):
    moments, quiet, sessions, session = world
    sessions._close(session)
    moments.next(late_s=5.0)
    assert quiet.lost == [], "who came back meanwhile may not have been read yet"
    moments.next()
    assert quiet.lost == ["x"]
    quiet.lost.clear()
    sessions._close(session)
    for _ in range(MOST_GRACES):
        assert quiet.lost == []
        moments.next(late_s=5.0)
    assert quiet.lost == ["x"]
