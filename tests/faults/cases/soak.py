"""The load without faults, for as long as there is time: memory and open files must not grow."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING

import psutil

from tests.faults.scene import Case

if TYPE_CHECKING:
    from tests.faults.cluster import Cluster
    from tests.faults.scene import Scene
    from tests.faults.verdict import Outcome

__all__ = ["CASES"]

GROWTH_MB = 30.0
"""Growth from the second to the last third that passes for flat: caches that fill up, and the allocator."""

GROWTH_FILES = 10


async def soak(scene: Scene) -> Outcome:
    """Run jobs all the time, and look at every part once a second."""
    samples: list[tuple[float, dict[str, tuple[float, int]]]] = []
    async with scene.cluster() as cluster:
        load = scene.load(cluster)

        async def look() -> None:
            await asyncio.sleep(1.0)
            samples.append((time.monotonic(), _sizes(cluster)))

        scene.happens()
        outcome = await scene.under(cluster, load, look)
    third = len(samples) // 3
    growth: dict[str, tuple[float, float]] = {}
    for part in samples[-1][1] if third else ():
        middle = [sample[part] for _, sample in samples[third : 2 * third] if part in sample]
        last = [sample[part] for _, sample in samples[2 * third :] if part in sample]
        growth[part] = (
            statistics.median(size for size, _ in last) - statistics.median(size for size, _ in middle),
            statistics.median(files for _, files in last) - statistics.median(files for _, files in middle),
        )
    most_mb = max((mb for mb, _ in growth.values()), default=float("inf"))
    most_files = max((files for _, files in growth.values()), default=float("inf"))
    outcome.bars["memory_growth_mb"] = (round(most_mb, 1), most_mb <= GROWTH_MB)
    outcome.bars["open_files_growth"] = (most_files, most_files <= GROWTH_FILES)
    return outcome


def _sizes(cluster: Cluster) -> dict[str, tuple[float, int]]:
    """Return resident memory in MB and open files of each part."""
    sizes = {}
    for part in (*cluster.schedulers, "gateway", *cluster.executors):
        pid = cluster.stack.pid(part)
        if pid is not None:
            process = psutil.Process(pid)
            sizes[part] = (process.memory_info().rss / 1e6, process.num_fds())
    return sizes


CASES = (Case("soak", "none, for as long as SECONDS says", "flat memory and file descriptors", soak),)
