"""Reports that come three times, late and shuffled, and ten thousand that nobody was granted."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from pixloom.rpc.channel import aio_channel
from pixloom.v1 import executor_pb2 as pb
from pixloom.v1 import job_pb2
from tests.faults.scene import Case, Enough
from tests.support.bare_executor import BareExecutor, succeeded

if TYPE_CHECKING:
    import random

    from tests.faults.cluster import Cluster
    from tests.faults.scene import Scene
    from tests.faults.verdict import Outcome

__all__ = ["CASES", "forge"]

FORGED = 10_000
TASKS = 40
POOL = "bare"
_ROWS = "SELECT count(*) FROM pixloom.journal WHERE job_id = $1"


def _document(tasks: int) -> dict[str, Any]:
    return {
        "name": "fault-reports",
        "nodes": [
            {"id": "numbers", "op": "debug.range", "params": {"count": tasks}},
            {"id": "work", "op": "debug.noop", "inputs": {"items": "numbers"}, "shard_size": 1, "pool": POOL},
        ],
    }


def forge(true: pb.Report, rng: random.Random) -> pb.Report:
    """Return a report that was not granted: with another token, task, attempt, stage, generation or job."""
    forged = pb.Report()
    forged.CopyFrom(true)
    forged.report_id = rng.randrange(1, 2**40)
    for result in forged.results:
        result.outcome = rng.choice([job_pb2.ATTEMPT_OUTCOME_OK, job_pb2.ATTEMPT_OUTCOME_FAILED])
        result.detail = "forged"
    kind = rng.randrange(6)
    if kind == 0:
        forged.lease_token = rng.randbytes(len(true.lease_token))
    elif kind == 1:
        place = rng.randrange(len(true.lease_token))
        token = bytearray(true.lease_token)
        token[place] ^= 1 << rng.randrange(8)
        forged.lease_token = bytes(token)
    elif kind == 2:
        forged.generation += rng.choice([-1, 1, 2**31])
    elif kind == 3:
        forged.stage = rng.choice([0, 2, 99, 2**32 - 1])
    elif kind == 4:
        # Of the same partition: a report for another scheduler's job is left unanswered, for its owner to judge.
        forged.job_id = f"{rng.getrandbits(120):030x}{true.job_id[-2:]}"
    else:
        for result in forged.results:
            if rng.random() < 0.5:
                result.attempt = rng.choice([0, 2, 3, 2**32 - 1])
            else:
                result.shard = rng.choice([TASKS, 2**31, 2**32 - 1])
    return forged


class _Pool:
    """Claims everything of a pool and keeps the reports until it is told to send them.

    Attributes:
        owner: The session with the scheduler that owns the job.
        reports: Reports of what was granted.
    """

    def __init__(self, sessions: dict[str, BareExecutor], cluster: Cluster) -> None:
        self._sessions = sessions
        self._cluster = cluster
        self.owner = next(iter(sessions.values()))
        self.reports: list[pb.Report] = []

    async def claim(self, tasks: int) -> None:
        """Claim until `tasks` tasks have been granted."""
        granted = 0
        while granted < tasks:
            batch = await self.owner.pull(self._cluster.stack.wiring.nats_url)
            self.owner = self._sessions.get(batch.owner_address, self.owner)
            grant = await self.owner.claim(batch)
            if not grant.lease_token:
                continue
            granted += len(grant.tasks)
            report = succeeded(batch, grant)
            report.report_id = len(self.reports) + 1
            self.reports.append(report)


async def reports(scene: Scene) -> Outcome:
    """Send forged reports while the true ones are held back, then these: each three times, in any order."""
    changed = -1
    forged_count = max(200, round(FORGED * scene.scale))
    refused_twice = -1
    async with scene.cluster() as cluster:
        load = scene.load(cluster)
        job_id = ""

        async def report() -> None:
            nonlocal changed, refused_twice, job_id
            async with contextlib.AsyncExitStack() as opened:
                sessions = {
                    address: await opened.enter_async_context(await _session(address))
                    for address in cluster.addresses.values()
                }
                # Of high priority, so that all of its dispatches are in the lane that is looked at.
                job_id = await load.accept(_document(TASKS), priority=9)
                pool = _Pool(sessions, cluster)
                await pool.claim(TASKS)
                scene.happens()
                before = (await cluster.query(_ROWS, job_id))[0][0]
                await _forge_all(pool, forged_count, scene.rng)
                changed = (await cluster.query(_ROWS, job_id))[0][0] - before
                refused_twice = await _send_thrice(pool, scene.rng)
            raise Enough

        outcome = await scene.under(cluster, load, report, at_least_s=300.0)
        rows = (await cluster.query(f"{_ROWS} AND kind = 7 AND stage = 1", job_id))[0][0]
        outcome.figures["forged_reports"] = forged_count
        outcome.bars["rows_changed_by_forged"] = (changed, changed == 0)
        outcome.bars["results_recorded"] = (f"{rows} of {TASKS}", rows == TASKS)
        outcome.bars["repetitions_refused"] = (refused_twice, refused_twice == 2 * TASKS)
        return outcome


async def _session(address: str) -> BareExecutor:
    """Return a session to be opened with a scheduler, once that one answers."""
    async with asyncio.timeout(60), aio_channel(address, is_traced=False) as channel:
        await channel.channel_ready()
    return BareExecutor("bare-1", scheduler=address, pool=POOL)


async def _forge_all(pool: _Pool, count: int, rng: random.Random) -> None:
    for number in range(count):
        forged = forge(rng.choice(pool.reports), rng)
        forged.report_id = 1_000_000 + number
        refused = await pool.owner.refused(forged)
        if sorted(refused) != sorted(result.shard for result in forged.results):
            raise AssertionError(f"a forged report was accepted: {forged}")


async def _send_thrice(pool: _Pool, rng: random.Random) -> int:
    """Return how many results were refused."""
    sendings = pool.reports * 3
    rng.shuffle(sendings)
    refused = 0
    for number, true in enumerate(sendings, start=1):
        again = pb.Report()
        again.CopyFrom(true)
        again.report_id = number
        refused += len(await pool.owner.refused(again))
    return refused


CASES = (
    Case(
        "reports",
        "every report three times, late and shuffled; 10,000 forged ones",
        "no row changed by them",
        reports,
    ),
)
