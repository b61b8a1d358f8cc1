"""A replica that lost partitions stands back, longer each time, and its past is forgotten in the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixloom_scheduler.setbacks import FIRST_S, FORGOTTEN_S, JITTER, LONGEST_S, Setbacks


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def made(chance: float = 0.5) -> tuple[Setbacks, Clock]:
    clock = Clock()
    return Setbacks(monotonic=clock, chance=lambda: chance), clock


def test_nobody_stands_back_without_a_loss() -> None:
    setbacks, _ = made()
    assert setbacks.left_s == 0


def test_each_loss_after_the_return_doubles_the_time_up_to_a_minute() -> None:
    setbacks, clock = made()
    times = []
    for _ in range(8):
        setbacks.note()
        times.append(setbacks.left_s)
        clock.now += setbacks.left_s + 5.0
    assert times == [2, 4, 8, 16, 32, 60, 60, 60]


def test_what_is_lost_while_standing_back_adds_nothing() -> None:
    setbacks, clock = made()
    setbacks.note()
    clock.now += 1.0
    setbacks.note()
    assert setbacks.left_s == FIRST_S - 1.0
    clock.now += 2.0
    setbacks.note()
    assert setbacks.left_s == 2 * FIRST_S


def test_a_quiet_minute_after_the_return_makes_the_next_loss_a_first_one() -> None:
    setbacks, clock = made()
    for _ in range(3):
        setbacks.note()
        clock.now += setbacks.left_s
    clock.now += FORGOTTEN_S + 0.1
    setbacks.note()
    assert setbacks.left_s == pytest.approx(FIRST_S)


def test_it_ends_when_nobody_else_is_there_and_the_losses_still_count() -> None:
    setbacks, _ = made()
    setbacks.note()
    setbacks.end()
    assert setbacks.left_s == 0
    setbacks.note()
    assert setbacks.left_s == 2 * FIRST_S


@given(chance=st.floats(0, 1), losses=st.integers(1, 12))
def test_jitter_stays_within_a_quarter(chance: float, losses: int) -> None:
    setbacks, clock = made(chance)
    for _ in range(losses):
        clock.now += setbacks.left_s
        setbacks.note()
    exact = min(LONGEST_S, FIRST_S * 2 ** (losses - 1))
    assert exact * (1 - JITTER) - 1e-6 <= setbacks.left_s <= exact * (1 + JITTER) + 1e-6
