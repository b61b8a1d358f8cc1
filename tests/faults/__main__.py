"""`make test-faults`: the fault suite, or the cases that were named; one JSON line for each.

Every case has a stack of its own (gateway, schedulers, three executors, PostgreSQL, NATS) on this machine, and a row in
the table of docs/explanation/reliability.md, which is written anew when it was run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from tests.faults.cases.catalogue import CASES
from tests.faults.cases.disk import INSIDE
from tests.faults.page import write_table
from tests.faults.scene import Case, Scene
from tests.faults.verdict import Outcome


async def _run(case: Case, scene: Scene) -> dict[str, Any]:
    begin = time.monotonic()
    try:
        outcome = await case.run(scene)
    except Exception as error:  # noqa: BLE001 - a case that breaks has failed, and the others are run all the same
        traceback.print_exc()
        outcome = Outcome(problems=[f"{type(error).__name__}: {error}"[:500]])
    bars = {name: figure for name, (figure, _) in outcome.bars.items()}
    missed = [name for name, (_, met) in outcome.bars.items() if not met]
    return {
        "case": case.name,
        **outcome.figures,
        **bars,
        **({"missed": missed} if missed else {}),
        **({"problems": outcome.problems} if outcome.problems else {}),
        "seconds": round(time.monotonic() - begin, 1),
        "passed": outcome.passed,
    }


def main() -> int:
    """Run what was asked for; 0 if every case passed."""
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(prog="make test-faults")
    parser.add_argument("--cases", default="", help=f"cases, separated by commas: {', '.join(names)}; default all")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the load: 1 is 500 jobs and 10,000 tasks")
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds of faults in each case, and of the soak")
    parser.add_argument("--schedulers", type=int, default=2, help="number of schedulers")
    parser.add_argument("--seed", type=int, default=0, help="seed of what is left to chance")
    parser.add_argument("--keep", action="store_true", help="keep the data of cases that failed")
    parser.add_argument("--no-table", action="store_true", help="leave the table in the documentation as it is")
    arguments = parser.parse_args()
    chosen = [name for name in arguments.cases.split(",") if name] or names
    if unknown := sorted(set(chosen) - set(names)):
        parser.error(f"there is no case {', '.join(unknown)}; there are {', '.join(names)}")
    results = []
    by_name = {case.name: case for case in CASES}
    for case in (by_name[name] for name in chosen):
        folder = Path(tempfile.mkdtemp(prefix=f"faults-{case.name}-"))
        scene = Scene(
            folder,
            scale=arguments.scale,
            seconds=arguments.seconds,
            schedulers=arguments.schedulers,
            rng=random.Random(f"{arguments.seed} {case.name}"),
        )
        result = asyncio.run(_run(case, scene))
        print(json.dumps(result), flush=True)
        results.append(result)
        if result["passed"] or not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"{case.name}: its data is in {folder}", file=sys.stderr)
        if not arguments.no_table and not os.environ.get(INSIDE):
            write_table([result], run=f"{arguments.scale:g}, {arguments.seconds:g}, {arguments.schedulers}")
    return 0 if all(result["passed"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
