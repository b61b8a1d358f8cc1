"""What becomes of leases whose executor never heard of them."""

from __future__ import annotations

import asyncio
import os
import uuid
from typing import Any

from pixloom.graph.plan import StageKind
from pixloom.v1 import executor_pb2
from pixloom_scheduler.core.apply import apply
from pixloom_scheduler.core.decide import decide
from pixloom_scheduler.core.events import Result, TasksClaimed, TasksReported
from pixloom_scheduler.core.states import Outcome
from pixloom_scheduler.executors import ExecutorSession
from pixloom_scheduler.grants import Grants
from pixloom_scheduler.tokens import TokenMint
from tests.support.live_jobs import NOW, happen, live_job, offer


class Owner:
    """A replica with one job; what it is told to make durable is kept."""

    def __init__(self, live):
        self.live = live
        self.reported = []

    def find(self, job_id):
        return self.live if job_id == self.live.header.id else None

    def handle_now(self, live, event):
        changes = decide(live.run, event, NOW, {})
        apply(live.run, changes)
        return changes

    def report(self, job_id, event):
        self.reported.append((job_id, event))


class Quiet:
    """A dispatcher, and timers, that only listen."""

    def __init__(self):
        self.calls = []

    def leased(self, live, lease, stage):
        pass

    def note(self, live, changes):
        pass

    def fill(self):
        pass

    def at(self, due, call, *, job):
        self.calls.append((due, call, job))


def test_what_was_granted_on_a_stream_that_broke_unread_is_offered_again():
    live = live_job(1, [(StageKind.WHOLE, [])])
    owner: Any = Owner(live)
    quiet: Any = Quiet()
    mint = TokenMint(incarnation=uuid.uuid4(), key=b"k" * 32, nonce=lambda size: b"n" * size)
    grants = Grants(replica=owner, dispatcher=quiet, mint=mint, timers=quiet, costs={})
    session = opened()
    offer(live, 0)
    granted = grants.grant(session, live, generation=1, stage=0, tasks=((0, 1),), handed_over=True)
    assert granted is not None
    assert session.holdings.handed_s > 0
    before, session = session, opened()
    session.holdings = before.holdings

    grants.not_received(session, frozenset({granted.token}))
    assert list(session.holdings.leases) == [granted.token]
    assert live.run.leases

    grants.not_received(session, frozenset())
    assert (session.holdings.leases, live.run.leases, owner.reported) == ({}, {}, [])
    assert session.holdings.handed_s == 0
    assert live.run.stages[0].has_ready
    offer(live, 0)
    again = grants.grant(session, live, generation=1, stage=0, tasks=((0, 1),))
    assert again is not None


def granted(shards):
    """Return an owner, who grants, an executor's session, and a lease of so many tasks that it was granted there."""
    live = live_job(1, [(StageKind.SOURCE, []), (StageKind.MAPPED, [0])], shard_size=1)
    offer(live, 0)
    happen(live, TasksClaimed("y", 1, 0, ((0, 1),), lambda _: b"source"))
    happen(live, TasksReported(1, (Result(0, 1, Outcome.OK, items_out=shards, end_of_source=True),)))
    owner: Any = Owner(live)
    quiet: Any = Quiet()
    mint = TokenMint(incarnation=uuid.uuid4(), key=b"k" * 32, nonce=os.urandom)
    grants = Grants(replica=owner, dispatcher=quiet, mint=mint, timers=quiet, costs={})
    session = opened()
    offer(live, 1, most=shards)
    tasks = tuple((shard, 1) for shard in range(shards))
    lease = grants.grant(session, live, generation=1, stage=1, tasks=tasks)
    assert lease is not None
    return owner, grants, session, lease


def opened():
    return ExecutorSession(executor_pb2.Hello(executor_id="x"), asyncio.Queue(), start=0.0, last_seen=0.0)


def announced(owner, lease, *, held):
    tasks = [executor_pb2.TaskKey(shard=shard, attempt=attempt) for shard, attempt in lease.tasks]
    return executor_pb2.Lease(
        lease_token=lease.token, job_id=owner.live.header.id, generation=1, stage=lease.stage, tasks=tasks, held=held
    )


def test_tasks_that_an_executor_holds_no_longer_when_it_comes_back_are_offered_again():
    owner, grants, before, lease = granted(3)
    session = opened()
    session.holdings = before.holdings
    assert grants.adopt(session, announced(owner, lease, held=[1]))
    assert [list(held.tasks) for held in owner.live.run.leases.values()] == [[1]]
    assert session.holdings.leases[lease.token].tasks == 1
    assert owner.live.run.stages[1].has_ready
    assert grants.adopt(session, announced(owner, lease, held=[1]))
    assert [list(held.tasks) for held in owner.live.run.leases.values()] == [[1]]


def test_what_was_granted_on_a_stream_of_which_its_executor_knows_nothing_is_lost_with_that_stream():
    owner, grants, stray, lease = granted(1)
    current = opened()
    current.holdings = stray.holdings
    grants.lose(stray, current)
    assert [event.lease for _, event in owner.reported] == [lease.lease]
    assert current.holdings.leases == {}


def test_what_an_executor_announced_on_its_next_stream_outlasts_the_one_before():
    owner, grants, before, lease = granted(1)
    current = opened()
    current.holdings = before.holdings
    assert grants.adopt(current, announced(owner, lease, held=[0]))
    grants.lose(before, current)
    assert owner.reported == []
    assert list(current.holdings.leases) == [lease.token]


def test_leases_are_looked_at_when_the_first_of_their_deadlines_is_reached_and_those_beyond_it_are_lost():
    live = live_job(1, [(StageKind.WHOLE, []), (StageKind.WHOLE, []), (StageKind.WHOLE, [])])
    owner: Any = Owner(live)
    quiet: Any = Quiet()
    mint = TokenMint(incarnation=uuid.uuid4(), key=b"k" * 32, nonce=lambda size: b"n" * size)
    grants = Grants(replica=owner, dispatcher=quiet, mint=mint, timers=quiet, costs={})
    session = ExecutorSession(executor_pb2.Hello(executor_id="x"), asyncio.Queue(), start=0.0, last_seen=0.0)
    for stage in range(3):
        offer(live, stage)
        assert grants.grant(session, live, generation=1, stage=stage, tasks=((0, 1),)) is not None
    first, second, third = live.run.leases.values()
    deadline = first.deadline
    second.deadline = third.deadline = deadline + 60
    # One look for all of them, as hundreds are granted for each that expires.
    assert [(due, job) for due, _, job in quiet.calls] == [(deadline, live.header.id)]
    quiet.calls.pop()[1]()
    assert [event.lease for _, event in owner.reported] == [1]
    del live.run.leases[1]
    ((due, call, _),) = quiet.calls
    assert due == deadline + 60
    call()
    assert [event.lease for _, event in owner.reported] == [1, 2, 3]
