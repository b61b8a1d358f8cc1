"""Jobs of a partition just taken: the small ones are served while a big one is still to come."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from pixloom.errors import UnavailableError
from pixloom.graph.plan import StageKind
from pixloom_scheduler import loading
from pixloom_scheduler.core.apply import apply
from pixloom_scheduler.core.changes import JobAccepted
from pixloom_scheduler.core.events import StartRequested
from pixloom_scheduler.core.model import JobRun
from pixloom_scheduler.core.states import JobState
from pixloom_scheduler.job import JobHeader
from pixloom_scheduler.journal.loader import LoadedJob
from pixloom_scheduler.journal.ownership import Owned
from pixloom_scheduler.loading import Loading
from tests.support.core_world import plan_of
from tests.unit.scheduler.test_replica import SteppingClock, make

SMALL, BIG, BROKEN = (f"{number:030x}01" for number in (1, 2, 3))


def job(job_id):
    now = datetime.now(UTC)
    header = JobHeader(
        id=job_id, partition=1, project="default", day=now.date(), name="j", workflow="w", version=0, sha256="",
        params_json=b"{}", metadata_json=b"{}", create_time=now,
    )  # fmt: skip
    run = JobRun.of(job_id, 1, plan_of([(StageKind.SOURCE, [])]))
    apply(run, [JobAccepted()])
    return LoadedJob(header, run)


class Jobs:
    """Gives jobs; the big one when it is told to."""

    def __init__(self, *pending):
        self.listed = asyncio.Event()
        self.read = asyncio.Event()
        self.outages = 0
        self._pending = list(pending)

    async def pending(self, partitions):
        assert partitions == [1]
        await self.listed.wait()
        if self.outages:
            self.outages -= 1
            raise UnavailableError("away")
        return self._pending

    async def load(self, job_id):
        if job_id == BIG:
            await self.read.wait()
        if job_id == BROKEN:
            raise ValueError("nobody can read this")
        return job(job_id)


class Takeovers:
    """Notes what was admitted."""

    def __init__(self):
        self.admitted = []
        self.finished = []

    def began(self, owned):
        pass

    def admits(self, job_id):
        self.admitted.append(job_id)

    def heard(self, job_id):
        self.finished.append(job_id)


@pytest.fixture
async def begin():
    """Begin to load jobs of partition 1 into a replica that runs."""
    replica, _, _ = make(SteppingClock())
    task = asyncio.create_task(replica.run())
    made = []

    def start(jobs):
        takeovers = Takeovers()
        made.append(Loading(replica=replica, jobs=jobs, takeovers=takeovers))
        made[0].begin([Owned(1, 1, 0)])
        return replica, made[0], takeovers

    yield start
    await made[0].close()
    replica.stop()
    await task


async def test_small_jobs_are_served_while_a_big_one_is_read(begin):
    jobs = Jobs(SMALL, BIG)
    jobs.listed.set()
    replica, loads, takeovers = begin(jobs)
    await loads.loaded(SMALL)
    await replica.command(SMALL, StartRequested())
    assert replica.find(SMALL).run.state is JobState.RUNNING
    assert loads.is_loading(BIG)
    waiting = asyncio.create_task(loads.loaded(BIG))
    await asyncio.sleep(0)
    assert not waiting.done()
    jobs.read.set()
    await waiting
    await replica.command(BIG, StartRequested())
    assert takeovers.admitted == takeovers.finished == [SMALL, BIG]


async def test_what_is_said_of_a_job_that_is_still_to_come_is_heard_afterwards_in_its_order(begin):
    jobs = Jobs(SMALL, BIG)
    replica, loads, _ = begin(jobs)
    heard = []
    # Until the jobs are known, any may be one of them; this one turns out not to be.
    strange = f"{9:030x}01"
    for job_id, word in ((BIG, "first"), (strange, "strange"), (BIG, "second")):
        assert loads.is_loading(job_id)
        loads.when_loaded(job_id, lambda word=word, job_id=job_id: heard.append((word, replica.find(job_id) is None)))
    jobs.listed.set()
    await loads.loaded(strange)
    assert heard == [("strange", True)]
    jobs.read.set()
    await loads.loaded(BIG)
    assert heard[1:] == [("first", False), ("second", False)]


async def test_a_job_that_nobody_can_read_is_left_alone(begin):
    jobs = Jobs(BROKEN, SMALL)
    jobs.listed.set()
    replica, loads, _ = begin(jobs)
    await loads.loaded(SMALL)
    assert replica.find(BROKEN) is None
    assert not loads.is_loading(BROKEN)


async def test_a_database_that_is_away_is_asked_again(begin):
    jobs = Jobs(SMALL)
    jobs.outages = 2
    jobs.listed.set()
    replica, loads, _ = begin(jobs)
    await loads.loaded(SMALL)
    assert replica.find(SMALL) is not None


async def test_whoever_waits_too_long_is_told_to_try_again(begin, monkeypatch):
    monkeypatch.setattr(loading, "LOAD_WAIT_S", 0.05)
    _, loads, _ = begin(Jobs(SMALL))
    with pytest.raises(UnavailableError, match="still being loaded"):
        await loads.loaded(SMALL)


async def test_who_waits_is_answered_when_the_partition_is_lost_meanwhile(begin):
    jobs = Jobs(BIG)
    jobs.listed.set()
    replica, loads, takeovers = begin(jobs)
    waiting = asyncio.create_task(loads.loaded(BIG))
    await asyncio.sleep(0)
    replica._drop(frozenset({1}))
    jobs.read.set()
    await waiting
    assert takeovers.admitted == []
    assert replica.find(BIG) is None
