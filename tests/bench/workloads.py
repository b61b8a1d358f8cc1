"""What is measured: each workload runs on a stack and returns its figures."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import psutil

from tests.bench import documents
from tests.bench.client import cancel_job, run_job, run_small_job, started_after, submit, until_tasks_done
from tests.bench.limits import bare
from tests.bench.photos import bare_pool, hashing_ms, make_photos, pipeline, thumbnail
from tests.bench.scale import restart, takeover, wide_fan_out

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    import grpc

    from pixloom.local.stack import LocalStack

__all__ = ["WORKLOADS", "Bench"]

Figures = dict[str, Any]


class Bench:
    """A running stack with a channel to it, and a folder for what workloads need.

    Args:
        stack: The stack.
        channel: A channel to its gateway.
        folder: Empty folder for what workloads write.
        runs: Counted runs of each workload, at least 1.
        photos: Folder with the photos, or for them.
        photo_count: How many there are to be.
    """

    def __init__(
        self,
        *,
        stack: LocalStack,
        channel: grpc.aio.Channel,
        folder: Path,
        runs: int,
        photos: Path,
        photo_count: int,
    ) -> None:
        self.stack = stack
        self.channel = channel
        self.folder = folder
        self.runs = runs
        self.photos = photos
        self._photo_count = photo_count

    def prepare_photos(self) -> list[Path]:
        """Make the photos if they are missing and return them, read once so that none is cold.

        Raises:
            ValueError: if the folder has others.
        """
        make_photos(self.photos, self._photo_count)
        paths = sorted(self.photos.iterdir())
        if len(paths) != self._photo_count:
            raise ValueError(f"{self.photos} has {len(paths)} files instead of {self._photo_count} photos")
        for path in paths:
            path.read_bytes()
        return paths

    async def repeat(self, document: documents.Document) -> list[float]:
        """Run a document once to warm up and then `runs` times; return the seconds each took."""
        await run_job(self.channel, document)
        return [(await run_job(self.channel, document)).elapsed_s for _ in range(self.runs)]

    def cpu_s(self) -> dict[str, float]:
        """Return the processor seconds that each part has taken, children included."""
        used = {}
        for part in self.stack.parts:
            top = psutil.Process(self.stack.pid(part))
            used[part] = sum(sum(process.cpu_times()[:2]) for process in (top, *top.children(recursive=True)))
        return used

    def cpu_of(self, before: dict[str, float], units: int) -> Figures:
        """Return what a unit of work has taken of the processors since `before`, and how many that allows a second.

        Args:
            before: What `cpu_s` gave.
            units: Number of units since then.
        """
        used = {part: seconds - before.get(part, 0.0) for part, seconds in self.cpu_s().items()}
        return {
            "cpu_us": {part: round(1e6 * seconds / units) for part, seconds in used.items()},
            "cores_allow_per_s": round((os.cpu_count() or 1) * units / sum(used.values())),
        }

    async def commits(self) -> list[int]:
        """Return the number of commits so far of each partition."""
        connection = await asyncpg.connect(self.stack.wiring.database_url)
        try:
            rows = await connection.fetch("SELECT commit_seq FROM pixloom.partition ORDER BY id")
        finally:
            await connection.close()
        return [row["commit_seq"] for row in rows]

    def scheduler_mb(self) -> float:
        """Return the resident memory of the scheduler, MB."""
        return float(psutil.Process(self.stack.pid("scheduler")).memory_info().rss) / 1e6


async def fan_out(bench: Bench, tasks: int = 10_000) -> Figures:
    """Tasks a second of a wide fan-out, each item a task of its own, with one op after all of them."""
    await run_job(bench.channel, documents.fan_out(tasks))
    before = bench.cpu_s()
    rates = [tasks / (await run_job(bench.channel, documents.fan_out(tasks))).elapsed_s for _ in range(bench.runs)]
    cpu = bench.cpu_of(before, tasks * bench.runs)
    return {
        "tasks": tasks,
        "tasks_per_s": round(statistics.median(rates)),
        "runs": [round(rate) for rate in rates],
        **cpu,
    }


async def one_node(bench: Bench) -> Figures:
    """Milliseconds from the submit of a one-node job to its result, one at a time, by the call that submits or by watch."""
    document = documents.one_node()
    for _ in range(20):
        await run_job(bench.channel, document)
    times = [await run_small_job(bench.channel, document) * 1000 for _ in range(200)]
    watched = [(await run_job(bench.channel, document)).elapsed_s * 1000 for _ in range(200)]
    cuts, watched_cuts = statistics.quantiles(times, n=100), statistics.quantiles(watched, n=100)
    return {
        "jobs": len(times),
        "p50_ms": round(cuts[49], 2),
        "p99_ms": round(cuts[98], 2),
        "watched_p50_ms": round(watched_cuts[49], 2),
        "watched_p99_ms": round(watched_cuts[98], 2),
    }


async def thumbnails(bench: Bench) -> Figures:
    """Thumbnails of photos, one item a task, against a bare pool of two processes, in turn; what hashing costs."""
    paths = bench.prepare_photos()
    figures = await _in_turn(bench, paths, thumbnail, {"": documents.thumbnails(str(bench.photos))})
    return {**figures, "hashing_ms": round(hashing_ms(paths), 3)}


async def three_ops(bench: Bench) -> Figures:
    """Resize, sharpen and convert: fused, not fused, and by hand in a bare pool, in turn."""
    paths = bench.prepare_photos()
    ways = {"": True, "unfused_": False}
    figures = await _in_turn(
        bench,
        paths,
        pipeline,
        {name: documents.three_ops(str(bench.photos), fuse=fuse) for name, fuse in ways.items()},
    )
    figures["fused_to_unfused"] = round(figures["images_per_s"] / figures["unfused_images_per_s"], 2)
    return figures


async def _in_turn(
    bench: Bench, paths: list[Path], work: Callable[[str, str], None], ways: dict[str, documents.Document]
) -> Figures:
    """Run `work` in a bare pool and each document, one after another, as often as runs are counted.

    Returns:
        Images a second of the pool and, behind the name of each way, of its document; its ratio to the pool in the same
        turn with the least and most; and the milliseconds of processor time that each part took for an image.
    """
    bare: list[float] = []
    bare_cpu_ms: list[float] = []
    rates: dict[str, list[float]] = {way: [] for way in ways}
    used: dict[str, dict[str, float]] = {way: dict.fromkeys(bench.stack.parts, 0.0) for way in ways}
    for document in ways.values():
        await run_job(bench.channel, document)
    for turn in range(bench.runs):
        out = bench.folder / f"bare-{work.__name__}-{turn}"
        rate, cpu_ms = await asyncio.to_thread(bare_pool, work, paths, out)
        bare.append(rate)
        bare_cpu_ms.append(cpu_ms)
        for way, document in ways.items():
            before = bench.cpu_s()
            rates[way].append(len(paths) / (await run_job(bench.channel, document)).elapsed_s)
            for part, seconds in bench.cpu_s().items():
                used[way][part] += seconds - before[part]
    figures: Figures = {
        "images": len(paths),
        "bare_pool_images_per_s": round(statistics.median(bare), 1),
        "bare_pool_cpu_ms": round(statistics.mean(bare_cpu_ms), 2),
    }
    for way in ways:
        ratios = [mine / pool for mine, pool in zip(rates[way], bare, strict=True)]
        figures[f"{way}images_per_s"] = round(statistics.median(rates[way]), 1)
        figures[f"{way}ratio"] = round(statistics.median(ratios), 3)
        figures[f"{way}ratio_from_to"] = [round(min(ratios), 3), round(max(ratios), 3)]
        figures[f"{way}cpu_ms"] = {
            part: round(1000 * seconds / len(paths) / bench.runs, 2) for part, seconds in used[way].items()
        }
    return figures


async def explicit_nodes(bench: Bench) -> Figures:
    """Nodes a second of 5,000 nodes in one document."""
    document = documents.explicit_nodes(5000)
    await run_job(bench.channel, document)
    before = bench.cpu_s()
    seconds = [(await run_job(bench.channel, document)).elapsed_s for _ in range(bench.runs)]
    cpu = bench.cpu_of(before, 5002 * bench.runs)
    return {"nodes": 5002, "nodes_per_s": round(5002 / statistics.median(seconds)), **cpu}


async def chain(bench: Bench) -> Figures:
    """Milliseconds and commits a hop of 200 noops behind one another, not fused."""
    seconds = await bench.repeat(documents.chain(200, fuse=False))
    before = await bench.commits()
    await run_job(bench.channel, documents.chain(200, fuse=False))
    commits = [after - then for after, then in zip(await bench.commits(), before, strict=True)]
    return {
        "nodes": 200,
        "ms_per_hop": round(statistics.median(seconds) / 201 * 1000, 2),
        # The job is in one partition; leases are renewed in all.
        "commits_per_hop": round((max(commits) - min(commits)) / 201, 2),
    }


async def fused_chain(bench: Bench) -> Figures:
    """Milliseconds a node of 200 noops, fused by the planner."""
    seconds = await bench.repeat(documents.chain(200, fuse=True))
    return {"nodes": 200, "ms_per_node": round(statistics.median(seconds) / 201 * 1000, 3)}


async def diamonds(bench: Bench) -> Figures:
    """Jobs a second of 300 five-node diamonds submitted at once, their ends told by the call that submits or by watch."""
    document = documents.diamond()
    await run_job(bench.channel, document)
    rates: dict[Callable[..., Awaitable[object]], list[float]] = {run_small_job: [], run_job: []}
    cpu: Figures = {}
    for run, found in rates.items():
        before = bench.cpu_s()
        for _ in range(bench.runs):
            begin = time.perf_counter()
            await asyncio.gather(*(run(bench.channel, document) for _ in range(300)))
            found.append(300 / (time.perf_counter() - begin))
        cpu = cpu or bench.cpu_of(before, 300 * bench.runs)
    rate = statistics.median(rates[run_small_job])
    return {
        "jobs": 300,
        "jobs_per_s": round(rate),
        "nodes_per_s": round(5 * rate),
        "watched_jobs_per_s": round(statistics.median(rates[run_job])),
        **cpu,
    }


async def behind_big(bench: Bench) -> Figures:
    """Milliseconds from the submit of a one-node job to its start, behind 200,000 tasks of 5 ms; 30, one at a time."""
    await run_job(bench.channel, documents.one_node())
    big = await submit(bench.channel, documents.slow_fan_out(200_000, seconds=0.005))
    try:
        # It is in full swing, and what its op costs has been learned.
        await until_tasks_done(bench.channel, big, done=1_500)
        times = [await started_after(bench.channel, documents.one_node()) * 1000 for _ in range(30)]
    finally:
        await cancel_job(bench.channel, big)
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {
        "jobs": len(times),
        "p50_ms": round(cuts[49], 1),
        "p95_ms": round(cuts[94], 1),
        "most_ms": round(max(times)),
    }


async def idle(bench: Bench) -> Figures:
    """Share of one core that an idle stack takes, and each of its parts."""
    seconds = 60
    before = bench.cpu_s()
    await asyncio.sleep(seconds)
    used = {part: after - before.get(part, 0.0) for part, after in bench.cpu_s().items()}
    return {
        "seconds": seconds,
        "core_percent": round(100 * sum(used.values()) / seconds, 2),
        "parts_percent": {part: round(100 * each / seconds, 2) for part, each in used.items()},
    }


WORKLOADS: Final[dict[str, Callable[[Bench], Awaitable[Figures]]]] = {
    "fan_out": fan_out,
    "one_node": one_node,
    "thumbnails": thumbnails,
    "wide_fan_out": wide_fan_out,
    "explicit_nodes": explicit_nodes,
    "chain": chain,
    "fused_chain": fused_chain,
    "diamonds": diamonds,
    "three_ops": three_ops,
    "behind_big": behind_big,
    "restart": restart,
    "takeover": takeover,
    "idle": idle,
    "bare": bare,
}
