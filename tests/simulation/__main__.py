"""`python -m tests.simulation --seeds A:B`: run seeds, or one of them in full; `--mutants` shows that it has teeth."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.simulation import run_seed


def _range(text: str) -> range:
    first, _, last = text.partition(":")
    return range(int(first), int(last) if last else int(first) + 1)


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=_range, default=range(100), help="A:B, or one seed, whose event log is printed")
    arguments = parser.parse_args()
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
            print(f"seed {seed}: {outcome.steps} steps, {outcome.commits} commits, {outcome.jobs} jobs, {outcome.digest[:16]}")
    print(f"{len(seeds)} seeds, {failed} failed, {time.monotonic() - start:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
