"""Two schedulers that hardly get to anything: they keep what they own and get on with it, instead of loading it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pixloom_scheduler.lease
import pixloom_scheduler.partitions
import pixloom_scheduler.setbacks
import tests.simulation.faults
from tests.simulation.faults import Faults
from tests.simulation.simulation import Outcome, run_seed

if TYPE_CHECKING:
    import pytest

STEP_S = 0.07
"""Time that each callback takes: what a scheduler does in a few milliseconds takes it some seconds."""

STORM_S = 150.0
SEEDS = range(3)


def starved() -> list[Outcome]:
    """Run seeds in which both schedulers are slow nearly all the time."""
    return [run_seed(seed, faults=Faults(replicas=2, scheduler_starve=4.0), storm_s=STORM_S) for seed in SEEDS]


def test_starved_schedulers_get_on_and_leave_one_another_what_they_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tests.simulation.faults, "STARVED_STEPS_S", (STEP_S,))
    outcomes = starved()
    for outcome in outcomes:
        assert not outcome.violations
        assert outcome.ended_in_storm == outcome.jobs, "work gets done while it lasts"
    # Without what is done for them, they take over from one another.
    monkeypatch.setattr(pixloom_scheduler.lease, "FOR_LATENESS", 0.0)
    monkeypatch.setattr(pixloom_scheduler.partitions, "MOST_GRACE_S", 0.0)
    monkeypatch.setattr(pixloom_scheduler.setbacks, "FIRST_S", 0.0)
    without = starved()
    assert sum(outcome.takeovers for outcome in outcomes) < sum(outcome.takeovers for outcome in without)
