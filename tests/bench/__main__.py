"""`python -m tests.bench [WORKLOAD…] [--runs N]`: one JSON line for each workload, on an embedded stack.

Everything runs on this machine with the default fsync and tracing. Machines differ and are noisy: compare figures of
one run only.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import grpc
import uvloop

from pixloom.local.options import LocalStackOptions
from pixloom.local.stack import LocalStack
from tests.bench.workloads import WORKLOADS, Bench


async def _measure(names: list[str], runs: int) -> None:
    with tempfile.TemporaryDirectory(prefix="pixloom-bench-") as name:
        folder = Path(name)
        options = LocalStackOptions.from_settings(
            data_dir=folder / "data", http_port=0, grpc_port=0, executors=1, source_roots=(folder,)
        )
        async with (
            LocalStack(options, announce=lambda _: None) as stack,
            grpc.aio.insecure_channel(stack.grpc_address) as channel,
        ):
            bench = Bench(stack=stack, channel=channel, folder=folder, runs=runs)
            for workload in names:
                figures = await WORKLOADS[workload](bench)
                print(json.dumps({"workload": workload, **figures}), flush=True)


def main() -> None:
    """Measure what was asked for, or everything."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument(
        "workloads", nargs="*", choices=[*WORKLOADS, []], help="what to measure; everything if left out"
    )
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each, after one to warm up")
    arguments = parser.parse_args()
    uvloop.run(_measure(arguments.workloads or list(WORKLOADS), arguments.runs))


if __name__ == "__main__":
    main()
