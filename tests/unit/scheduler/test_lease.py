"""The lease of a replica: short for who renews in time, longer for who is late again and again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixloom_scheduler.lease import LONGEST, Lease

USUAL_S = 3.0


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def begun() -> tuple[Lease, Clock]:
    clock = Clock()
    lease = Lease(usual_s=USUAL_S, monotonic=clock)
    lease.begin(since=clock.now, length_s=lease.length_s, among_others=False)
    return lease, clock


def renew(lease: Lease, clock: Clock, *, after_s: float, takes_s: float = 0.0) -> None:
    """Renew it so long after the last time, in a transaction that takes its time."""
    clock.now += after_s
    sent, length_s = clock.now, lease.length_s
    clock.now += takes_s
    lease.renew(sent=sent, length_s=length_s)


def test_who_is_in_time_asks_for_the_usual_lease() -> None:
    lease, clock = begun()
    for _ in range(100):
        renew(lease, clock, after_s=0.8, takes_s=0.2)
        assert lease.due_s == pytest.approx(0.8)
        assert lease.is_valid
        assert lease.length_s == USUAL_S


def test_the_owner_falls_silent_before_its_lease_ends() -> None:
    lease, clock = begun()
    clock.now += 2.39
    assert lease.is_valid
    clock.now += 0.02
    assert not lease.is_valid


def test_it_counts_from_before_the_transaction() -> None:
    lease, clock = begun()
    renew(lease, clock, after_s=1.0, takes_s=2.5)
    assert not lease.is_valid


def test_one_pause_is_an_accident() -> None:
    lease, clock = begun()
    renew(lease, clock, after_s=8.0)
    assert lease.length_s == USUAL_S


def test_two_pauses_are_a_habit_and_a_quiet_minute_ends_it() -> None:
    lease, clock = begun()
    renew(lease, clock, after_s=8.0)
    renew(lease, clock, after_s=3.0)
    # The lesser one was 2 s late.
    assert lease.length_s == pytest.approx(USUAL_S + 3 * 2.0)
    for _ in range(55):
        renew(lease, clock, after_s=1.0)
    assert lease.length_s > USUAL_S
    for _ in range(6):
        renew(lease, clock, after_s=1.0)
    assert lease.length_s == USUAL_S


def test_a_renewal_that_came_too_late_to_keep_anything_counts_as_well() -> None:
    lease, clock = begun()
    for _ in range(2):
        clock.now += 6.0
        lease.note_lateness()
        lease.begin(since=clock.now, length_s=lease.length_s, among_others=False)
    assert lease.length_s == USUAL_S * LONGEST
    assert lease.is_valid


def test_a_partition_that_joins_others_does_not_prolong_their_lease() -> None:
    lease, clock = begun()
    clock.now += 2.0
    lease.begin(since=clock.now, length_s=3.0, among_others=True)
    clock.now += 0.5
    assert not lease.is_valid
    assert lease.is_overdue
    lease.begin(since=clock.now, length_s=3.0, among_others=False)
    assert lease.is_valid
    assert not lease.is_overdue
    lease.end()
    assert not lease.is_valid


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 30)), max_size=50))
def test_a_lease_lasts_from_the_usual_time_to_five_times_that(steps: list[tuple[float, float]]) -> None:
    lease, clock = begun()
    for after_s, takes_s in steps:
        renew(lease, clock, after_s=after_s, takes_s=takes_s)
        assert USUAL_S <= lease.length_s <= USUAL_S * LONGEST


@given(st.floats(0.6, 3.9))
def test_who_is_late_by_the_same_time_again_and_again_stays_inside_its_lease(late_s: float) -> None:
    lease, clock = begun()
    for number in range(20):
        clock.now += 1.0 + late_s
        assert lease.is_valid or number < 3, "two to learn from, and one that was asked for before"
        renew(lease, clock, after_s=0.0)
