"""The replica's loop over a journal in memory."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import orjson
import pytest

from pixloom.errors import StateConflictError
from pixloom.graph.plan import StageKind, plan_to_json
from pixloom_scheduler.clock import DatabaseClock
from pixloom_scheduler.core.events import CancelRequested, PauseRequested, ResumeRequested
from pixloom_scheduler.core.model import JobRun
from pixloom_scheduler.core.states import JobState
from pixloom_scheduler.job import JobHeader
from pixloom_scheduler.journal.batch import NewJob
from pixloom_scheduler.journal.ownership import Owned
from pixloom_scheduler.live import LiveJob
from pixloom_scheduler.replica import STEP_S, Replica
from tests.support.core_world import plan_of


class MemoryJournal:
    """Keeps batches; holds commits back while `gate` is closed."""

    def __init__(self):
        self.batches = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()

    async def commit(self, batch):
        self.entered.set()
        await self.gate.wait()
        self.batches.append(batch)
        return 1_000.0 + len(self.batches)

    async def load(self, job_id):
        raise AssertionError(job_id)


class Watching:
    """Effects that note what left after a commit."""

    def __init__(self):
        self.left = []

    def committed(self, live, changes):
        self.left.extend(changes)

    def resumed(self, live):
        pass

    def dropped(self, jobs):
        pass

    def settled(self):
        pass

    def served_pools(self):
        return frozenset()


class SteppingClock:
    """A monotonic clock that goes on by a fixed time whenever it is read."""

    def __init__(self, tick_s=0.0):
        self.now = 0.0
        self.tick_s = tick_s

    def __call__(self):
        self.now += self.tick_s
        return self.now


def make(clock):
    journal, effects = MemoryJournal(), Watching()
    replica = Replica(
        journal=journal, loader=journal, clock=DatabaseClock(), effects=effects, costs={}, lease_s=3.0, monotonic=clock
    )
    replica.own([Owned(i, 1, 0) for i in range(16)], [], since=clock())
    return replica, journal, effects


def submission(number):
    plan = plan_of([(StageKind.SOURCE, []), (StageKind.MAPPED, [0])])
    partition = number % 16
    now = datetime.now(UTC)
    header = JobHeader(
        id=f"{number:030x}{partition:02x}", partition=partition, project="default", day=now.date(), name="j",
        workflow="w", version=0, sha256="", params_json=b"{}", metadata_json=b"{}", create_time=now,
    )  # fmt: skip
    new = NewJob(header, b"{}", orjson.dumps(plan_to_json(plan)), "RUNNING")
    return new, LiveJob(header, JobRun.of(header.id, partition, plan))


@pytest.fixture
async def running():
    replica, journal, effects = make(SteppingClock())
    task = asyncio.create_task(replica.run())
    yield replica, journal, effects
    journal.gate.set()
    replica.stop()
    await task


async def test_nothing_leaves_before_its_commit(running):
    replica, journal, effects = running
    journal.gate.clear()
    new, live = submission(1)
    submitting = asyncio.create_task(replica.submit(new, live, start=True))
    await journal.entered.wait()
    assert live.run.state is JobState.RUNNING  # provisional
    assert not submitting.done()
    assert effects.left == []
    assert live.committed_seq == 0
    journal.gate.set()
    await submitting
    assert live.committed_seq == live.run.seq
    assert effects.left != []


async def test_what_arrives_during_a_commit_goes_into_the_next_one(running):
    replica, journal, _ = running
    journal.gate.clear()
    first = asyncio.create_task(replica.submit(*submission(1), start=True))
    await journal.entered.wait()
    others = [asyncio.create_task(replica.submit(*submission(n), start=True)) for n in range(2, 50)]
    await asyncio.sleep(0)
    journal.gate.set()
    await asyncio.gather(first, *others)
    assert [len(batch.jobs) for batch in journal.batches] == [1, 48]


async def test_a_step_takes_no_further_event_once_its_time_is_over():
    clock = SteppingClock()
    replica, journal, _ = make(clock)
    clock.tick_s = STEP_S / 4  # an event seems to take a quarter of a step
    submits = [asyncio.create_task(replica.submit(*submission(n), start=True)) for n in range(1, 13)]
    await asyncio.sleep(0)
    task = asyncio.create_task(replica.run())
    await asyncio.gather(*submits)
    replica.stop()
    await task
    assert max(len(batch.jobs) for batch in journal.batches) <= 4
    assert sum(len(batch.jobs) for batch in journal.batches) == 12


async def test_every_commit_is_fenced_with_the_next_number_of_its_partition(running):
    replica, journal, _ = running
    for number in (1, 17, 33):  # all of partition 1
        await replica.submit(*submission(number), start=True)
    stamps = [batch.stamps[1].seq for batch in journal.batches if 1 in batch.stamps]
    assert stamps == list(range(1, len(stamps) + 1))


async def test_a_verb_that_does_not_fit_names_the_state_and_changes_nothing(running):
    replica, journal, _ = running
    new, live = submission(1)
    await replica.submit(new, live, start=False)
    with pytest.raises(StateConflictError, match="PENDING"):
        await replica.command(live.header.id, PauseRequested())
    assert live.run.state is JobState.PENDING
    await replica.command(live.header.id, CancelRequested("enough"))
    assert live.run.state is JobState.CANCELLED
    rows = sum(len(batch.rows) for batch in journal.batches)
    await replica.command(live.header.id, CancelRequested("enough"))  # idempotent
    with pytest.raises(StateConflictError, match="CANCELLED"):
        await replica.command(live.header.id, ResumeRequested())
    assert sum(len(batch.rows) for batch in journal.batches) == rows


async def test_pause_and_resume_are_journaled(running):
    replica, _, _ = running
    new, live = submission(1)
    await replica.submit(new, live, start=True)
    await replica.command(live.header.id, PauseRequested())
    assert live.run.state is JobState.PAUSED
    await replica.command(live.header.id, ResumeRequested())
    assert live.run.state is JobState.RUNNING
    assert [event.type for event in live.events] == ["job_created", "job_started", "job_paused", "job_resumed"]


async def test_a_replica_outside_its_lease_is_mute():
    clock = SteppingClock()
    replica, _, _ = make(clock)
    assert replica.is_inside_lease
    clock.now = 2.5
    assert not replica.is_inside_lease
    with pytest.raises(Exception, match="does not own"):
        await replica.submit(*submission(1), start=True)
