"""`python -m tests.simulation --seeds A:B`: run seeds, or one of them in full; `--mutants` shows that it has teeth."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.mutants import MUTANTS
from tests.simulation.simulation import run_seed
from tests.simulation.teeth import catch


def _range(text: str) -> range:
    first, _, last = text.partition(":")
    return range(int(first), int(last) if last else int(first) + 1)


def _show_teeth() -> int:
    missed = 0
    for mutant in MUTANTS:
        caught = catch(mutant)
        missed += caught is None
        print(caught or f"{mutant.name:62} NOT CAUGHT", flush=True)
    print(f"{len(MUTANTS)} mutants, {missed} not caught")
    return 1 if missed else 0


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=_range, default=range(100), help="A:B, or one seed, whose event log is printed")
    parser.add_argument("--mutants", action="store_true", help="plant every fault and print what catches it")
    arguments = parser.parse_args()
    if arguments.mutants:
        return _show_teeth()
    seeds: range = arguments.seeds
    start, failed = time.monotonic(), 0
    for seed in seeds:
        outcome = run_seed(seed, is_verbose=len(seeds) == 1)
        if len(seeds) == 1:
            print("\n".join(outcome.lines))
        for violation in outcome.violations:
            print(f"seed {seed} step {violation.step}: {violation.rule}: {violation.detail}")
        failed += bool(outcome.violations)
        if len(seeds) == 1:
            print(
                f"seed {seed}: {outcome.steps} steps, {outcome.commits} commits, {outcome.jobs} jobs, {outcome.digest[:16]}"
            )
    print(f"{len(seeds)} seeds, {failed} failed, {time.monotonic() - start:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
