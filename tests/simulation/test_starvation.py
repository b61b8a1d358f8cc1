"""Two schedulers that hardly get to anything: they keep what they own and get on with it, instead of loading it again."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import tests.simulation.faults
from tests.simulation.faults import Faults
from tests.simulation.mutants import Mutant, planted
from tests.simulation.simulation import Outcome, run_seed

if TYPE_CHECKING:
    import pytest

STEP_S = 0.07
"""Time that each callback takes: what a scheduler does in a few milliseconds takes it some seconds."""

STORM_S = 150.0
SEEDS = range(3)
OF_FIXED_LENGTH = Mutant(
    "the lease is of the same length for everybody",
    "pixloom_scheduler.lease:Lease.length_s",
    "worst[1] if len(worst) > 1 else 0.0",
    "0.0",
)


def starved(seed: int, mutant: Mutant | None = None) -> Outcome:
    """Run a seed in which both schedulers are slow nearly all the time."""
    with planted(mutant) if mutant is not None else contextlib.nullcontext():
        return run_seed(seed, faults=Faults(replicas=2, scheduler_starve=4.0), storm_s=STORM_S)


def test_starved_schedulers_get_on_and_take_over_less_than_with_a_lease_of_fixed_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tests.simulation.faults, "STARVED_STEPS_S", (STEP_S,))
    outcomes = [starved(seed) for seed in SEEDS]
    for outcome in outcomes:
        assert not outcome.violations
        assert outcome.ended_in_storm == outcome.jobs, "work gets done while it lasts"
    without = [starved(seed, OF_FIXED_LENGTH) for seed in SEEDS]
    assert sum(outcome.takeovers for outcome in outcomes) < sum(outcome.takeovers for outcome in without)
