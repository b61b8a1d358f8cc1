"""NATS and PostgreSQL that go away, forget, or lose their connections."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from typing import TYPE_CHECKING, Any

import httpx2
import psutil

from tests.faults.postgres_messages import CommitCutter, Moment
from tests.faults.scene import Case, Enough

if TYPE_CHECKING:
    from tests.faults.cluster import Cluster
    from tests.faults.load import Load
    from tests.faults.scene import Scene
    from tests.faults.verdict import Outcome

__all__ = ["CASES", "commit_cut", "nats_wipe", "postgres_restart"]

HONEST = frozenset({"UNAVAILABLE", "OVERLOADED", "DEADLINE_EXCEEDED"})
_BACKENDS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pixloom-scheduler'"


async def nats_kill(scene: Scene) -> Outcome:
    """Kill NATS; it comes back with what it has on disk."""
    async with scene.cluster() as cluster:
        load = scene.load(cluster, seconds=0.01)

        async def kill() -> None:
            await asyncio.sleep(scene.rng.uniform(2.0, 4.0))
            scene.happens()
            await cluster.stack.wait_replaced("nats", cluster.stack.kill("nats"), timeout_s=30)

        return await scene.under(cluster, load, kill)


async def _wipe(cluster: Cluster) -> None:
    await cluster.stack.stop_part("nats")
    store = cluster.stack.options.data_dir / "nats" / "jetstream"
    await asyncio.to_thread(shutil.rmtree, store, ignore_errors=True)
    await cluster.stack.start_part("nats")


async def nats_wipe(scene: Scene) -> Outcome:
    """Take away everything that NATS has stored."""
    async with scene.cluster() as cluster:
        load = scene.load(cluster, seconds=0.01)

        async def wipe() -> None:
            await asyncio.sleep(scene.rng.uniform(2.0, 4.0))
            scene.happens()
            await _wipe(cluster)

        return await scene.under(cluster, load, wipe)


async def nats_away(scene: Scene) -> Outcome:
    """Let NATS be away for a minute, or for the time there is."""
    away_s = min(60.0, scene.seconds)
    usage: list[float] = []
    async with scene.cluster() as cluster:
        load = scene.load(cluster, seconds=0.01)

        async def go_away() -> None:
            await asyncio.sleep(1.5)
            scene.happens()
            await cluster.stack.stop_part("nats")
            try:
                await asyncio.sleep(5.0)  # what was taken before is finished
                begin, before = time.monotonic(), _executor_cpu_s(cluster)
                await asyncio.sleep(away_s)
                usage.append((_executor_cpu_s(cluster) - before) / (time.monotonic() - begin) / len(cluster.executors))
            finally:
                await cluster.stack.start_part("nats")
            raise Enough

        outcome = await scene.under(cluster, load, go_away, at_least_s=away_s + 30)
        most = max(usage, default=1.0)
        outcome.bars["executor_cpu_percent"] = (round(100 * most, 1), most < 0.10)
        outcome.figures["away_s"] = away_s
        return outcome


def _executor_cpu_s(cluster: Cluster) -> float:
    total = 0.0
    for part in cluster.executors:
        pid = cluster.stack.pid(part)
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)] if pid else []:
            times = process.cpu_times()
            total += times.user + times.system
    return total


async def postgres_restart(scene: Scene) -> Outcome:
    """Stop PostgreSQL as in a crash, and start it again after a while in which callers must be told the truth."""
    answers: list[str] = []
    async with scene.cluster() as cluster:
        load = scene.load(cluster, seconds=0.01)

        async def restart() -> None:
            await asyncio.sleep(scene.rng.uniform(2.0, 4.0))
            scene.happens()
            pid = cluster.stack.kill("postgres", signal.SIGQUIT)
            answers.append(await _told(cluster))
            await cluster.stack.wait_replaced("postgres", pid, timeout_s=60)

        outcome = await scene.under(cluster, load, restart)
        _require_honest(outcome, load)
        outcome.bars["answers_meanwhile"] = (
            ", ".join(sorted(set(answers))),
            set(answers) <= {"201", "503 UNAVAILABLE", "503 OVERLOADED", "504 DEADLINE_EXCEEDED"},
        )
        return outcome


async def _told(cluster: Cluster) -> str:
    """Return what REST answers to a submission right now."""
    body: dict[str, Any] = {"spec": {"name": "asked", "nodes": [{"id": "a", "op": "debug.noop"}]}}
    async with httpx2.AsyncClient(base_url=cluster.stack.http_url, timeout=30) as http:
        response = await http.post("/api/v1/jobs", json=body)
    reason = "" if response.status_code == 201 else f" {response.json()['reason']}"
    return f"{response.status_code}{reason}"


def _require_honest(outcome: Outcome, load: Load) -> None:
    """Require that callers who were not answered were told to try again."""
    refusals = dict(load.ledger.refusals)
    outcome.bars["refusals"] = (
        ", ".join(f"{reason} {count}" for reason, count in sorted(refusals.items())) or "none",
        set(refusals) <= HONEST,
    )


async def backend_kill(scene: Scene) -> Outcome:
    """End the schedulers' connections in the server."""
    async with scene.cluster() as cluster:
        load = scene.load(cluster, seconds=0.01)

        async def kill() -> None:
            await asyncio.sleep(scene.rng.uniform(0.2, 1.0))
            if await cluster.query(_BACKENDS):
                scene.happens()

        outcome = await scene.under(cluster, load, kill)
        _require_honest(outcome, load)
        return outcome


async def commit_cut(scene: Scene) -> Outcome:
    """Cut connections at their COMMIT: before it arrives, in its middle, and after it took effect."""
    moments = dict.fromkeys(Moment, 0)
    async with scene.cluster(proxied=("postgres",)) as cluster:
        proxy = cluster.proxies["postgres"]
        load = scene.load(cluster, seconds=0.01)

        def decide() -> Moment | None:
            if scene.rng.random() > 0.1:
                return None
            moment = scene.rng.choice(list(Moment))
            moments[moment] += 1
            scene.happens()
            return moment

        async def cut() -> None:
            proxy.make_filter = lambda: CommitCutter(decide)
            proxy.cut()  # so that open connections get one as well
            await asyncio.Event().wait()

        outcome = await scene.under(cluster, load, cut)
        _require_honest(outcome, load)
        outcome.bars["cuts"] = (
            ", ".join(f"{count} {moment}" for moment, count in moments.items()),
            all(moments.values()),
        )
        return outcome


CASES = (
    Case("nats-kill", "NATS kill -9 and restart", "all complete", nats_kill),
    Case("nats-wipe", "NATS store wiped", "all complete", nats_wipe),
    Case("nats-away", "NATS away for a minute", "all complete; executors < 10 % CPU meanwhile", nats_away),
    Case(
        "postgres-restart",
        "Postgres immediate stop and start",
        "every 2xx present; honest 503 meanwhile",
        postgres_restart,
    ),
    Case("backend-kill", "Postgres backends killed", "every 2xx present; honest refusals", backend_kill),
    Case(
        "commit-cut",
        "connection cut before, within and after COMMIT",
        "every 2xx present; each kind of cut happened",
        commit_cut,
    ),
)
