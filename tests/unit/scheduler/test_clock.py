from __future__ import annotations

import pytest

from pixloom_scheduler.clock import DatabaseClock


@pytest.fixture
def monotonic() -> list[float]:
    return [100.0]


@pytest.fixture
def clock(monotonic: list[float]) -> DatabaseClock:
    made = DatabaseClock(wall=lambda: 1_000.0, monotonic=lambda: monotonic[0])
    made.set(2_000.0)
    return made


def test_the_time_of_the_database_is_carried_on(clock: DatabaseClock, monotonic: list[float]) -> None:
    monotonic[0] += 1.5
    assert clock.now() == 2_001.5


def test_an_answer_that_comes_late_does_not_set_it_back(clock: DatabaseClock, monotonic: list[float]) -> None:
    before = clock.now()
    monotonic[0] += 1.0
    clock.set(2_000.98)  # 20 ms have passed since the database read its clock
    assert before + 1.0 - 0.001 < clock.now() <= before + 1.0


def test_a_quicker_answer_and_another_time_are_believed(clock: DatabaseClock) -> None:
    clock.set(2_000.01)
    assert clock.now() == 2_000.01
    clock.set(1_999.0)
    assert clock.now() == 1_999.0


def test_a_drift_is_followed(clock: DatabaseClock) -> None:
    for _ in range(1_000):
        clock.set(1_999.98)
    assert clock.now() == pytest.approx(1_999.98, abs=1e-4)
