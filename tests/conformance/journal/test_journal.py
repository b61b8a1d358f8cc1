"""What the scheduler's journal relies on, shown by PostgreSQL and by the simulated one alike."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pixloom.graph.plan import StageKind
from pixloom.graph.plan_codec import plan_to_json
from pixloom_scheduler.core.apply import apply
from pixloom_scheduler.core.changes import (
    AttemptEnded,
    Cut,
    Durable,
    JobAccepted,
    JobEnded,
    JobStarted,
    JobUpdated,
    NewPlan,
    PauseAccepted,
)
from pixloom_scheduler.core.model import JobRun
from pixloom_scheduler.core.states import JobState, Outcome
from pixloom_scheduler.job import JobHeader
from pixloom_scheduler.journal import schema
from pixloom_scheduler.journal.batch import Batch, JobEnding, NewJob, Stamp
from pixloom_scheduler.journal.committer import (
    BadRowError,
    CommitsLostError,
    Committer,
    OwnershipLostError,
    RepeatedRequestError,
)
from pixloom_scheduler.journal.loader import Loader
from pixloom_scheduler.journal.membership import Membership
from pixloom_scheduler.journal.ownership import Owned, Ownership, connect
from pixloom_scheduler.journal.reader import Reader
from pixloom_scheduler.journal.revisions import Replan, Revision
from pixloom_scheduler.journal.rows import COLUMNS, encode
from pixloom_scheduler.journal.statements import END_TYPES, FIRST, NODE_TYPES
from pixloom_scheduler.live import LiveJob
from tests.simulation.database import SimulatedDatabase
from tests.simulation.loop import Process
from tests.simulation.reading import SimulatedLoader, SimulatedReader
from tests.simulation.world import World
from tests.support.core_world import durable_view, plan_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

LEASE_S = 3.0
PLAN = plan_of([(StageKind.SOURCE, []), (StageKind.MAPPED, [0])], shard_size=2)
DAY = date(2026, 1, 1)


@dataclass
class Database:
    """A database, whichever it is."""

    open_connection: Callable[[], Awaitable[Any]]
    loader: Any
    reader: Any

    def ownership(self, replica: str, lease_s: float = LEASE_S) -> Ownership:
        return Ownership(connect=self.open_connection, replica=replica, address=f"{replica}:1", lease_s=lease_s)

    def membership(
        self,
        replica: str,
        lease_s: float = LEASE_S,
        released: Callable[[], None] = lambda: None,
        limits: Mapping[str, int] | None = None,
    ) -> Membership:
        return Membership(
            connect=self.open_connection,
            replica=replica,
            address=f"{replica}:1",
            lease_s=lease_s,
            released=released,
            limits=limits,
        )


@pytest.fixture
async def simulated_database() -> Database:
    world = World(0)
    simulated = SimulatedDatabase(world)
    process = Process("test")

    async def open_simulated() -> Any:
        return await simulated.connect(process, transaction_timeout_s=LEASE_S * 0.8)

    return Database(open_simulated, SimulatedLoader(simulated), SimulatedReader(simulated))


@pytest.fixture
async def postgres_database(database_url: str) -> AsyncIterator[Database]:
    engine = schema.create_engine(database_url)
    await schema.upgrade(engine)

    async def open_real() -> Any:
        return await connect(database_url, lease_s=LEASE_S)

    yield Database(open_real, Loader(engine), Reader(engine))
    await engine.dispose()


@pytest.fixture(params=["simulated", "postgres"])
def database(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_database")


class Writer:
    """Commits to the partition it took first."""

    def __init__(self, database: Database, owned: list[Owned]) -> None:
        self.committer = Committer(connect=database.open_connection, lease_s=LEASE_S)
        self.partition = owned[0].id
        self.stamp = Stamp(owned[0].epoch, owned[0].commit_seq)

    def batch(self, *, ahead: int = 1, epoch: int | None = None, **parts: Any) -> Batch:
        stamp = Stamp(self.stamp.epoch if epoch is None else epoch, self.stamp.seq + ahead)
        return Batch(stamps={self.partition: stamp}, **parts)

    async def commit(self, batch: Batch) -> float:
        time = await self.committer.commit(batch)
        self.stamp = batch.stamps[self.partition]
        return time


@pytest.fixture
async def writer(database: Database) -> AsyncIterator[Writer]:
    made = Writer(database, await database.ownership("a").take(16))
    yield made
    await made.committer.close()


_numbers = itertools.count(1)


def new_job(partition: int, *, request_id: str = "") -> NewJob:
    number = next(_numbers)
    header = JobHeader(
        id=f"{number:030x}{partition:02x}",
        partition=partition,
        project="default",
        day=DAY,
        name="job",
        workflow="workflow",
        version=0,
        sha256="",
        params_json=b"{}",
        metadata_json=b"{}",
        create_time=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number),
        request_id=request_id,
        tags={"a": "b"},
    )
    return NewJob(header, b"{}", plan_to_json(PLAN), "RUNNING")


def rows_of(job: NewJob, changes: list[Durable], *, first: int = 1) -> list[tuple[Any, ...]]:
    return [
        encode(
            change, day=DAY, job_id=job.header.id, seq=first + place, time=1_000_000.0, project="default", generation=1
        )
        for place, change in enumerate(changes)
    ]


def history() -> list[Durable]:
    return [
        JobAccepted(),
        JobStarted(time=1_000_000.5, deadline=0.0),
        AttemptEnded(
            stage=0,
            shard=0,
            attempt=1,
            outcome=Outcome.OK,
            executor="x",
            items_out=3,
            cuts=(Cut(1, 0, 3, 2),),
            cursor="next",
            payload=b"first",
        ),
        AttemptEnded(stage=0, shard=1, attempt=1, outcome=Outcome.OK, executor="x", seals=True),
        AttemptEnded(
            stage=1, shard=0, attempt=1, outcome=Outcome.FAILED, executor="x", ends_shard=False, due=1_000_009.25
        ),
    ]


async def test_a_commit_moves_the_number_and_tells_the_time(database: Database, writer: Writer) -> None:
    first = await writer.commit(writer.batch())
    second = await writer.commit(writer.batch())
    assert second >= first
    assert abs(await database.ownership("a").time() - second) < 60


async def test_a_batch_of_another_epoch_writes_nothing(database: Database, writer: Writer) -> None:
    job = new_job(writer.partition)
    with pytest.raises(OwnershipLostError) as lost:
        await writer.commit(writer.batch(epoch=writer.stamp.epoch + 1, jobs=[job], rows=rows_of(job, history())))
    assert lost.value.partitions == {writer.partition}
    assert await database.loader.load(job.header.id) is None


async def test_a_renewal_draws_out_all_leases_or_none(database: Database) -> None:
    ownership, membership = database.ownership("a"), database.membership("a")
    owned = await ownership.take(3)
    committer = Committer(connect=database.open_connection, lease_s=LEASE_S)
    renewal = Batch(stamps={each.id: Stamp(each.epoch, each.commit_seq + 1) for each in owned}, lease_s=60.0)
    await committer.commit(renewal)
    # Sent again, as after an answer that was lost, it is found to be there.
    await committer.commit(renewal)
    left = [holding.left_s for holding in (await membership.look(alive=False)).partitions[:3]]
    assert all(LEASE_S < left_s <= 60 for left_s in left)

    await ownership.release([1])
    await database.ownership("b").take(1, [1])
    stamps = {number: Stamp(stamp.epoch, stamp.seq + 1) for number, stamp in renewal.stamps.items()}
    with pytest.raises(OwnershipLostError) as lost:
        await committer.commit(Batch(stamps=stamps, lease_s=600.0))
    assert lost.value.partitions == {1}
    standing = await membership.look(alive=False)
    assert all(holding.left_s <= 60 for holding in standing.partitions)
    del stamps[1]
    # Nothing of it was written, so the rest goes in under the same numbers.
    await committer.commit(Batch(stamps=stamps, lease_s=600.0))
    standing = await membership.look(alive=False)
    assert [holding.left_s > 60 for holding in standing.partitions[:3]] == [True, False, True]
    await committer.close()
    await membership.close()


async def test_a_batch_ahead_of_the_database_finds_that_commits_are_lost(database: Database, writer: Writer) -> None:
    job = new_job(writer.partition)
    with pytest.raises(CommitsLostError):
        await writer.commit(writer.batch(ahead=5, jobs=[job]))
    assert await database.loader.load(job.header.id) is None


async def test_the_identical_batch_is_written_once(database: Database, writer: Writer) -> None:
    job = new_job(writer.partition)
    batch = writer.batch(jobs=[job], rows=rows_of(job, history()))
    await writer.commit(batch)
    await writer.commit(batch)
    assert (await database.loader.load(job.header.id)).run.seq == len(history())


@pytest.mark.parametrize(
    "change",
    [
        AttemptEnded(stage=0, shard=0, attempt=1, outcome=Outcome.OK, detail="a\0b"),
        AttemptEnded(stage=0, shard=0, attempt=1, outcome=Outcome.OK, items_out=2**31),
    ],
    ids=["nul", "overflow"],
)
async def test_a_value_that_is_refused_leaves_nothing_behind(
    database: Database, writer: Writer, change: AttemptEnded
) -> None:
    job = new_job(writer.partition)
    with pytest.raises(BadRowError):
        await writer.commit(writer.batch(jobs=[job], rows=rows_of(job, [JobAccepted(), change])))
    assert await database.loader.load(job.header.id) is None
    await writer.commit(writer.batch(jobs=[job], rows=rows_of(job, [JobAccepted()])))
    assert (await database.loader.load(job.header.id)).run.seq == 1


async def test_a_request_id_makes_one_job(database: Database, writer: Writer) -> None:
    first, second = (new_job(writer.partition, request_id="same") for _ in range(2))
    other = new_job(writer.partition, request_id="other")
    await writer.commit(writer.batch(jobs=[first]))
    batch = writer.batch(jobs=[other, second])
    with pytest.raises(RepeatedRequestError) as caught:
        await writer.commit(batch)
    assert caught.value.jobs == {second.header.id}
    assert await database.loader.load(other.header.id) is None, "nothing of it was written"
    # What is left of it goes in under the same number.
    rest = batch.without(frozenset(), caught.value.jobs)
    rest.stamps = batch.stamps
    await writer.commit(rest)
    assert await database.loader.load(other.header.id) is not None
    assert await database.loader.load(second.header.id) is None


async def test_two_new_jobs_of_one_request_in_a_batch_are_a_bad_row(database: Database, writer: Writer) -> None:
    both = [new_job(writer.partition, request_id="same") for _ in range(2)]
    with pytest.raises(BadRowError):
        await writer.commit(writer.batch(jobs=both))
    assert [await database.loader.load(job.header.id) for job in both] == [None, None]


async def test_a_journal_number_is_taken_once(writer: Writer) -> None:
    job = new_job(writer.partition)
    await writer.commit(writer.batch(jobs=[job], rows=rows_of(job, [JobAccepted()])))
    with pytest.raises(BadRowError):
        await writer.commit(writer.batch(rows=rows_of(job, [JobStarted(time=1.0, deadline=0.0)])))


async def test_what_is_loaded_is_what_the_changes_made(database: Database, writer: Writer) -> None:
    job = new_job(writer.partition)
    await writer.commit(writer.batch(jobs=[job], rows=rows_of(job, history())))
    expected = JobRun.of(job.header.id, writer.partition, PLAN)
    apply(expected, history(), time=1_000_000.0)
    loaded = await database.loader.load(job.header.id)
    assert durable_view(loaded.run) == durable_view(expected)
    assert loaded.header == job.header


async def test_tags_priority_and_plan_are_changed_together_with_the_rows_that_say_so(
    database: Database, writer: Writer
) -> None:
    first, second = new_job(writer.partition), new_job(writer.partition)
    accepted = [row for job in (first, second) for row in rows_of(job, [JobAccepted()])]
    await writer.commit(writer.batch(jobs=[first, second], rows=accepted))
    other = plan_of([(StageKind.SOURCE, []), (StageKind.MAPPED, [0]), (StageKind.WHOLE, [1])])
    new_plan = NewPlan(other, plan_to_json(other), b'{"a":1}')
    changes: list[Durable] = [
        JobUpdated(tags={"x": "y"}, priority=9),
        JobStarted(time=1_000_000.5, deadline=0.0, new_plan=new_plan),
        PauseAccepted(now=True),
    ]
    await writer.commit(
        writer.batch(
            rows=rows_of(first, changes, first=2),
            revisions={first.header.id: Revision({"x": "y"}, 9)},
            replans={first.header.id: Replan(new_plan.plan_json, new_plan.params_json)},
            endings={first.header.id: JobEnding(first.header.id, "PAUSED", 1, 0, None, None)},
        )
    )
    changed, untouched = [await database.loader.load(job.header.id) for job in (first, second)]
    assert (changed.header.tags, changed.header.priority, changed.header.params_json) == ({"x": "y"}, 9, b'{"a":1}')
    assert (changed.run.plan, changed.run.priority, changed.run.gives_back) == (other, 9, True)
    expected = JobRun.of(first.header.id, writer.partition, PLAN)
    apply(expected, [JobAccepted(), *changes], time=1_000_000.0)
    assert durable_view(changed.run) == durable_view(expected)
    assert (untouched.header, untouched.run.plan) == (second.header, PLAN)


async def test_unfinished_jobs_are_named_those_with_the_shortest_journals_first(
    database: Database, writer: Writer
) -> None:
    jobs = [new_job(writer.partition) for _ in range(3)]
    await writer.commit(writer.batch(jobs=jobs[::-1]))
    end = JobEnded(state=JobState.CANCELLED, reason="", detail="", node="", time=1_000_000.0)
    ending = JobEnding(jobs[1].header.id, end.state, 1, 0, datetime.now(UTC), b"record")
    await writer.commit(writer.batch(endings={jobs[1].header.id: ending}))
    await writer.commit(writer.batch(rows=[*rows_of(jobs[0], history()), *rows_of(jobs[2], history()[:1])]))
    assert await database.loader.pending([writer.partition]) == [jobs[2].header.id, jobs[0].header.id]
    assert await database.loader.pending([writer.partition + 1]) == []


async def test_payloads_are_found_by_shard_and_by_page(database: Database, writer: Writer) -> None:
    job = new_job(writer.partition)
    await writer.commit(writer.batch(jobs=[job], rows=rows_of(job, history())))
    loaded = await database.loader.load(job.header.id)
    live = LiveJob(loaded.header, loaded.run)
    assert await database.reader.payloads(live, 0, [0, 1]) == [(3, 0, b"first")]
    assert await database.reader.payload_page(live, 0, after=0, most=5) == [(3, 0, b"first")]
    assert await database.reader.payload_page(live, 0, after=3, most=5) == []


async def test_a_partition_has_one_owner_until_it_is_released(database: Database) -> None:
    first, second = database.ownership("a"), database.ownership("b")
    owned = await first.take(16)
    assert [partition.id for partition in owned] == list(range(16))
    assert await second.take(16) == []
    assert await first.owner_of(3) == ("a:1", owned[3].epoch)
    await first.release([3, 4])
    assert await first.owner_of(3) == ("", 0)
    taken = await second.take(16)
    assert [(partition.id, partition.epoch) for partition in taken] == [
        (3, owned[3].epoch + 1),
        (4, owned[4].epoch + 1),
    ]


async def test_a_lease_that_has_ended_is_taken_over_and_the_former_owner_is_fenced(database: Database) -> None:
    owned = await database.ownership("a", lease_s=0.05).take(16)
    former = Writer(database, owned)
    second = database.ownership("b")
    taken: list[Owned] = []
    async with asyncio.timeout(60):
        while not taken:
            taken = await second.take(16)
    assert {partition.epoch for partition in taken} == {owned[0].epoch + 1}
    with pytest.raises(OwnershipLostError):
        await former.commit(former.batch())
    await former.committer.close()


async def fence(connection: Any, partition: int, epoch: int, seq: int) -> list[Any]:
    """Begin a commit that writes nothing."""
    nothing: list[list[Any]] = [[] for _ in (*COLUMNS, *NODE_TYPES, *END_TYPES)]
    fenced: list[Any] = await connection.fetch(FIRST, [partition], [epoch], [seq], timedelta(seconds=LEASE_S), *nothing)
    return fenced


async def test_a_takeover_passes_over_a_partition_whose_owner_is_committing(database: Database) -> None:
    owned = await database.ownership("a", lease_s=0.0).take(16)
    connection = await database.open_connection()
    transaction = connection.transaction()
    await transaction.start()
    assert len(await fence(connection, 0, owned[0].epoch, owned[0].commit_seq + 1)) == 1
    taken: list[Owned] = []
    async with asyncio.timeout(60):
        while not taken:
            taken = await database.ownership("b").take(16)
    assert [partition.id for partition in taken] == list(range(1, 16))
    await transaction.rollback()
    await connection.close()


async def test_a_transaction_that_is_rolled_back_leaves_the_number_alone(database: Database, writer: Writer) -> None:
    connection = await database.open_connection()
    transaction = connection.transaction()
    await transaction.start()
    await fence(connection, writer.partition, writer.stamp.epoch, writer.stamp.seq + 1)
    await transaction.rollback()
    await connection.close()
    await writer.commit(writer.batch())


async def test_only_partitions_that_were_named_are_taken(database: Database) -> None:
    owned = await database.ownership("a").take(2, [3, 5, 7])
    assert [partition.id for partition in owned] == [3, 5]


async def test_replicas_see_one_another_until_their_rows_expire_or_they_leave(database: Database) -> None:
    first, second = database.membership("a"), database.membership("b")
    await first.look(alive=True)
    standing = await second.look(alive=True)
    assert [(member.id, member.address) for member in standing.members] == [("a", "a:1"), ("b", "b:1")]
    assert all(0 < member.left_s <= LEASE_S for member in standing.members)
    assert [holding.owner for holding in standing.partitions] == [""] * 16
    assert standing.next_expiry_s("b") == standing.members[0].left_s
    await first.leave()
    assert [member.id for member in (await second.look(alive=True)).members] == ["b"]
    await second.leave()
    silent = database.membership("c", lease_s=0.05)
    await silent.look(alive=True)
    async with asyncio.timeout(60):
        members = (await second.look(alive=False)).members
        while members:
            await asyncio.sleep(members[0].left_s)
            members = (await second.look(alive=False)).members
    for member in (first, second, silent):
        await member.close()


async def test_a_replica_that_says_that_it_is_alive_sees_itself_also_when_it_is_late(database: Database) -> None:
    membership = database.membership("a", lease_s=0.0)
    for _ in range(2):
        assert [member.id for member in (await membership.look(alive=True, lease_s=0.0)).members] == ["a"]
    assert (await membership.look(alive=False)).members == ()
    [member] = (await membership.look(alive=True, lease_s=LEASE_S)).members
    assert 0 < member.left_s <= LEASE_S
    await membership.leave()
    assert [member.id for member in (await membership.look(alive=True, lease_s=LEASE_S)).members] == ["a"]
    await membership.close()


async def test_a_look_shows_owners_until_their_leases_end(database: Database) -> None:
    await database.ownership("a").take(4)
    await database.ownership("b", lease_s=0.0).take(4)
    membership = database.membership("c")
    standing = await membership.look(alive=False)
    assert [holding.owner for holding in standing.partitions] == ["a"] * 4 + [""] * 12
    assert [holding.address for holding in standing.partitions[:5]] == ["a:1"] * 4 + [""]
    assert [holding.epoch for holding in standing.partitions] == [1] * 8 + [0] * 8
    assert 0 < standing.next_expiry_s("c") <= LEASE_S
    await membership.close()


async def test_whoever_releases_or_joins_wakes_the_others(database: Database) -> None:
    woken = asyncio.Event()
    membership = database.membership("a", released=woken.set)
    await membership.look(alive=False)
    woken.clear()
    ownership = database.ownership("b")
    await ownership.take(1)
    await ownership.release([0])
    async with asyncio.timeout(60):
        await woken.wait()
    woken.clear()
    other = database.membership("b")
    await other.look(alive=True)
    async with asyncio.timeout(60):
        await woken.wait()
    await membership.close()
    await other.close()
