"""The replica's loop over a journal in memory."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from pixloom.errors import StateConflictError, UnavailableError
from pixloom.graph.plan import StageKind
from pixloom.graph.plan_codec import plan_to_json
from pixloom_scheduler.clock import DatabaseClock
from pixloom_scheduler.core.changes import JobAccepted
from pixloom_scheduler.core.events import CancelRequested, PauseRequested, ResumeRequested, StartRequested
from pixloom_scheduler.core.model import JobRun
from pixloom_scheduler.core.states import JobState
from pixloom_scheduler.job import JobHeader
from pixloom_scheduler.journal.batch import Batch, NewJob, Stamp
from pixloom_scheduler.journal.committer import BadRowError, OwnershipLostError, RepeatedRequestError
from pixloom_scheduler.journal.ownership import Owned
from pixloom_scheduler.journal.rows import COLUMNS
from pixloom_scheduler.live import LiveJob
from pixloom_scheduler.reads import JobReads
from pixloom_scheduler.replica import STEP_S, Replica
from tests.support.core_world import plan_of
from tests.support.effects import NoEffects


class MemoryJournal:
    """Keeps batches; holds commits back while `gate` is closed."""

    def __init__(self):
        self.batches = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.lost: frozenset[int] = frozenset()

    async def commit(self, batch):
        self.entered.set()
        await self.gate.wait()
        if self.lost & batch.stamps.keys():
            raise OwnershipLostError(self.lost & batch.stamps.keys())
        self.batches.append(batch)
        return 1_000.0 + len(self.batches)

    async def load(self, job_id):
        raise AssertionError(job_id)


class Watching(NoEffects):
    """Effects that note what left after a commit."""

    def __init__(self):
        self.left = []
        self.gone = []

    def committed(self, live, changes):
        self.left.extend(changes)

    def dropped(self, jobs):
        self.gone.extend(jobs)


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
    new = NewJob(header, b"{}", plan_to_json(plan), "RUNNING")
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


async def test_what_is_lost_with_a_partition_is_refused_and_the_rest_is_written_under_its_number(running):
    replica, journal, effects = running
    kept = await replica.submit(*submission(2), start=False)
    lost = await replica.submit(*submission(1), start=False)
    journal.gate.clear()
    journal.entered.clear()
    first = asyncio.create_task(replica.submit(*submission(3), start=True))
    await journal.entered.wait()
    starts = [asyncio.create_task(replica.command(live.header.id, StartRequested())) for live in (kept, lost)]
    await asyncio.sleep(0)
    journal.lost = frozenset({1})
    number = replica.stamps[2].seq + 1
    journal.gate.set()
    await first
    await starts[0]
    with pytest.raises(UnavailableError, match="owner of the job changed"):
        await starts[1]
    assert kept.run.state is JobState.RUNNING
    assert journal.batches[-1].stamps == {2: Stamp(1, number)}
    assert {row[COLUMNS.index("job_id")] for row in journal.batches[-1].rows} == {kept.header.id}
    assert lost.is_gone
    assert replica.find(lost.header.id) is None
    assert effects.gone == [lost]
    assert 1 not in replica.stamps
    with pytest.raises(UnavailableError):
        await replica.submit(*submission(17), start=True)  # of partition 1 as well


async def test_a_partition_is_left_when_what_waits_for_it_is_durable(running):
    replica, journal, _ = running
    journal.gate.clear()
    waiting = [asyncio.create_task(replica.submit(*submission(n), start=True)) for n in (1, 17, 2)]
    await journal.entered.wait()
    leaving = asyncio.create_task(replica.leave([1]))
    await asyncio.sleep(0)
    assert not replica.serves(1)
    with pytest.raises(UnavailableError):
        await replica.submit(*submission(33), start=True)
    assert replica.open_partitions() == [0, *range(2, 16)]
    assert not leaving.done()
    journal.gate.set()
    await leaving
    assert [live.run.state for live in await asyncio.gather(*waiting)] == [JobState.RUNNING] * 3
    assert 1 not in replica.stamps
    assert list(replica.jobs) == [f"{2:030x}02"]


async def test_a_replica_without_partitions_waits_and_is_of_use_again_later(running):
    replica, journal, _ = running
    await replica.leave(range(16))
    assert replica.stamps == {}
    written = len(journal.batches)
    with pytest.raises(UnavailableError):
        await replica.submit(*submission(1), start=True)
    replica.own([Owned(1, 7, 40)], [], since=replica._monotonic())
    await replica.submit(*submission(1), start=True)
    assert journal.batches[-1].stamps == {1: Stamp(7, 41)}
    assert len(journal.batches) == written + 1


async def test_a_command_whose_caller_has_gone_happens_all_the_same_and_the_loop_goes_on(running):
    replica, journal, _ = running
    new, live = submission(1)
    await replica.submit(new, live, start=True)
    journal.gate.clear()
    journal.entered.clear()
    busy = asyncio.create_task(replica.submit(*submission(2), start=True))
    await journal.entered.wait()
    # One that is done, one that is not possible, and one about a job that there is not; all of them wait.
    calls = [
        asyncio.create_task(replica.command(live.header.id, PauseRequested())),
        asyncio.create_task(replica.command(live.header.id, StartRequested())),
        asyncio.create_task(replica.command(f"{9:030x}01", PauseRequested())),
    ]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    journal.gate.set()
    await busy
    await replica.command(live.header.id, ResumeRequested())
    assert [event.type for event in live.events] == ["job_created", "job_started", "job_paused", "job_resumed"]


async def test_a_submission_whose_caller_has_gone_is_accepted_all_the_same(running):
    replica, journal, _ = running
    journal.gate.clear()
    new, live = submission(1)
    submitting = asyncio.create_task(replica.submit(new, live, start=True))
    await journal.entered.wait()
    submitting.cancel()
    await asyncio.gather(submitting, return_exceptions=True)
    journal.gate.set()
    await replica.command(live.header.id, PauseRequested())
    assert live.run.state is JobState.PAUSED


async def test_many_jobs_of_a_refused_batch_are_done_over_again_without_losing_the_lease():
    """Each is read and committed by itself; the lease is renewed in between, however long all of it takes."""
    clock = SteppingClock()
    replica, journal, _ = make(clock)
    refused: list[Batch] = []

    async def commit(batch):
        clock.now += 0.3
        if len(batch.jobs) > 1 and not refused:
            refused.append(batch)
            raise BadRowError("one of them")
        assert replica.is_inside_lease, "nobody may have taken over"
        journal.batches.append(batch)
        return 1_000.0 + clock.now

    async def load(job_id):
        clock.now += 0.3

    journal.commit, journal.load = commit, load
    calls = [asyncio.create_task(replica.submit(*submission(number), start=True)) for number in range(1, 15)]
    await asyncio.sleep(0)
    task = asyncio.create_task(replica.run())
    await asyncio.gather(*calls)
    assert refused
    renewals = [batch for batch in journal.batches if len(batch.stamps) == 16]
    assert len(renewals) >= 5
    replica.stop()
    await task


async def test_a_job_whose_request_has_one_already_is_left_out_and_nothing_else_is_done_over_again():
    replica, journal, effects = make(SteppingClock())
    repeated = frozenset({submission(2)[0].header.id})
    commit = journal.commit

    async def refusing(batch):
        if repeated & {new.header.id for new in batch.jobs}:
            raise RepeatedRequestError(repeated)
        return await commit(batch)

    journal.commit = refusing  # and to load a job is an error in this journal
    calls = [asyncio.create_task(replica.submit(*submission(number), start=True)) for number in range(4)]
    await asyncio.sleep(0)
    task = asyncio.create_task(replica.run())
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(result, UnavailableError) for result in results] == [False, False, True, False]
    assert replica.jobs.keys().isdisjoint(repeated)
    assert len(replica.jobs) == 3
    (batch,) = (batch for batch in journal.batches if batch.jobs)
    assert len(batch.jobs) == 3
    assert sum(isinstance(change, JobAccepted) for change in effects.left) == 3
    assert {row[COLUMNS.index("job_id")] for row in batch.rows}.isdisjoint(repeated)
    # The numbers go on where they were.
    await replica.submit(*submission(18), start=True)
    assert journal.batches[-1].stamps[2].seq == replica.stamps[2].seq
    replica.stop()
    await task


async def test_whoever_waits_for_a_job_to_be_durable_sees_it_so_though_more_happens_without_end(running, monkeypatch):
    replica, journal, _ = running
    _, live = submitted = submission(31)
    await replica.submit(*submitted, start=True)
    commit, commits = journal.commit, 0

    async def commit_slowly(batch):
        # While something becomes durable, the next thing happens.
        nonlocal commits
        commits += 1
        if commits < 1000:
            replica.report(
                live.header.id, PauseRequested() if live.run.state is JobState.RUNNING else ResumeRequested()
            )
        await asyncio.sleep(0)
        return await commit(batch)

    monkeypatch.setattr(journal, "commit", commit_slowly)
    journal.entered.clear()
    replica.report(live.header.id, PauseRequested())
    await journal.entered.wait()
    assert live.run.seq != live.committed_seq
    nothing: Any = None
    reads = JobReads(replica=replica, reader=nothing, waiting=nothing, estimates=nothing, clock=nothing)
    await reads.until_durable(live)
    assert live.run.seq == live.committed_seq
    assert commits < 10
