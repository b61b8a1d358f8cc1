"""Whose turn it is."""

from __future__ import annotations

import pytest

from pixloom.graph.plan import StageKind
from pixloom_scheduler.core.events import PauseRequested, ResumeRequested
from pixloom_scheduler.turns import SPARE_ENTRIES, Turns
from tests.support.live_jobs import happen, live_job, offer

ONE: list[tuple[StageKind, list[int]]] = [(StageKind.WHOLE, [])]
SEVERAL: list[tuple[StageKind, list[int]]] = [(StageKind.WHOLE, []), (StageKind.WHOLE, []), (StageKind.WHOLE, [])]


class World:
    """Turns over a few jobs; `full` names limits without room."""

    def __init__(self, *jobs, costs=None, limits_of=lambda _run, _stage: ()):
        self.jobs = {live.run.id: live for live in jobs}
        self.full = set()
        self.turns = Turns(costs=costs or {}, limits_of=limits_of, find=self.jobs.get)
        for live in jobs:
            self.turns.mark(live, range(len(live.run.stages)))

    def next(self):
        turn = self.turns.next("cpu", lambda names: not self.full & set(names))
        return None if turn is None else (turn[0].run.id, turn[1])

    def take(self):
        """Offer a batch of whoever is next."""
        turn = self.turns.next("cpu", lambda names: not self.full & set(names))
        assert turn is not None
        live, stage = turn
        offer(live, stage)
        if not live.run.stages[stage].has_ready:
            self.turns.unmark(live, stage)
        self.turns.weigh(live, (stage,))
        return live.run.id, stage


def test_the_highest_priority_comes_first_then_the_oldest():
    low, old, young, high = (live_job(n, ONE, priority=p) for n, p in ((1, 0), (2, 5), (3, 5), (4, 9)))
    world = World(young, low, high, old)
    assert [world.take()[0] for _ in range(4)] == [high.run.id, old.run.id, young.run.id, low.run.id]
    assert world.next() is None


def test_among_equals_the_job_with_the_least_seconds_under_way_comes_first():
    wide, other = live_job(1, SEVERAL), live_job(2, SEVERAL)
    world = World(wide, other)
    # One batch each in turn, however many are ready.
    taken = [world.take()[0] for _ in range(6)]
    assert taken == [wide.run.id, other.run.id] * 3


def test_seconds_count_and_not_tasks():
    slow, quick = live_job(1, SEVERAL), live_job(2, SEVERAL)
    for node, cost in (("slow", 10.0), ("quick", 1.0)):
        live = slow if node == "slow" else quick
        for index, plan in enumerate(live.run.plan.nodes):
            object.__setattr__(plan, "cost_s", cost)
            assert live.run.plan.nodes[index].cost_s == cost
    world = World(slow, quick)
    assert [world.take()[0] for _ in range(4)] == [slow.run.id, quick.run.id, quick.run.id, quick.run.id]


def test_of_one_job_the_stage_nearest_to_the_end_comes_first():
    world = World(live_job(1, SEVERAL))
    assert [world.take()[1] for _ in range(3)] == [2, 1, 0]


def test_a_paused_job_has_no_turn_until_it_is_marked_again():
    one, other = live_job(1, ONE), live_job(2, ONE)
    world = World(one, other)
    happen(one, PauseRequested())
    assert world.next() == (other.run.id, 0)
    happen(one, ResumeRequested())
    world.turns.mark(one, (0,))
    assert world.next() == (one.run.id, 0)


def test_a_job_that_went_elsewhere_has_no_turn():
    one, other = live_job(1, ONE), live_job(2, ONE)
    world = World(one, other)
    del world.jobs[one.run.id]
    assert world.next() == (other.run.id, 0)


def test_held_jobs_wait_for_their_release():
    one, other = live_job(1, ONE), live_job(2, ONE)
    world = World(one, other)
    world.turns.hold([one.run.id])
    assert world.next() == (other.run.id, 0)
    world.turns.release([one.run.id])
    assert world.next() == (one.run.id, 0)


def test_a_changed_priority_counts_from_the_next_change_on():
    one, other = live_job(1, ONE), live_job(2, ONE)
    world = World(one, other)
    other.run.priority = 8
    world.turns.weigh(other, ())
    assert world.next() == (other.run.id, 0)


def test_a_full_limit_stops_its_own_line_only():
    limited, free = live_job(1, ONE, priority=9), live_job(2, ONE)
    world = World(limited, free, limits_of=lambda run, _stage: ("op.x",) if run is limited.run else ())
    world.full = {"op.x"}
    assert world.next() == (free.run.id, 0)
    world.full = set()
    assert world.next() == (limited.run.id, 0)


def test_entries_do_not_pile_up_however_often_places_change():
    jobs = [live_job(number, SEVERAL) for number in range(4)]
    world = World(*jobs)
    line = world.turns._lines["cpu"][()]
    for number in range(5_000):
        jobs[number % 4].run.priority = number % 9
        world.turns.weigh(jobs[number % 4], ())
    assert len(line.heap) <= 2 * len(jobs) + SPARE_ENTRIES + 1
    assert world.next() is not None


@pytest.mark.parametrize("jobs", [100, 10_000])
def test_the_next_turn_is_found_without_looking_at_all_jobs(jobs):
    lives = [live_job(number, ONE) for number in range(jobs)]
    world = World(*lives)
    looked = 0

    def find(job_id):
        nonlocal looked
        looked += 1
        return world.jobs.get(job_id)

    world.turns._find = find
    for _ in range(50):
        world.take()
    assert looked == 50
