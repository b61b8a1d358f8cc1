"""What becomes of the lease of tasks that were handed over together, and of what is reported of them."""

from __future__ import annotations

import asyncio
import os
import uuid
from typing import Any

import orjson
import pytest

from pixloom.v1 import executor_pb2, job_pb2
from pixloom_scheduler.core.events import (
    SiblingsReported,
    TasksClaimed,
)
from pixloom_scheduler.core.states import Outcome
from pixloom_scheduler.executors import ExecutorSession, HeldLease
from pixloom_scheduler.grants import SIBLINGS, Grants
from pixloom_scheduler.rpc.results import read_siblings
from pixloom_scheduler.tokens import TokenMint
from tests.support.live_jobs import happen, offer
from tests.unit.scheduler.test_grants import Owner, Quiet
from tests.unit.scheduler.test_siblings import done, handed, job_of


def held_lease():
    live = job_of(3)
    happen(live, handed(0, 1, 2))
    token = b"(0, 1, 2)"
    return live.run, token, HeldLease(live.header.id, 1, 3, siblings={0: 1, 1: 2, 2: 3})


def test_it_is_all_of_their_leases_as_long_as_one_is_left():
    run, token, held = held_lease()
    assert sorted(held.held(run, token)) == [1, 2, 3]
    del run.leases[1], run.leases[3]
    assert list(held.held(run, token)) == [2]
    assert not held.is_over(run)
    del run.leases[2]
    assert held.is_over(run)


def test_leases_of_the_same_numbers_under_another_token_are_not_its_own():
    run, _, held = held_lease()
    assert held.held(run, b"other") == {}


def test_its_executor_names_each_by_its_stage():
    run, token, held = held_lease()
    assert held.names(held.held(run, token)) == {0, 1, 2}
    assert list(held.parts([2, 0, 9])) == [(3, (0,)), (1, (0,))]
    alone = HeldLease("j", 7)
    assert list(alone.parts([2, 0])) == [(7, (2, 0))]


def test_a_report_may_name_any_stage_of_siblings_and_only_its_own_of_others():
    run, _, held = held_lease()
    assert held.may_be_of(run, 2)
    alone = HeldLease("j", 1)
    assert alone.may_be_of(run, 0)
    assert not alone.may_be_of(run, 2)


def opened():
    return ExecutorSession(executor_pb2.Hello(executor_id="x"), asyncio.Queue(), start=0.0, last_seen=0.0)


def granted(count=3):
    """Return an owner, its grants, a session, and what was granted of siblings on it."""
    live = job_of(count)
    owner: Any = Owner(live)
    quiet: Any = Quiet()
    mint = TokenMint(incarnation=uuid.uuid4(), key=b"k" * 32, nonce=os.urandom)
    grants = Grants(replica=owner, dispatcher=quiet, mint=mint, timers=quiet, costs={})
    session = opened()
    given = grants.grant_siblings(session, live, tuple(range(count)))
    assert given is not None
    return owner, grants, session, given


def announced(owner, given, *, held, **fields):
    tasks = [executor_pb2.TaskKey(shard=stage, attempt=attempt) for stage, attempt in given.tasks]
    place = {"lease_token": given.token, "job_id": owner.live.header.id, "generation": 1, "stage": given.tasks[0][0]}
    return executor_pb2.Lease(**{**place, "tasks": tasks, "held": held, "siblings": True, **fields})


class Anew:
    """The next owner of the job: it has read it from the database and knows of no lease."""

    def __init__(self, owner, grants):
        anew: Any = Owner(job_of(len(owner.live.run.stages)))
        quiet: Any = Quiet()
        self.owner = anew
        self.grants = Grants(replica=anew, dispatcher=quiet, mint=grants._mint, timers=quiet, costs={})


def test_one_lease_is_held_for_all_of_them():
    owner, _, session, given = granted()
    assert given.tasks == ((0, 1), (1, 1), (2, 1))
    (held,) = session.holdings.leases.values()
    assert (held.tasks, held.siblings, held.handed_over) == (3, {0: 1, 1: 2, 2: 3}, True)
    assert session.holdings.handed_s > 0
    assert {lease.token for lease in owner.live.run.leases.values()} == {given.token}


def test_only_those_that_can_be_had_are_granted():
    live = job_of(3)
    owner: Any = Owner(live)
    quiet: Any = Quiet()
    mint = TokenMint(incarnation=uuid.uuid4(), key=b"k" * 32, nonce=os.urandom)
    grants = Grants(replica=owner, dispatcher=quiet, mint=mint, timers=quiet, costs={})
    offer(live, 1)
    given = grants.grant_siblings(opened(), live, (0, 1, 2))
    assert given is not None
    assert given.tasks == ((0, 1), (2, 1))
    assert mint.is_genuine(
        given.token, job=live.header.id, generation=1, stage=SIBLINGS, tasks=given.tasks, executor="x"
    )
    assert grants.grant_siblings(opened(), live, (0, 1, 2)) is None


def test_what_is_handed_back_can_be_had_again_and_the_rest_stays():
    owner, grants, session, given = granted()
    message = executor_pb2.GiveBack(lease_token=given.token, job_id=owner.live.header.id, shards=[0, 2, 9])
    grants.give_back(session, message)
    assert [lease.stage for lease in owner.live.run.leases.values()] == [1]
    assert [stage.has_ready for stage in owner.live.run.stages] == [True, False, True]
    grants.give_back(session, executor_pb2.GiveBack(lease_token=given.token, job_id=owner.live.header.id, shards=[1]))
    assert (owner.live.run.leases, session.holdings.leases) == ({}, {})
    assert session.holdings.handed_s == pytest.approx(0)


def test_those_that_are_lost_with_their_executor_are_lost_each():
    owner, grants, session, _ = granted()
    happen(owner.live, SiblingsReported(((2, done()),)))
    grants.lose(session, None)
    assert [event.lease for _, event in owner.reported] == [1, 3]
    assert session.holdings.leases == {}


def test_what_was_granted_on_a_stream_that_broke_unread_is_offered_again():
    owner, grants, before, given = granted()
    session = opened()
    session.holdings = before.holdings
    grants.not_received(session, frozenset({given.token}))
    assert len(owner.live.run.leases) == 3
    grants.not_received(session, frozenset())
    assert (owner.live.run.leases, session.holdings.leases) == ({}, {})
    assert all(stage.has_ready for stage in owner.live.run.stages)


def test_what_was_granted_on_the_new_stream_before_its_first_message_was_worked_off_is_on_its_way():
    # What an executor announces may make room, and room is filled at once.
    owner, grants, session, given = granted()
    grants.not_received(session, frozenset())
    assert len(owner.live.run.leases) == 3
    assert list(session.holdings.leases) == [given.token]


def test_those_that_its_executor_no_longer_holds_when_it_comes_back_are_offered_again():
    owner, grants, before, given = granted()
    session = opened()
    session.holdings = before.holdings
    assert grants.adopt(session, announced(owner, given, held=[1]))
    assert [lease.stage for lease in owner.live.run.leases.values()] == [1]
    assert session.holdings.leases[given.token].stream == session.stream
    assert [stage.has_ready for stage in owner.live.run.stages] == [True, False, True]


def test_who_lost_sight_of_them_knows_them_again_by_their_stages():
    owner, grants, _, given = granted()
    session = opened()
    assert grants.adopt(session, announced(owner, given, held=[0, 1]))
    held = session.holdings.leases[given.token]
    assert held.siblings == {0: 1, 1: 2, 2: 3}
    assert [lease.stage for lease in owner.live.run.leases.values()] == [0, 1]


def test_the_next_owner_adopts_those_that_are_held_and_can_be_had():
    owner, grants, _, given = granted()
    anew = Anew(owner, grants)
    happen(anew.owner.live, TasksClaimed("y", 1, 2, ((0, 1),), lambda _: b"elsewhere"))
    session = opened()
    assert anew.grants.adopt(session, announced(owner, given, held=[1, 2]))
    held = session.holdings.leases[given.token]
    assert (list(held.siblings), held.tasks) == ([1], 1)
    leases = anew.owner.live.run.leases
    assert {lease.stage: lease.executor for lease in leases.values()} == {1: "x", 2: "y"}
    assert anew.owner.live.run.stages[0].has_ready


@pytest.mark.parametrize(
    "forged",
    [
        {"siblings": False},
        {"tasks": [executor_pb2.TaskKey(shard=2, attempt=1)], "held": [2]},
        {"tasks": [executor_pb2.TaskKey(shard=stage, attempt=2) for stage in range(3)]},
        {"generation": 2},
    ],
)
def test_the_token_of_siblings_proves_nothing_of_other_tasks(forged):
    owner, grants, _, given = granted()
    anew = Anew(owner, grants)
    assert not anew.grants.adopt(opened(), announced(owner, given, **{"held": [0], **forged}))
    assert anew.owner.live.run.leases == {}


def test_they_are_lost_at_their_deadline_each():
    owner, grants, _, _ = granted()
    quiet: Any = grants._timers
    ((_, expire, _),) = quiet.calls
    happen(owner.live, SiblingsReported(((2, done()),)))
    expire()
    assert [(event.lease, event.reason) for _, event in owner.reported] == [(1, "DEADLINE"), (3, "DEADLINE")]


def report_of(*shards, **fields):
    results = [
        executor_pb2.TaskResult(
            shard=shard, attempt=1, outcome=job_pb2.ATTEMPT_OUTCOME_OK, value_json=orjson.dumps(shard)
        )
        for shard in shards
    ]
    return executor_pb2.Report(results=results, **fields)


def test_each_is_read_as_the_only_task_of_its_stage():
    live = job_of(3)
    found = read_siblings(live.run.stages, {0: 11, 2: 13}, report_of(2, 0))
    assert [(lease, result.shard, result.value) for lease, result in found] == [(13, 0, 2), (11, 0, 0)]


def test_what_is_not_among_them_is_left_out_whatever_it_names():
    live = job_of(3)
    assert read_siblings(live.run.stages, {0: 11}, report_of(1, 7, 2**32 - 1)) == ()


def test_results_in_columns_are_none_of_theirs():
    live = job_of(3)
    columns = executor_pb2.OrdinaryResults(
        shards=[0], attempts=[1], started_us=[0], ended_us=[0], items=[1], outputs=[b"xx"], elapsed_ns=[1]
    )
    assert read_siblings(live.run.stages, {0: 11}, report_of(ordinary=columns)) == ()


def test_one_that_cannot_be_read_fails_and_the_others_do_not():
    live = job_of(2)
    report = report_of(0, 1)
    report.results[0].value_json = b"{"
    outcomes = [result.outcome for _, result in read_siblings(live.run.stages, {0: 1, 1: 2}, report)]
    assert outcomes == [Outcome.FAILED, Outcome.OK]
