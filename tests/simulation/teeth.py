"""Looks for the first seed that catches a planted fault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.simulation.mutants import Mutant, planted
from tests.simulation.simulation import run_seed

if TYPE_CHECKING:
    from tests.simulation.world import Violation

__all__ = ["MOST_SEEDS", "Catch", "catch"]

MOST_SEEDS = 100


@dataclass(frozen=True, slots=True)
class Catch:
    """How a mutant was caught.

    Attributes:
        mutant: The mutant.
        seed: The seed that caught it.
        violation: What it broke first.
    """

    mutant: Mutant
    seed: int
    violation: Violation

    def __str__(self) -> str:
        return f"{self.mutant.name:62} seed {self.seed:3} step {self.violation.step:5}  {self.violation.rule}"


def catch(mutant: Mutant, *, most_seeds: int = MOST_SEEDS) -> Catch | None:
    """Run seeds with a planted fault until one catches it; None if none does."""
    for seed in range(most_seeds):
        with planted(mutant):
            outcome = run_seed(seed, faults=mutant.mix())
        if outcome.violations:
            return Catch(mutant, seed, outcome.violations[0])
    return None
