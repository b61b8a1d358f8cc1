"""Several replicas over one real PostgreSQL: they share the partitions, and each is written by one of them only."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from pixloom.errors import UnavailableError
from pixloom.graph.plan import StageKind
from pixloom.graph.plan_codec import plan_to_json
from pixloom_scheduler.clock import DatabaseClock
from pixloom_scheduler.core.events import CancelRequested
from pixloom_scheduler.core.model import JobRun
from pixloom_scheduler.core.states import JobState
from pixloom_scheduler.job import JobHeader
from pixloom_scheduler.journal import schema
from pixloom_scheduler.journal.batch import NewJob
from pixloom_scheduler.journal.committer import Committer
from pixloom_scheduler.journal.loader import Loader
from pixloom_scheduler.journal.membership import Membership
from pixloom_scheduler.journal.ownership import Ownership, connect
from pixloom_scheduler.limits import share_of
from pixloom_scheduler.live import LiveJob
from pixloom_scheduler.partitions import LOOK_EVERY_S, Partitions
from pixloom_scheduler.replica import Replica
from tests.support.core_world import plan_of
from tests.support.effects import NoEffects
from tests.support.lateness import Lateness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

LEASE_S = 3.0
PLAN = plan_of([(StageKind.SOURCE, []), (StageKind.MAPPED, [0])])


class Watching(NoEffects):
    """Effects and takeovers that note what they are told."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.admitted: list[str] = []
        self.dropped_jobs: list[str] = []

    def dropped(self, jobs: list[LiveJob]) -> None:
        self.dropped_jobs += [live.header.id for live in jobs]

    def began(self, owned: Any) -> None:
        self.taken += [partition.id for partition in owned]

    def admits(self, job_id: str) -> None:
        self.admitted.append(job_id)

    def heard(self, job_id: str) -> None:
        pass


class Member:
    """A replica with its partitions."""

    def __init__(self, url: str, engine: AsyncEngine, name: str) -> None:
        async def open_connection() -> asyncpg.Connection[Any]:
            return await connect(url, lease_s=LEASE_S)

        self.name = name
        self.watching = Watching()
        self.committer = Committer(connect=open_connection, lease_s=LEASE_S)
        self.replica = Replica(
            journal=self.committer,
            loader=Loader(engine),
            clock=DatabaseClock(),
            effects=self.watching,
            costs={},
            lease_s=LEASE_S,
            monotonic=time.monotonic,
        )
        self.partitions = Partitions(
            replica_id=name,
            address=f"{name}:1",
            replica=self.replica,
            ownership=Ownership(connect=open_connection, replica=name, address=f"{name}:1", lease_s=LEASE_S),
            membership=lambda released: Membership(
                connect=open_connection, replica=name, address=f"{name}:1", lease_s=LEASE_S, released=released
            ),
            jobs=Loader(engine),
            takeovers=self.watching,
            monotonic=time.monotonic,
            chance=lambda: 0.5,
        )
        self.place = (0, 1)
        self.owned_when_placed: dict[tuple[int, int], int] = {}
        self.partitions.connect(self._note_place)
        self.tasks: list[asyncio.Task[None]] = []

    def _note_place(self, place: int, replicas: int) -> None:
        self.place = (place, replicas)
        self.owned_when_placed[self.place] = len(self.owned)

    @property
    def owned(self) -> set[int]:
        return set(self.replica.stamps)

    async def start(self) -> None:
        await self.partitions.join()
        self.tasks = [asyncio.create_task(self.replica.run()), asyncio.create_task(self.partitions.run())]

    async def die(self) -> None:
        """End without a word, as a process that was killed."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.partitions.close()
        await self.committer.close()

    async def leave(self) -> None:
        """End as on SIGTERM."""
        self.tasks[1].cancel()
        await asyncio.gather(self.tasks[1], return_exceptions=True)
        await self.partitions.release_all()

    async def submit(self, number: int) -> LiveJob:
        partition = self.replica.open_partitions()[number % len(self.owned)]
        now = datetime.now(UTC)
        header = JobHeader(
            id=f"{number:030x}{partition:02x}", partition=partition, project="default", day=now.date(), name="j",
            workflow="w", version=0, sha256="", params_json=b"{}", metadata_json=b"{}", create_time=now,
        )  # fmt: skip
        new = NewJob(header, b"{}", plan_to_json(PLAN), "RUNNING")
        return await self.replica.submit(new, LiveJob(header, JobRun.of(header.id, partition, PLAN)), start=True)


@pytest.fixture
async def make(database_url: str) -> AsyncIterator[Callable[[str], Member]]:
    engine = schema.create_engine(database_url)
    await schema.upgrade(engine)
    await schema.add_days(engine)
    made: list[Member] = []

    def member(name: str) -> Member:
        made.append(Member(database_url, engine, name))
        return made[-1]

    yield member
    for each in made:
        await each.die()
    await engine.dispose()


async def until(is_so: Callable[[], bool], *, within_s: float = 60) -> float:
    """Wait until something is so; return how long that took, seconds."""
    since = time.monotonic()
    with Lateness() as late:
        while not is_so():
            assert time.monotonic() - since < within_s + late.seconds
            await asyncio.sleep(0.01)
    return time.monotonic() - since


def levelled(*members: Member) -> bool:
    """Return whether everything is owned, each partition once, in shares that differ by one at most."""
    counts = [len(member.owned) for member in members]
    return set().union(*(member.owned for member in members)) == set(range(16)) and (
        sum(counts) == 16 and max(counts) - min(counts) <= 1
    )


async def test_three_replicas_level_out_and_nothing_moves_any_more(make: Callable[[str], Member]) -> None:
    members = [make(name) for name in "abc"]
    for member in members:
        await member.start()
    await until(lambda: levelled(*members))
    assert sorted(len(member.owned) for member in members) == [5, 5, 6]
    before = [set(member.owned) for member in members]
    taken = [len(member.watching.taken) for member in members]
    for member in members:
        for _ in range(3):
            await member.partitions._level()
    assert [member.owned for member in members] == before
    assert [len(member.watching.taken) for member in members] == taken


async def test_live_replicas_agree_on_their_places_and_keep_limits_together(make: Callable[[str], Member]) -> None:
    members = [make(name) for name in "abc"]
    for member in members:
        await member.start()
    await until(lambda: levelled(*members))
    assert [member.place for member in members] == [(0, 3), (1, 3), (2, 3)]
    assert sum(share_of(7, place=place, replicas=replicas) for place, replicas in (m.place for m in members)) == 7
    await members[0].leave()
    await until(lambda: levelled(*members[1:]))
    await until(lambda: [member.place for member in members[1:]] == [(0, 2), (1, 2)])
    await members[1].die()
    await until(lambda: members[2].place == (0, 1))


async def test_a_replica_that_comes_is_counted_by_the_others_before_it_has_anything(
    make: Callable[[str], Member],
) -> None:
    first, second = await two(make)
    assert first.owned_when_placed == {(0, 2): 16}
    assert second.owned_when_placed == {(1, 2): 0}


async def test_jobs_go_on_at_whoever_a_partition_was_given_to(make: Callable[[str], Member]) -> None:
    first, second = make("a"), make("b")
    await first.start()
    jobs = [await first.submit(number) for number in range(16)]
    await second.start()
    await until(lambda: levelled(first, second) and len(second.watching.admitted) == 8)
    given = [live for live in jobs if live.header.partition in second.owned]
    assert len(given) == 8
    for live in given:
        assert live.is_gone
        assert first.replica.find(live.header.id) is None
        with pytest.raises(UnavailableError, match="owner of the job changed"):
            await first.replica.command(live.header.id, CancelRequested("enough"))
        await second.partitions.loading.loaded(live.header.id)
        await second.replica.command(live.header.id, CancelRequested("enough"))
        found = second.replica.find(live.header.id)
        assert found is not None
        assert found.run.state is JobState.CANCELLED
    assert sorted(first.watching.dropped_jobs) == sorted(live.header.id for live in given)


async def test_a_replica_that_dies_is_replaced_within_its_lease_and_a_second(make: Callable[[str], Member]) -> None:
    first, second, third = make("a"), make("b"), make("c")
    for member in (first, second, third):
        await member.start()
    await until(lambda: levelled(first, second, third))
    lost = [await first.submit(number) for number in range(5)]
    await first.die()
    taken_s = await until(lambda: levelled(second, third), within_s=LEASE_S + 1)
    print(f"takeover from a replica that died: {taken_s:.2f} s")  # noqa: T201 - the measure
    for live in lost:
        owner = second if live.header.partition in second.owned else third
        await owner.partitions.loading.loaded(live.header.id)
        await owner.replica.command(live.header.id, CancelRequested("enough"))


async def two(make: Callable[[str], Member]) -> tuple[Member, Member]:
    """Start two replicas and return them when each has its share."""
    first, second = make("a"), make("b")
    await first.start()
    await second.start()
    await until(lambda: levelled(first, second))
    return first, second


async def test_a_replica_that_leaves_has_flushed_and_is_replaced_at_once(make: Callable[[str], Member]) -> None:
    first, second = await two(make)
    submitting = [asyncio.create_task(first.submit(number)) for number in range(40)]
    await asyncio.sleep(0)  # what is queued now is durable before anything is released
    await first.leave()
    taken_s = await until(lambda: len(second.owned) == 16, within_s=2)
    print(f"takeover from a replica that left: {taken_s:.3f} s")  # noqa: T201 - the measure
    assert first.owned == set()
    lives = await asyncio.gather(*submitting)
    for live in lives:
        await second.partitions.loading.loaded(live.header.id)
        assert second.replica.find(live.header.id) is not None
    with pytest.raises(UnavailableError):
        await first.replica.command(lives[0].header.id, CancelRequested("enough"))


async def test_what_a_stopped_replica_writes_late_is_refused_and_it_joins_again(
    make: Callable[[str], Member], database_url: str
) -> None:
    first, second = await two(make)
    live = await first.submit(1)
    # It stops: neither its loop nor its looks go on, and what it knows stays as it was.
    for task in first.tasks:
        task.cancel()
    await asyncio.gather(*first.tasks, return_exceptions=True)
    await until(lambda: len(second.owned) == 16, within_s=LEASE_S + 1)
    assert not first.replica.is_inside_lease
    late = first.replica.report(live.header.id, CancelRequested("late"))
    first.tasks = [asyncio.create_task(first.replica.run()), asyncio.create_task(first.partitions.run())]
    with pytest.raises(UnavailableError):
        await late
    await until(lambda: levelled(first, second))
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch("SELECT seq FROM pixloom.journal WHERE job_id = $1", live.header.id)
    await connection.close()
    assert [row["seq"] for row in rows] == [1, 2]  # accepted and started, and no cancel
    owner = first if live.header.partition in first.owned else second
    await owner.partitions.loading.loaded(live.header.id)
    found = owner.replica.find(live.header.id)
    assert found is not None
    assert found.run.state is JobState.RUNNING


async def stop(member: Member) -> None:
    """Let a replica stand still: neither its loop nor its looks go on, and what it knows stays as it was."""
    for task in member.tasks:
        task.cancel()
    await asyncio.gather(*member.tasks, return_exceptions=True)


async def test_who_lost_its_partitions_stands_back_before_it_wants_its_share_again(
    make: Callable[[str], Member],
) -> None:
    first, second = await two(make)
    await stop(first)
    await until(lambda: len(second.owned) == 16, within_s=LEASE_S + 1)
    first.tasks = [asyncio.create_task(first.replica.run()), asyncio.create_task(first.partitions.run())]
    await until(lambda: first.partitions._setbacks.left_s > 0)
    # The other one does not make room for it.
    assert second.partitions._standing is not None
    await second.partitions._level()
    assert [member.id for member in second.partitions._standing.members] == ["b"]
    assert len(second.owned) == 16
    stood_back_s = await until(lambda: levelled(first, second))
    assert stood_back_s > 1.0
    assert first.partitions._setbacks.left_s == 0


async def test_who_is_alone_does_not_stand_back(make: Callable[[str], Member]) -> None:
    first = make("a")
    await first.partitions.join()
    first.replica.losses += 1
    await first.partitions._level()
    await first.partitions._level()
    assert first.partitions._setbacks.left_s == 0
    assert first.partitions._standing is not None
    assert [member.id for member in first.partitions._standing.members] == ["a"]


async def test_a_look_comes_with_the_renewal_and_whoever_comes_is_seen_at_once(make: Callable[[str], Member]) -> None:
    first = make("a")
    await first.partitions.join()
    first.replica.lease.renew(sent=time.monotonic() - 0.1, length_s=LEASE_S)
    assert first.partitions._next_look_s() < LOOK_EVERY_S
    first.replica.lease.renew(sent=time.monotonic() - 2.0, length_s=LEASE_S)
    assert first.partitions._next_look_s() == LOOK_EVERY_S, "nothing to wait for: it is overdue"
    second = make("b")
    await second.partitions._level()
    assert second.partitions._standing is not None
    assert [member.id for member in second.partitions._standing.members] == ["a", "b"]
    async with asyncio.timeout(60):
        await first.partitions._heard.wait()
    first.tasks = [asyncio.create_task(first.replica.run())]
    assert await first.partitions._level() <= LOOK_EVERY_S
    assert len(first.owned) == 8


async def test_who_was_kept_from_looking_gives_the_others_as_much_time_as_it_lost(
    make: Callable[[str], Member],
) -> None:
    first, second = await two(make)
    # The whole machine stands still until both leases have ended, and the second is the first to go on.
    await stop(first)
    await stop(second)
    looks = second.partitions._membership
    standing = await looks.look(alive=True)
    while any(holding.owner == "a" for holding in standing.partitions) or len(standing.members) > 1:
        await asyncio.sleep(0.05)
        standing = await looks.look(alive=True)
    second.replica.own([], [], since=time.monotonic())  # its lease is renewed
    await second.partitions._level()
    assert len(second.owned) == 8
    # The other one has not used the time.
    await second.partitions._level()
    assert len(second.owned) == 16


async def test_any_replica_tells_who_owns_a_partition(make: Callable[[str], Member]) -> None:
    first, second = await two(make)
    for partition in range(16):
        owner = first if partition in first.owned else second
        expected = (f"{owner.name}:1", owner.replica.stamps[partition].epoch)
        assert await first.partitions.owner_of(partition) == expected
        assert await second.partitions.owner_of(partition) == expected
    assert first.partitions.addresses() == second.partitions.addresses() == ["a:1", "b:1"]
