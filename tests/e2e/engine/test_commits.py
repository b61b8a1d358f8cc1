"""Commits whose answer is lost, owners that sleep through their lease, and crashes at the worst moments.

Short forms of cases of `make test-faults`. What each guard is good for is shown by the planted faults of the
simulation (no sequence check, no epoch check, reply before commit); here the same guards stand in real processes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import pytest_asyncio

from pixloom_scheduler.crash_points import VARIABLE
from pixloom_scheduler.journal.check.database import check_database
from pixloom_scheduler.journal.ownership import Owned, Ownership, connect
from tests.faults.cluster import Cluster
from tests.faults.load import Load, workflow
from tests.faults.postgres_messages import CommitCutter, Moment
from tests.faults.verdict import judge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("engine-commits")]

LEASE_S = 3.0
JOBS = 6


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    folder: Path = tmp_path_factory.mktemp("commits")
    async with Cluster(folder, executors=1, proxied=("postgres",)) as made:
        yield made
        findings = await check_database(made.database_url)
        assert findings.violations == []


def a_load(cluster: Cluster, name: str) -> Load:
    load = Load(cluster, scale=0)
    load.touched = cluster.folder / name
    return load


async def submitted(load: Load, name: str, *, jobs: int = JOBS, seconds: float = 0.0) -> None:
    for number in range(jobs):
        await load.accept(workflow(f"{name}{number}", load.touched, seconds=seconds))


async def require_all_once(cluster: Cluster, load: Load) -> None:
    async with asyncio.timeout(60):
        await load.finish()
    outcome = await judge(cluster, load)
    assert outcome.passed, (outcome.figures, outcome.problems)
    assert outcome.figures["completed"] == outcome.figures["accepted"] > 0


@pytest.mark.parametrize("moment", list(Moment))
async def test_a_commit_that_is_cut_off_is_neither_lost_nor_done_twice(cluster: Cluster, moment: Moment) -> None:
    proxy = cluster.proxies["postgres"]
    commits = iter(range(1_000_000))

    def decide() -> Moment | None:
        return moment if next(commits) % 4 == 1 else None

    before = proxy.cuts
    load = a_load(cluster, f"cut-{moment}")
    proxy.make_filter = lambda: CommitCutter(decide)
    proxy.cut()
    try:
        await submitted(load, str(moment))
        async with asyncio.timeout(60):
            await load.finish()
    finally:
        proxy.restore()
        proxy.cut()
    assert proxy.cuts - before >= 3
    await require_all_once(cluster, load)


_STANDING = """
SELECT (SELECT count(*) FROM pixloom.journal) AS rows,
       (SELECT count(*) FROM pixloom.partition WHERE owner = 'another') AS others
"""


async def rows_of(connection: asyncpg.Connection[Any]) -> int:
    return int(await connection.fetchval("SELECT count(*) FROM pixloom.journal"))


async def test_an_owner_that_slept_through_its_lease_writes_nothing_once_another_has_taken_over(
    cluster: Cluster,
) -> None:
    async def open_connection() -> asyncpg.Connection[Any]:
        return await connect(cluster.database_url, lease_s=LEASE_S)

    load = a_load(cluster, "owner")
    await submitted(load, "owner", jobs=3, seconds=0.3)
    other = Ownership(connect=open_connection, replica="another", address="another:1", lease_s=LEASE_S)
    pid = cluster.stack.pid("scheduler")
    assert pid is not None
    watching = await asyncpg.connect(cluster.database_url)
    try:
        # Nobody takes over while it sleeps: it goes on where it was, so it does have things to write.
        asleep = await rows_of(watching)
        async with cluster.stopped("scheduler"):
            await asyncio.sleep(LEASE_S + 0.5)  # nothing tells of a lease that ends but the time
            asleep = await rows_of(watching)
        async with asyncio.timeout(60):
            while await rows_of(watching) == asleep:  # noqa: ASYNC110 - the database tells nobody
                await asyncio.sleep(0.05)
        assert cluster.stack.pid("scheduler") == pid
        async with cluster.stopped("scheduler"):
            taken: list[Owned] = []
            async with asyncio.timeout(60):
                while len(taken) < 16:
                    taken += await other.take(16)
                    await asyncio.sleep(0.05)
            asleep = await rows_of(watching)
        # It wakes with results to record, and may not as long as the partitions are another's.
        async with asyncio.timeout(60):
            while (found := await watching.fetchrow(_STANDING))["others"] == 16:
                assert found["rows"] == asleep
                await asyncio.sleep(0.02)
        # It tried, and its fence did not hold.
        assert "partitions_lost" in cluster.stack.log("scheduler").read_text(encoding="utf-8")
    finally:
        await watching.close()
    await require_all_once(cluster, load)


@pytest.mark.parametrize("point", ["reply.before", "commit.after"])
async def test_a_crash_before_the_answer_leaves_one_job_for_each_request(cluster: Cluster, point: str) -> None:
    load = a_load(cluster, f"crash-{point}")
    cluster.environment["scheduler"] = {VARIABLE: f"{point}:2"}
    pid = await cluster.stack.wait_replaced("scheduler", cluster.stack.kill("scheduler"))
    try:
        submitting = asyncio.create_task(submitted(load, point))
        # It dies by itself, with a job that is durable and a caller who does not know.
        await cluster.stack.wait_replaced("scheduler", pid)
    finally:
        cluster.environment.pop("scheduler")
    # The one that came up meanwhile has the variable too: it is replaced by one that has not.
    await cluster.stack.wait_replaced("scheduler", cluster.stack.kill("scheduler"))
    await submitting
    assert len(load.ledger.accepted) == JOBS
    await require_all_once(cluster, load)
