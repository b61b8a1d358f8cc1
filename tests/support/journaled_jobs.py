"""Jobs that a real replica ran into a real database, with an executor that answers at once."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pixloom.graph.plan import StageKind
from pixloom.graph.plan_codec import plan_to_json
from pixloom.v1 import executor_pb2, item_pb2
from pixloom_scheduler.clock import DatabaseClock
from pixloom_scheduler.core.changes import TasksGranted, TasksOffered
from pixloom_scheduler.core.events import (
    BackoffEnded,
    DispatchFilled,
    LeaseLost,
    Result,
    TasksClaimed,
    TasksReported,
)
from pixloom_scheduler.core.model import JobRun
from pixloom_scheduler.core.states import Outcome
from pixloom_scheduler.job import JobHeader
from pixloom_scheduler.journal import schema
from pixloom_scheduler.journal.batch import NewJob
from pixloom_scheduler.journal.committer import Committer
from pixloom_scheduler.journal.loader import Loader
from pixloom_scheduler.journal.ownership import Ownership, connect
from pixloom_scheduler.live import LiveJob
from pixloom_scheduler.replica import Replica
from tests.support.core_world import plan_of

if TYPE_CHECKING:
    import asyncpg

    from pixloom.graph.plan import Plan

__all__ = ["ITEMS", "make_jobs"]

ITEMS = 7
SHAPE = [(StageKind.SOURCE, []), (StageKind.MAPPED, [0]), (StageKind.MAPPED, [1]), (StageKind.WHOLE, [2])]
LEASE_S = 3.0


class _Quiet:
    """Effects that nobody sees."""

    def committed(self, live: LiveJob, changes: list[Any]) -> None:
        pass

    def resumed(self, live: LiveJob) -> None:
        pass

    def dropped(self, jobs: list[LiveJob]) -> None:
        pass

    def settled(self) -> None:
        pass

    def served_pools(self) -> frozenset[str]:
        return frozenset()


async def make_jobs(url: str, *job_ids: str, unfinished: str = "") -> None:
    """Upgrade an empty database and run one job for each id to its end.

    Each reads `ITEMS` items in two pages, has an attempt that is lost and one that fails, and ends COMPLETED.

    Args:
        url: The database.
        job_ids: 32 hexadecimal digits, the last two of which name the partition.
        unfinished: Id of one more job that is left after its first page.
    """

    async def open_connection() -> asyncpg.Connection[Any]:
        return await connect(url, lease_s=LEASE_S)

    engine = schema.create_engine(url)
    await schema.upgrade(engine)
    await schema.add_days(engine)
    ownership = Ownership(connect=open_connection, replica="a", address="a:1", lease_s=LEASE_S)
    committer = Committer(connect=open_connection, lease_s=LEASE_S)
    replica = Replica(
        journal=committer,
        loader=Loader(engine),
        clock=DatabaseClock(),
        effects=_Quiet(),
        costs={},
        lease_s=LEASE_S,
        monotonic=time.monotonic,
    )
    since = time.monotonic()
    owned = await ownership.take(16)
    replica.own(owned, [], since=since)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(replica.run())
        for job_id in job_ids:
            await _Run(replica, await _submit(replica, job_id)).finish()
        if unfinished:
            await _Run(replica, await _submit(replica, unfinished)).read_page(0)
        replica.stop()
    await ownership.release([partition.id for partition in owned])
    await committer.close()
    await engine.dispose()


async def _submit(replica: Replica, job_id: str) -> LiveJob:
    plan: Plan = plan_of(SHAPE, shard_size=2)
    partition = int(job_id[-2:], 16)
    now = datetime.now(UTC)
    header = JobHeader(
        id=job_id, partition=partition, project="default", day=now.date(), name="j", workflow="w", version=0,
        sha256="", params_json=b"{}", metadata_json=b"{}", create_time=now, request_id=f"request {job_id}",
    )  # fmt: skip
    new = NewJob(header, b"{}", plan_to_json(plan), "RUNNING")
    return await replica.submit(new, LiveJob(header, JobRun.of(job_id, partition, plan)), start=True)


class _Run:
    """One job and its only executor."""

    def __init__(self, replica: Replica, live: LiveJob) -> None:
        self._replica = replica
        self._live = live

    async def finish(self) -> None:
        await self.read_page(0)
        await self.read_page(1)
        await self._replica.report(self._live.header.id, LeaseLost(self._grant(1).lease))
        await self._work(1)
        failed = self._grant(2)
        shard, attempt = failed.tasks[0]
        result = Result(shard, attempt, Outcome.FAILED, "STORE_ERROR", retryable=True)
        await self._report(failed, result)
        # What is left of the lease, and the shard that backs off, adopted as if its time had come.
        await self._replica.report(self._live.header.id, LeaseLost(failed.lease))
        await self._work(2)
        whole = self._grant(3)
        await self._report(whole, Result(0, 1, Outcome.OK, items_out=ITEMS, payload=_payload(ITEMS)))
        assert self._live.run.state == "COMPLETED"

    async def read_page(self, page: int) -> None:
        items = 4 if page == 0 else ITEMS - 4
        grant = self._grant(0)
        more = {"cursor": "4"} if page == 0 else {"end_of_source": True}
        await self._report(grant, Result(page, 1, Outcome.OK, items_out=items, payload=_payload(items), **more))

    async def _work(self, stage: int) -> None:
        run = self._live.run
        while not run.stages[stage].ended:
            for shard, task in list(run.stages[stage].tasks.items()):
                if task.due:
                    self._replica.handle_now(self._live, BackoffEnded(stage, (shard,)))
            grant = self._grant(stage)
            results = [
                Result(
                    shard,
                    attempt,
                    Outcome.OK,
                    items_out=run.stages[stage].shards.items_of(shard),
                    payload=_payload(run.stages[stage].shards.items_of(shard)),
                )
                for shard, attempt in grant.tasks
            ]
            await self._report(grant, *results)

    async def _report(self, grant: TasksGranted, *results: Result) -> None:
        await self._replica.report(self._live.header.id, TasksReported(grant.lease, results))

    def _grant(self, stage: int) -> TasksGranted:
        for change in self._replica.handle_now(self._live, DispatchFilled(stage, 100)):
            if isinstance(change, TasksOffered):
                tasks = self._live.run.stages[stage].tasks
                keys = tuple((shard, tasks[shard].attempt) for shard in change.shards)
                claim = TasksClaimed("x", 1, stage, keys, lambda _: b"token")
                (granted,) = self._replica.handle_now(self._live, claim)
                assert isinstance(granted, TasksGranted)
                return granted
        raise AssertionError(f"nothing of stage {stage} was ready")


def _payload(count: int) -> bytes:
    items = [item_pb2.Item(key=str(number), ordinal=[number]) for number in range(count)]
    inline = item_pb2.ItemBatch(items=items).SerializeToString()
    output = item_pb2.Manifest(count=count, inline=inline)
    return executor_pb2.TaskResult(output=output).SerializeToString()
