"""The replica against a real PostgreSQL: fences, unknown commits, bad values, restarts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from pixloom.errors import UnavailableError
from pixloom.graph.plan import StageKind
from pixloom.graph.plan_codec import plan_to_json
from pixloom_scheduler import replica
from pixloom_scheduler.clock import DatabaseClock
from pixloom_scheduler.core.changes import TasksGranted, TasksOffered
from pixloom_scheduler.core.decide import decide
from pixloom_scheduler.core.events import CancelRequested, DispatchFilled, Result, TasksClaimed, TasksReported
from pixloom_scheduler.core.model import JobRun
from pixloom_scheduler.core.settle import settle
from pixloom_scheduler.core.states import JobState, Outcome
from pixloom_scheduler.job import JobHeader
from pixloom_scheduler.journal import schema
from pixloom_scheduler.journal.batch import Batch, NewJob, Stamp
from pixloom_scheduler.journal.committer import BadRowError, Committer, OwnershipLostError
from pixloom_scheduler.journal.definitions import Definitions
from pixloom_scheduler.journal.loader import Loader
from pixloom_scheduler.journal.ownership import Ownership, connect
from pixloom_scheduler.journal.reader import Reader
from pixloom_scheduler.live import LiveJob
from pixloom_scheduler.replica import Replica
from tests.support.core_world import durable_view, plan_of
from tests.support.effects import NoEffects

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

LEASE_S = 3.0
SHAPE = [(StageKind.SOURCE, []), (StageKind.MAPPED, [0]), (StageKind.WHOLE, [1])]


@pytest.fixture
async def engine(database_url):
    engine = schema.create_engine(database_url)
    await schema.upgrade(engine)
    await schema.add_days(engine)
    await schema.add_days(engine)  # again: nothing happens
    yield engine
    await engine.dispose()


@pytest.fixture
async def scheduler(database_url, engine):
    async with asyncio.TaskGroup() as tasks:
        made = await Scheduler.start(database_url, engine, tasks)
        yield made
        made.replica.stop()
    await made.committer.close()
    await made.another_committer.close()


class Scheduler:
    """A replica with everything it needs of the database."""

    def __init__(self, *, url: str, engine: AsyncEngine, name: str) -> None:
        async def open_connection() -> asyncpg.Connection[Any]:
            return await connect(url, lease_s=LEASE_S)

        self.url = url
        self.ownership = Ownership(connect=open_connection, replica=name, address=name, lease_s=LEASE_S)
        self.committer = Committer(connect=open_connection, lease_s=LEASE_S)
        self.another_committer = Committer(connect=open_connection, lease_s=LEASE_S)
        self.loader = Loader(engine)
        self.replica = Replica(
            journal=self.committer,
            loader=self.loader,
            clock=DatabaseClock(),
            effects=NoEffects(),
            costs={},
            lease_s=LEASE_S,
            monotonic=time.monotonic,
        )

    @classmethod
    async def start(cls, url: str, engine: AsyncEngine, tasks: asyncio.TaskGroup, name: str = "a") -> Scheduler:
        self = cls(url=url, engine=engine, name=name)
        await self.load(tasks)
        return self

    async def load(self, tasks: asyncio.TaskGroup) -> None:
        since = time.monotonic()
        owned = await self.ownership.take(16)
        pending = await self.loader.pending([partition.id for partition in owned])
        loaded = [await self.loader.load(job_id) for job_id in pending]
        self.replica.own(owned, [each for each in loaded if each is not None], since=since)
        self.task = tasks.create_task(self.replica.run())

    async def submit(self, job_id: str) -> LiveJob:
        plan = plan_of(SHAPE, shard_size=2)
        partition = int(job_id[-2:], 16)
        now = datetime.now(UTC)
        header = JobHeader(
            id=job_id, partition=partition, project="default", day=now.date(), name="j", workflow="w", version=0,
            sha256="", params_json=b"{}", metadata_json=b"{}", create_time=now,
        )  # fmt: skip
        new = NewJob(header, b"{}", plan_to_json(plan), "RUNNING")
        return await self.replica.submit(new, LiveJob(header, JobRun.of(job_id, partition, plan)), start=True)

    def grant(self, live: LiveJob, stage: int) -> TasksGranted:
        for change in self.replica.handle_now(live, DispatchFilled(stage, 100)):
            if isinstance(change, TasksOffered):
                keys = tuple((shard, 1) for shard in change.shards)
                claim = TasksClaimed("x", 1, stage, keys, lambda _: b"token")
                (granted,) = self.replica.handle_now(live, claim)
                assert isinstance(granted, TasksGranted)
                return granted
        raise AssertionError("nothing was ready")

    async def finish_source(self, live: LiveJob, items: int) -> None:
        grant = self.grant(live, 0)
        result = Result(0, 1, Outcome.OK, items_out=items, end_of_source=True, payload=b"manifest")
        await self.replica.report(live.header.id, TasksReported(grant.lease, (result,)))


def job_id(number: int) -> str:
    return f"{number:030x}{number % 16:02x}"


async def test_a_nul_in_a_commit_batch_fails_that_job_and_no_other(scheduler):
    bad, good = await asyncio.gather(scheduler.submit(job_id(1)), scheduler.submit(job_id(2)))
    for live in (bad, good):
        await scheduler.finish_source(live, 4)
    grants = {live.header.id: scheduler.grant(live, 1) for live in (bad, good)}

    def report(live, detail):
        results = tuple(Result(s, 1, Outcome.OK, detail=detail, items_out=2) for s, _ in grants[live.header.id].tasks)
        return scheduler.replica.report(live.header.id, TasksReported(grants[live.header.id].lease, results))

    # Both are queued before the loop runs again, so they are in one batch.
    await asyncio.gather(report(bad, "a\0b"), report(good, "fine"))
    assert good.run.nodes[1].ok == 4
    assert good.run.state is JobState.RUNNING
    ended = scheduler.replica.find(bad.header.id)
    assert ended.run.state is JobState.FAILED
    assert ended.run.failure[0] == "INTERNAL"
    stored = await scheduler.loader.load(good.header.id)
    assert durable_view(stored.run) == durable_view(good.run)
    # The partition goes on.
    await scheduler.submit(job_id(17))


class _BrokenJob:
    """Something unforeseen that happens whenever a function of the core is called for one job."""

    def __init__(self, live, function):
        self.live, self.function = live, function

    def __call__(self, job, *args):
        if job.id == self.live.header.id:
            raise RecursionError("nobody thought of this")
        return self.function(job, *args)


async def test_something_unforeseen_in_one_job_fails_that_job_and_no_other(scheduler, monkeypatch):
    bad, good = await asyncio.gather(scheduler.submit(job_id(8)), scheduler.submit(job_id(9)))

    def decided(job, event, *args):
        if isinstance(event, TasksReported):
            broken(job)
        return decide(job, event, *args)

    broken = _BrokenJob(bad, id)
    monkeypatch.setattr(replica, "decide", decided)
    await asyncio.gather(scheduler.finish_source(bad, 4), scheduler.finish_source(good, 4))
    assert (bad.run.state, bad.run.failure[0]) == (JobState.FAILED, "INTERNAL")
    assert good.run.nodes[0].ok == 4
    for live in (bad, good):
        stored = await scheduler.loader.load(live.header.id)
        assert durable_view(stored.run) == durable_view(live.run)


async def test_a_job_that_cannot_even_be_ended_is_left_alone_and_the_partition_goes_on(scheduler, monkeypatch):
    bad = await scheduler.submit(job_id(10))
    before = bad.run.seq
    monkeypatch.setattr(replica, "settle", _BrokenJob(bad, settle))
    with contextlib.suppress(UnavailableError):
        await scheduler.finish_source(bad, 4)
    assert (bad.is_gone, scheduler.replica.find(bad.header.id)) == (True, None)
    await scheduler.submit(job_id(26))
    stored = await scheduler.loader.load(bad.header.id)
    assert (stored.run.seq, stored.run.state) == (before, JobState.RUNNING)


async def test_without_the_fallback_the_whole_batch_would_be_refused(scheduler):
    live = await scheduler.submit(job_id(3))
    partition = live.header.partition
    stamp = scheduler.replica.stamps[partition]
    from pixloom_scheduler.core.changes import AttemptEnded
    from pixloom_scheduler.journal.rows import encode

    rows = [
        encode(
            AttemptEnded(stage=0, shard=0, attempt=1, outcome=Outcome.OK, detail=detail),
            day=live.header.day, job_id=live.header.id, seq=100 + seq, time=1_000_000.0, project="default", generation=1,
        )
        for seq, detail in enumerate(["fine", "a\0b"])
    ]  # fmt: skip
    with pytest.raises(BadRowError):
        await scheduler.another_committer.commit(
            Batch(stamps={partition: Stamp(stamp.epoch, stamp.seq + 1)}, rows=rows)
        )
    assert (await scheduler.loader.load(live.header.id)).run.seq == live.run.seq


async def test_a_restarted_replica_has_the_state_of_the_one_before(scheduler, engine):
    live = await scheduler.submit(job_id(4))
    await scheduler.finish_source(live, 5)
    loaded = await scheduler.loader.load(live.header.id)
    assert durable_view(loaded.run) == durable_view(live.run)
    assert loaded.header == live.header


async def test_the_identical_batch_sent_again_after_an_unknown_commit_is_written_once(scheduler):
    live = await scheduler.submit(job_id(5))
    partition = live.header.partition
    stamp = scheduler.replica.stamps[partition]
    batch = Batch(stamps={partition: Stamp(stamp.epoch, stamp.seq + 1)})
    await scheduler.another_committer.commit(batch)
    # The answer was lost: the same batch comes again and must be recognised, not refused and not written twice.
    await scheduler.another_committer.commit(batch)
    connection = await asyncpg.connect(scheduler.url)
    try:
        assert stamp.seq + 1 == await connection.fetchval(
            "SELECT commit_seq FROM pixloom.partition WHERE id = $1", partition
        )
    finally:
        await connection.close()
    scheduler.replica.stamps[partition] = batch.stamps[partition]


async def test_a_former_owner_writes_nothing(scheduler):
    live = await scheduler.submit(job_id(6))
    connection = await asyncpg.connect(scheduler.url)
    try:
        await connection.execute("UPDATE pixloom.partition SET epoch = epoch + 1, owner = 'b'")
        stamps = {live.header.partition: scheduler.replica.stamps[live.header.partition]}
        with pytest.raises(OwnershipLostError):
            await scheduler.another_committer.commit(
                Batch(stamps={i: Stamp(s.epoch, s.seq + 1) for i, s in stamps.items()})
            )
        before = await connection.fetchval("SELECT count(*) FROM pixloom.journal")
        # Give it back, so that the replica ends in peace.
        await connection.execute("UPDATE pixloom.partition SET epoch = epoch - 1, owner = 'a'")
        assert before == live.run.seq
    finally:
        await connection.close()


async def test_a_killed_connection_costs_a_retry_and_no_row(scheduler):
    live = await scheduler.submit(job_id(7))
    connection = await asyncpg.connect(scheduler.url)
    try:
        for _ in range(5):
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pixloom-scheduler'"
            )
            await scheduler.replica.report(live.header.id, CancelRequested("again"))
    finally:
        await connection.close()
    assert live.run.state is JobState.CANCELLED
    stored = await scheduler.loader.load(live.header.id)
    assert durable_view(stored.run) == durable_view(live.run)


async def test_a_standby_that_only_reads_yet_costs_a_retry_and_no_row(scheduler, monkeypatch):
    live = await scheduler.submit(job_id(11))
    connect_before, made = scheduler.committer._connect, []

    async def connect_to_the_standby_first():
        connection = await connect_before()
        made.append(connection)
        if len(made) == 1:
            await connection.execute("SET default_transaction_read_only = on")
        return connection

    monkeypatch.setattr(scheduler.committer, "_connect", connect_to_the_standby_first)
    scheduler.committer._connection.terminate()
    await scheduler.replica.report(live.header.id, CancelRequested("again"))
    assert len(made) == 2
    assert live.run.state is JobState.CANCELLED


async def test_many_jobs_share_a_commit(scheduler):
    first = scheduler.replica.stamps.copy()
    await asyncio.gather(*(scheduler.submit(job_id(100 + number)) for number in range(200)))
    commits = sum(stamp.seq - first[i].seq for i, stamp in scheduler.replica.stamps.items())
    assert commits < 100


async def test_migrations_give_the_tables_that_the_code_declares(engine):
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    from pixloom_scheduler.journal.tables import metadata

    def compare(connection):
        def mine(obj, name, type_, reflected, compare_to):
            return not (type_ == "table" and (name.startswith("journal_") or name == "alembic_version"))

        def only_pixloom(name, type_, parents):
            return type_ != "schema" or name == "pixloom"

        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "include_name": only_pixloom,
                "include_object": mine,
                "version_table_schema": "pixloom",
            },
        )
        return compare_metadata(context, metadata)

    async with engine.connect() as connection:
        assert await connection.run_sync(compare) == []


async def test_a_database_that_is_away_is_told_from_one_that_refuses(unused_port):
    engine = schema.create_engine(f"postgresql://nobody@127.0.0.1:{unused_port}/none")
    try:
        with pytest.raises(UnavailableError, match="does not answer"):
            await Reader(engine).job("x")
        with pytest.raises(UnavailableError):
            await Definitions(engine).newest("default", after="", most=1)
    finally:
        await engine.dispose()
