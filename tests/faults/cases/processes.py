"""Processes that are killed, and processes that stand still longer than their leases."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from pixloom_scheduler.crash_points import POINTS, VARIABLE
from tests.faults.scene import Case, Enough
from tests.faults.verdict import Outcome, percentile

if TYPE_CHECKING:
    from tests.faults.cluster import Cluster
    from tests.faults.scene import Scene

__all__ = ["CASES", "executor_kill", "executor_stop", "scheduler_kill", "scheduler_stop"]

LEASE_S = 3.0
PARTITIONS = 16
_OWNERS = "SELECT DISTINCT owner FROM pixloom.partition WHERE address = ANY($1::text[])"
_OWNED = """
SELECT count(*) FROM pixloom.partition
WHERE owner <> '' AND owner <> ALL($1::text[]) AND expires_at > clock_timestamp()
"""
# Kind 7 is an attempt. How long after the kill that took its executor each LOST attempt was known to be lost.
_REQUEUED = """
SELECT extract(epoch FROM j.time) - (
  SELECT max(moment) FROM unnest($1::float8[]) moment WHERE moment <= extract(epoch FROM j.time)
) FROM pixloom.journal j WHERE j.kind = 7 AND j.outcome = 4 AND j.reason = ANY($2::text[])
"""
_LOST_ATTEMPTS = "SELECT count(*) FROM pixloom.journal WHERE kind = 7 AND outcome = 4"
_SAME_ATTEMPT = """
SELECT count(*) FROM (
  SELECT 1 FROM pixloom.journal WHERE kind = 7 GROUP BY job_id, generation, stage, shard, attempt HAVING count(*) > 1
) twice
"""


async def executor_kill(scene: Scene, *, every_s: float = 3.0) -> Outcome:
    """Kill an executor again and again."""
    async with scene.cluster() as cluster:
        load = scene.load(cluster, seconds=0.01)

        async def kill() -> None:
            await asyncio.sleep(every_s)
            part = scene.rng.choice(cluster.executors)
            if cluster.stack.pid(part) is not None:
                scene.happens()
                cluster.stack.kill(part)

        outcome = await scene.under(cluster, load, kill)
        lost = [float(row[0]) for row in await cluster.query(_REQUEUED, scene.moments, ["EXECUTOR_LOST", "LOST"])]
        worst = percentile(lost, 1.0)
        executions = load.executions()
        wasted = executions.total() - len(executions)
        outcome.bars["requeued_max_s"] = (None if worst is None else round(worst, 3), worst is None or worst <= 2.0)
        # Each executor has one slot.
        outcome.bars["wasted_executions"] = (wasted, wasted <= len(scene.moments))
        return outcome


async def _taken_over(cluster: Cluster, dead: list[str]) -> None:
    """Wait until every partition is owned by somebody who is not dead."""
    while (await cluster.query(_OWNED, dead))[0][0] < PARTITIONS:  # noqa: ASYNC110 - the database tells nobody
        await asyncio.sleep(0.05)


async def scheduler_kill(scene: Scene) -> Outcome:
    """Kill a scheduler 2 to 4 s after the one before it was replaced; of several sometimes all at once."""
    takeovers: list[float] = []
    async with scene.cluster() as cluster:
        load = scene.load(cluster, seconds=0.01)

        async def kill() -> None:
            await asyncio.sleep(scene.rng.uniform(2.0, 4.0))
            all_of_them = scene.rng.random() < 0.25
            parts = cluster.schedulers if all_of_them else (scene.rng.choice(cluster.schedulers),)
            parts = tuple(part for part in parts if cluster.stack.pid(part) is not None)
            dead = [row[0] for row in await cluster.query(_OWNERS, [cluster.addresses[part] for part in parts])]
            begin = time.monotonic()
            for part in parts:
                scene.happens()
                cluster.stack.kill(part)
            await _taken_over(cluster, dead)
            if len(parts) < len(cluster.schedulers) or len(cluster.schedulers) == 1:
                takeovers.append(time.monotonic() - begin)

        outcome = await scene.under(cluster, load, kill)
        worst = percentile(takeovers, 1.0)
        # A lone scheduler has to be started again first, so its time is told and is no bar.
        in_time = len(cluster.schedulers) == 1 or (worst is not None and worst <= LEASE_S + 1)
        outcome.bars["takeover_max_s"] = (None if worst is None else round(worst, 3), in_time)
        return outcome


async def crash_points(scene: Scene) -> Outcome:
    """Crash the scheduler at each of its points, at some number of times it comes there."""
    hit: set[str] = set()
    async with scene.cluster() as cluster:
        load = scene.load(cluster, seconds=0.005)
        points = iter([point for point in POINTS for _ in range(2)])

        async def crash() -> None:
            point = next(points, None)
            if point is None:
                raise Enough
            part = scene.rng.choice(cluster.schedulers)
            cluster.environment.clear()
            cluster.environment[part] = {VARIABLE: f"{point}:{scene.rng.randint(1, 30)}"}
            pid = await cluster.stack.wait_replaced(part, cluster.stack.kill(part))
            cluster.environment.clear()
            await cluster.stack.wait_replaced(part, pid, timeout_s=60)  # it dies by itself, as the load goes on
            scene.happens()
            hit.add(str(point))

        outcome = await scene.under(cluster, load, crash, at_least_s=25.0 * len(POINTS))
        outcome.bars["points_hit"] = (f"{len(hit)} of {len(POINTS)}", hit == set(POINTS))
        return outcome


async def executor_stop(scene: Scene) -> Outcome:
    """Let an executor stand still until its leases are given to others, then let it go on."""
    async with scene.cluster() as cluster:
        load = scene.load(cluster, seconds=0.05)

        async def stop() -> None:
            await asyncio.sleep(1.0)
            part = scene.rng.choice(cluster.executors)
            scene.happens()
            async with cluster.stopped(part):
                await asyncio.sleep(scene.rng.uniform(6.5, 8.0))  # silence counts as a break after 5 s

        outcome = await scene.under(cluster, load, stop)
        await _late_reports(cluster, outcome)
        return outcome


async def scheduler_stop(scene: Scene) -> Outcome:
    """Let a scheduler stand still until its leases have ended, then let it go on."""
    async with scene.cluster() as cluster:
        load = scene.load(cluster, seconds=0.05)

        async def stop() -> None:
            await asyncio.sleep(1.5)
            part = scene.rng.choice(cluster.schedulers)
            scene.happens()
            async with cluster.stopped(part):
                await asyncio.sleep(scene.rng.uniform(LEASE_S + 0.5, LEASE_S + 3.0))

        outcome = await scene.under(cluster, load, stop)
        await _late_reports(cluster, outcome)
        return outcome


async def _late_reports(cluster: Cluster, outcome: Outcome) -> None:
    outcome.figures["lost_attempts"] = (await cluster.query(_LOST_ATTEMPTS))[0][0]
    late = (await cluster.query(_SAME_ATTEMPT))[0][0]
    outcome.bars["late_reports_accepted"] = (late, late == 0)


CASES = (
    Case(
        "executor-kill",
        "kill -9 an executor every 3 s",
        "requeued ≤ 2 s after the kill; wasted executions ≤ kills × slots",
        executor_kill,
    ),
    Case(
        "scheduler-kill",
        "kill -9 a scheduler every 2 to 4 s",
        "takeover by another one ≤ lease + 1 s; no accepted job missing",
        scheduler_kill,
    ),
    Case(
        "crash-points",
        "crash at every commit, publish, acknowledge and reply",
        f"all {len(POINTS)} points hit",
        crash_points,
    ),
    Case("executor-stop", "SIGSTOP an executor past its lease", "no late report accepted", executor_stop),
    Case("scheduler-stop", "SIGSTOP a scheduler past its lease", "no late report accepted", scheduler_stop),
)
