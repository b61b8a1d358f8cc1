"""Limits on jobs in flight, pools and ops."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pixloom.graph.plan import StageKind
from pixloom_scheduler.limits import Admission, Concurrency, share_of
from tests.support.live_jobs import live_job

ONE: list[tuple[StageKind, list[int]]] = [(StageKind.WHOLE, [])]


def ids(jobs):
    return [live.run.id for live in jobs]


def test_without_limits_every_job_begins_and_nothing_is_kept():
    admission = Admission({"pool.gpu": 1})
    assert all(admission.admit(live_job(number, ONE)) for number in range(5))
    assert admission.jobs() == []


def test_jobs_beyond_the_limit_wait_and_begin_by_priority_and_age():
    admission = Admission({"jobs": 2})
    jobs = [live_job(number, ONE, priority=9 if number == 4 else 5) for number in range(5)]
    assert [admission.admit(live) for live in jobs] == [True, True, False, False, False]
    assert admission.reached(jobs[2]) == "limit 2 reached: jobs in flight"
    assert [admission.ahead_of(live) for live in jobs[2:]] == [1, 2, 0]
    assert ids(admission.leave(jobs[0].run.id)) == [jobs[4].run.id]
    assert ids(admission.leave(jobs[1].run.id)) == [jobs[2].run.id]
    # Asked again, as every mark does, the answers stay the same.
    assert [admission.admit(live) for live in jobs[2:]] == [True, False, True]
    assert ids(admission.leave(jobs[4].run.id)) == [jobs[3].run.id]


def test_a_limit_of_one_project_holds_up_no_other():
    admission = Admission({"jobs": 3, "jobs_per_project": 1})
    first, second, other = (live_job(n, ONE, project=p) for n, p in ((1, "a"), (2, "a"), (3, "b")))
    assert [admission.admit(live) for live in (first, second, other)] == [True, False, True]
    assert admission.reached(second) == "limit 1 reached: jobs in flight in project a"
    assert ids(admission.leave(other.run.id)) == []
    assert ids(admission.leave(first.run.id)) == [second.run.id]


def test_a_job_that_waits_follows_its_priority():
    admission = Admission({"jobs": 1})
    running, old, young = (live_job(number, ONE) for number in range(3))
    assert [admission.admit(live) for live in (running, old, young)] == [True, False, False]
    young.run.priority = 7
    assert not admission.admit(young)
    assert ids(admission.leave(running.run.id)) == [young.run.id]


def test_a_job_that_ends_while_it_waits_is_forgotten():
    admission = Admission({"jobs": 1})
    running, waiting = live_job(1, ONE), live_job(2, ONE)
    admission.admit(running)
    admission.admit(waiting)
    assert admission.leave(waiting.run.id) == []
    assert admission.leave(running.run.id) == []
    assert admission.jobs() == []


def test_what_had_begun_before_a_restart_goes_on_even_above_the_limit():
    admission = Admission({"jobs": 1})
    begun = [live_job(number, ONE) for number in range(2)]
    for live in begun:
        live.run.checkpoint = 900.0
    assert [admission.admit(live) for live in begun] == [True, True]
    assert not admission.admit(live_job(3, ONE))


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, ()),
        ({"pool.gpu": 1}, ()),
        ({"pool.cpu": 2}, ("pool.cpu",)),
        ({"op.debug.noop": 2, "pool.cpu": 4}, ("op.debug.noop", "pool.cpu")),
        ({"op.debug.noop@1": 2}, ("op.debug.noop@1",)),
        ({"op.debug.noop@2": 2}, ()),
    ],
)
def test_a_stage_falls_under_the_limits_of_its_pool_and_ops(limits, expected):
    assert Concurrency(limits).names_of(live_job(1, ONE).run, 0) == expected


@pytest.mark.parametrize("replicas", [1, 2, 3, 5, 16])
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7, 100])
def test_shares_add_up_to_the_limit_and_nobody_has_none(limit: int, replicas: int) -> None:
    shares = [share_of(limit, place=place, replicas=replicas) for place in range(replicas)]
    assert sum(shares) == max(limit, replicas)
    assert min(shares) >= 1
    assert max(shares) - min(shares) <= 1


def test_batches_count_against_the_share_and_go_on_when_it_shrinks():
    concurrency = Concurrency({"pool.cpu": 3})
    names = concurrency.names_of(live_job(1, ONE).run, 0)
    for _ in range(3):
        concurrency.take(names)
    concurrency.divide(1, 2)
    concurrency.give(names)
    concurrency.give(names)
    assert not concurrency.has_room(names)
    assert concurrency.full(names) == ["share 1 of limit 3 reached: pool cpu"]
    concurrency.divide(0, 2)
    assert concurrency.has_room(names)
    concurrency.take(names)
    assert concurrency.full(names) == ["share 2 of limit 3 reached: pool cpu"]
    concurrency.divide(0, 1)
    assert concurrency.has_room(names)


def test_jobs_begin_when_the_share_grows_and_go_on_when_it_shrinks():
    admission = Admission({"jobs": 4, "jobs_per_project": 3})
    jobs = [live_job(number, ONE) for number in range(5)]
    assert admission.divide(1, 2) == []
    assert [admission.admit(live) for live in jobs] == [True, False, False, False, False]
    assert admission.reached(jobs[1]) == "share 1 of limit 3 reached: jobs in flight in project default"
    assert ids(admission.divide(0, 1)) == ids(jobs[1:3])
    assert admission.reached(jobs[3]) == "limit 3 reached: jobs in flight in project default"
    assert admission.divide(1, 2) == []
    assert all(admission.admit(live) for live in jobs[:3])
    assert admission.reached(jobs[3]) == "share 2 of limit 4 reached: jobs in flight"
    assert [admission.leave(live.run.id) for live in jobs[:2]] == [[], []]
    assert ids(admission.leave(jobs[2].run.id)) == [jobs[3].run.id]


def test_batches_count_while_they_are_offered_or_leased():
    concurrency = Concurrency({"pool.cpu": 2})
    run = live_job(1, ONE).run
    names = concurrency.names_of(run, 0)
    concurrency.take(names)
    concurrency.leased(run, 7, 0)
    concurrency.leased(run, 7, 0)  # told twice, after a stream was opened again
    assert not concurrency.has_room(names)
    assert concurrency.full(names) == ["limit 2 reached: pool cpu"]
    concurrency.give(names)
    assert concurrency.has_room(names)
    concurrency.settle(run.id, {7: SimpleNamespace()})
    assert concurrency.jobs() == [run.id]
    concurrency.settle(run.id, {})
    assert concurrency.jobs() == []
    concurrency.take(names)
    assert concurrency.has_room(names)
