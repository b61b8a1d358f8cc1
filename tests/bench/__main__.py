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


async def _measure(names: list[str], *, runs: int, photos: int, photos_dir: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="pixloom-bench-") as name:
        folder = Path(name)
        photos_dir = (photos_dir or folder / "photos").resolve()
        options = LocalStackOptions.from_settings(
            data_dir=folder / "data", http_port=0, grpc_port=0, executors=1, source_roots=(folder, photos_dir)
        )
        async with (
            LocalStack(options, announce=lambda _: None) as stack,
            grpc.aio.insecure_channel(stack.grpc_address) as channel,
        ):
            bench = Bench(stack=stack, channel=channel, folder=folder, runs=runs, photos=photos_dir, photo_count=photos)
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
    parser.add_argument("--photos", type=int, default=2000, help="photos that workloads with photos read")
    parser.add_argument("--photos-dir", type=Path, help="where photos are made, or found from an earlier run")
    arguments = parser.parse_args()
    uvloop.run(
        _measure(
            arguments.workloads or list(WORKLOADS),
            runs=arguments.runs,
            photos=arguments.photos,
            photos_dir=arguments.photos_dir,
        )
    )


if __name__ == "__main__":
    main()
