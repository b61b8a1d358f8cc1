"""A job that is loaded from a summed up journal is the job that the same journal gives row by row."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from pixloom.graph.catalogue import OpKind
from pixloom.graph.plan import NodePlan, Plan, StageKind
from pixloom.graph.plan_codec import plan_to_json
from pixloom_scheduler.core.apply import apply
from pixloom_scheduler.core.changes import AttemptEnded, Cut, JobStarted, NodeTally
from pixloom_scheduler.core.events import CancelRequested, RecoverRequested, Result, StartRequested
from pixloom_scheduler.core.model import JobRun
from pixloom_scheduler.core.states import JobState, Outcome
from pixloom_scheduler.job import JobHeader
from pixloom_scheduler.journal import schema
from pixloom_scheduler.journal.batch import Batch, NewJob, Stamp
from pixloom_scheduler.journal.committer import Committer
from pixloom_scheduler.journal.loader import Loader
from pixloom_scheduler.journal.ownership import Ownership, connect
from pixloom_scheduler.journal.rows import encode
from pixloom_scheduler.journal.summaries import IS_PLAIN
from tests.support.core_world import CoreWorld, plan_of, random_shape

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

DAY = date(2026, 1, 1)  # that of a CoreWorld
LEASE_S = 30.0
START_S = 1_000_000.0
SOURCE, MAPPED, WHOLE = StageKind.SOURCE, StageKind.MAPPED, StageKind.WHOLE


@pytest.fixture
async def engine(database_url):
    engine = schema.create_engine(database_url)
    await schema.upgrade(engine)
    yield engine
    await engine.dispose()


class Journal:
    """Writes journals of jobs of its own making."""

    def __init__(self, committer: Committer, stamp: Stamp) -> None:
        self._committer = committer
        self._stamp = stamp
        self._jobs = 0

    async def write(self, plan: Plan, rows: list[tuple[Any, ...]]) -> str:
        """Make a job with these rows durable, whatever job they name, and return its id."""
        self._jobs += 1
        job_id = f"{self._jobs:030x}00"
        header = JobHeader(
            id=job_id, partition=0, project="default", day=DAY, name="j", workflow="w", version=0, sha256="",
            params_json=b"{}", metadata_json=b"{}", create_time=datetime(2026, 1, 1, tzinfo=UTC),
        )  # fmt: skip
        job = NewJob(header, b"{}", plan_to_json(plan), "RUNNING")
        self._stamp = Stamp(self._stamp.epoch, self._stamp.seq + 1)
        renamed = [(day, job_id, *rest) for day, _, *rest in rows]
        await self._committer.commit(Batch(stamps={0: self._stamp}, jobs=[job], rows=renamed))
        return job_id


@pytest.fixture
async def journal(database_url, engine):
    async def open_connection():
        return await connect(database_url, lease_s=LEASE_S)

    (owned,) = await Ownership(connect=open_connection, replica="a", address="a:1", lease_s=LEASE_S).take(1)
    committer = Committer(connect=open_connection, lease_s=LEASE_S)
    yield Journal(committer, Stamp(owned.epoch, owned.commit_seq))
    await committer.close()


class WideWorld(CoreWorld):
    """A job whose tasks mostly end well at once, with times, and of which some count node by node."""

    def _mapped_result(self, items: int, shard: int, attempt: int) -> Result:
        if self.rng.random() < 0.05:
            return replace(super()._mapped_result(items, shard, attempt), tallies=(), retry_indexes=())
        times: dict[str, Any] = {"start": self.now - self.rng.random(), "end": self.now}
        passed = items
        tallies: tuple[NodeTally, ...] = ()
        if self.rng.random() < 0.5:
            counted = []
            for _ in range(2):
                ok = self.rng.randint(0, passed)
                reasons = {"DUPLICATE": passed - ok} if ok < passed else None
                filtered = self.rng.randint(0, passed - ok)
                counted.append(NodeTally(ok, filtered, passed - ok - filtered, reasons))
                passed = ok
            tallies = tuple(counted)
        return Result(shard, attempt, Outcome.OK, items_out=passed, tallies=tallies, **times)


def fused(plan: Plan) -> Plan:
    """Return a plan whose mapped stages have one more node each."""
    nodes, stages, last = list(plan.nodes), list(plan.stages), {}
    for stage in plan.stages:
        last[stage.index] = stage.nodes[0]
        if stage.kind is MAPPED:
            last[stage.index] = len(nodes)
            nodes.append(
                NodePlan(
                    id=f"f{stage.index}", op="debug.noop@1", kind=OpKind.ITEM, stage=stage.index, params={},
                    needs=stage.nodes,
                )
            )  # fmt: skip
            stages[stage.index] = replace(stage, nodes=(*stage.nodes, len(nodes) - 1))
    for stage in plan.stages:
        first = nodes[stage.nodes[0]]
        needs = tuple(sorted({last[edge.producer] for edge in stage.inputs}))
        nodes[stage.nodes[0]] = replace(first, needs=needs)
    return Plan(nodes=tuple(nodes), stages=tuple(stages))


def happen_upon(seed: int) -> CoreWorld:
    """Return a job in the middle of something: some are over, some were cancelled and recovered."""
    rng = random.Random(seed)
    shape = random_shape(rng)
    plan = plan_of(shape, shard_size=rng.choice((1, 1, 3, 100)), max_attempts=6)
    kind = CoreWorld
    if seed % 2:
        plan, kind = fused(plan), WideWorld
    world = kind(plan, rng, pages=rng.randint(1, 3), page_items=60, meddles=rng.random() < 0.3)
    world.happen(StartRequested())
    for _ in range(rng.randint(1, 4)):
        for _ in range(rng.randint(0, 300)):
            if not world.is_over():
                world.step()
        if rng.random() < 0.4 and not world.is_over():
            world.happen(CancelRequested("enough", now=rng.random() < 0.5))
        if world.job.state in (JobState.FAILED, JobState.CANCELLED):
            world.happen(RecoverRequested(most=1000))
    return world


def assert_same(loaded: JobRun, expected: JobRun) -> None:
    """Compare everything that memory holds; what is unsettled after a restart is everything."""
    assert loaded.unsettled._members == set(range(len(loaded.stages)))
    assert replace(loaded, unsettled=expected.unsettled, id=expected.id, partition=7) == expected


@pytest.mark.parametrize("first", range(0, 120, 20))
async def test_what_is_summed_up_is_what_row_by_row_makes(engine: AsyncEngine, journal: Journal, first: int) -> None:
    plain, rows = 0, 0
    for seed in range(first, first + 20):
        world = happen_upon(seed)
        job_id = await journal.write(world.plan, world.rows)
        expected = world.replayed()
        pages = (len(world.rows) // 7 + 1, len(world.rows) // 2 + 1, 10_000)
        for loader in (Loader(engine), *(Loader(engine, short=0, page=page) for page in pages)):
            loaded: Any = await loader.load(job_id)
            assert_same(loaded.run, expected)
        rows += len(world.rows)
        plain += await count_plain(engine, job_id)
    # Or else nothing would have been summed up.
    assert plain > rows / 3


async def count_plain(engine: AsyncEngine, job_id: str) -> int:
    async with engine.connect() as connection:
        query = text(f"SELECT count(*) FROM pixloom.journal WHERE job_id = :job_id AND {IS_PLAIN}")  # noqa: S608
        return int((await connection.execute(query, {"job_id": job_id})).scalar_one())


def long_history(tasks: int) -> list[Any]:
    """Return a source of many items, one task for each, behind which another takes it on."""
    cut = Cut(1, 0, tasks, 1)
    history: list[Any] = [
        JobStarted(time=1_000_000.0, deadline=0.0),
        AttemptEnded(stage=0, shard=0, attempt=1, outcome=Outcome.OK, items_out=tasks, cuts=(cut,), seals=True),
    ]
    history += [
        AttemptEnded(
            stage=1, shard=shard, attempt=1, outcome=Outcome.OK, executor="x", start=1_000_000.5 + shard,
            end=1_000_001.5 + shard, items_out=1, cuts=(Cut(2, 0, 1, 1),), payload=b"x" * 50,
        )
        for shard in range(tasks)
    ]  # fmt: skip
    return history


async def test_a_long_journal_takes_a_few_bytes_a_task_while_it_is_loaded(
    engine: AsyncEngine, journal: Journal
) -> None:
    tasks = 40_000
    plan = plan_of([(SOURCE, []), (MAPPED, [0]), (MAPPED, [1])], shard_size=1)
    history = long_history(tasks)
    rows = [
        encode(change, day=DAY, job_id="", seq=number, time=START_S + number, project="default", generation=1)
        for number, change in enumerate(history, start=1)
    ]
    job_id = await journal.write(plan, rows)
    expected = JobRun.of(job_id, 7, plan)
    for number, change in enumerate(history, start=1):
        apply(expected, [change], time=START_S + number)
    loader = Loader(engine, page=4096)
    await loader.load(job_id)  # what is imported and compiled once is no part of it
    tracemalloc.start()
    try:
        loaded: Any = await loader.load(job_id)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert_same(loaded.run, expected)
    # Two shards of 15 bytes each, with room to grow, and one page.
    assert most / tasks < 100


async def test_a_job_without_rows_is_as_it_was_accepted(engine: AsyncEngine, journal: Journal) -> None:
    plan = plan_of([(SOURCE, [])])
    job_id = await journal.write(plan, [])
    for loader in (Loader(engine), Loader(engine, short=-1)):
        loaded: Any = await loader.load(job_id)
        assert_same(loaded.run, JobRun.of(job_id, 7, plan))


async def test_there_is_no_job_that_nobody_made(engine: AsyncEngine) -> None:
    assert await Loader(engine).load("0" * 32) is None
