"""The engine in a simulated world: a minute of seeds, and every planted fault caught."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.simulation.faults import Faults
from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.simulation import run_seed
from tests.simulation.teeth import catch

if TYPE_CHECKING:
    from collections.abc import Callable

SEEDS_EACH = 40
PARTS = 6


@pytest.mark.parametrize("part", range(PARTS))
def test_no_seed_breaks_an_invariant(part: int) -> None:
    for seed in range(part * SEEDS_EACH, (part + 1) * SEEDS_EACH):
        outcome = run_seed(seed)
        where = f"replay it with: python -m tests.simulation --seeds {seed}"
        assert not outcome.violations, "\n".join([*outcome.lines[-40:], str(outcome.violations[0]), where])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "faults",
    [
        Faults(replicas=3, limit_pool=2, child_partial=0.2, executor_kill=0.05, queue_loss=0.05),
        Faults(replicas=3, limit_pool=4, limit_jobs=4, scheduler_kill=0.15, scheduler_leave=0.1, child_fail=0.1),
    ],
    ids=["fewer than schedulers", "schedulers come and go"],
)
def test_schedulers_keep_limits_together_and_nothing_waits_for_ever(faults: Faults, seed: int) -> None:
    outcome = run_seed(seed, faults=faults)
    assert outcome.jobs
    assert not outcome.violations, "\n".join([*outcome.lines[-40:], str(outcome.violations[0])])


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_planted_fault_is_caught(mutant: Mutant, record_property: Callable[[str, object], None]) -> None:
    caught = catch(mutant)
    assert caught is not None, f"no seed notices that {mutant.name}"
    record_property("caught", str(caught))


def test_a_seed_replays_exactly() -> None:
    first, second = run_seed(2, is_verbose=True), run_seed(2, is_verbose=True)
    assert first.lines == second.lines
    assert first.digest == second.digest


def test_a_seed_replays_exactly_in_another_process_whatever_its_hash_seed() -> None:
    digests = set()
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-m", "tests.simulation", "--seeds", "2"]
        done = subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True
        )
        digests.add(done.stdout.splitlines()[-2].split()[-1])
    assert digests == {run_seed(2).digest[:16]}


def test_seeds_differ_and_do_real_work() -> None:
    outcomes = [run_seed(seed) for seed in range(4)]
    assert len({outcome.digest for outcome in outcomes}) == len(outcomes)
    assert all(outcome.jobs and outcome.commits > outcome.jobs for outcome in outcomes)
