"""What an executor hands back of a job that its new owner is still loading is not leased to it afterwards."""

from __future__ import annotations

import asyncio
import uuid
from types import SimpleNamespace
from typing import Any

from pixloom.graph.plan import StageKind
from pixloom.v1 import executor_pb2 as pb
from pixloom_scheduler.executors import ExecutorRegistry, ExecutorSession
from pixloom_scheduler.grants import Grants
from pixloom_scheduler.journal.loader import LoadedJob
from pixloom_scheduler.journal.ownership import Owned
from pixloom_scheduler.loading import Loading
from pixloom_scheduler.rpc.session import ExecutorSessions
from pixloom_scheduler.tokens import TokenMint
from tests.support.live_jobs import live_job
from tests.unit.scheduler.test_loading import Takeovers
from tests.unit.scheduler.test_replica import SteppingClock, make


class OneJob:
    """The database: one unfinished job, read when it is told to."""

    def __init__(self):
        self.live = live_job(1, [(StageKind.WHOLE, [])])
        self.read = asyncio.Event()

    async def pending(self, partitions):
        return [self.live.header.id]

    async def load(self, job_id):
        await self.read.wait()
        return LoadedJob(self.live.header, self.live.run)


class Quiet:
    """Whoever else is told."""

    def __getattr__(self, name):
        return lambda *_, **__: None


async def test_what_is_handed_back_while_its_job_is_loaded_is_not_leased_afterwards():
    replica, _, _ = make(SteppingClock())
    running = asyncio.create_task(replica.run())
    jobs, quiet, registry = OneJob(), Quiet(), ExecutorRegistry()
    loading = Loading(replica=replica, jobs=jobs, takeovers=Takeovers())
    mint = TokenMint(incarnation=uuid.uuid4(), key=b"k" * 32, nonce=lambda size: b"n" * size)
    partitions: Any = SimpleNamespace(loading=loading, is_elsewhere=lambda _: False)
    parts: Any = dict.fromkeys(("inputs", "outputs", "costs", "catalogue", "clock", "dispatcher", "takeovers"), quiet)
    sessions = ExecutorSessions(
        replica=replica,
        executors=registry,
        grants=Grants(replica=replica, dispatcher=parts["dispatcher"], mint=mint, timers=parts["clock"], costs={}),
        partitions=partitions,
        timers=parts["clock"],
        incarnation="",
        **parts,
    )
    session = ExecutorSession(pb.Hello(executor_id="x", slots=1), asyncio.Queue(), start=0.0, last_seen=0.0)
    registry.add(session)
    job_id = jobs.live.header.id
    token = mint.mint(job=job_id, generation=1, stage=0, tasks=((0, 1),), executor="x")
    tasks = [pb.TaskKey(shard=0, attempt=1)]
    lease = pb.Lease(lease_token=token, job_id=job_id, generation=1, stage=0, tasks=tasks, held=[0])

    loading.begin([Owned(0, 1, 0)])
    sessions._take(session, pb.SessionRequest(announce=pb.Announce(leases=[lease])))
    given = pb.GiveBack(lease_token=token, job_id=job_id, generation=1, stage=0, shards=[0])
    sessions._take(session, pb.SessionRequest(give_back=given))
    assert session.holdings.leases == {}
    jobs.read.set()
    await loading.loaded(job_id)
    assert (jobs.live.run.leases, session.holdings.leases) == ({}, {})
    assert jobs.live.run.stages[0].has_ready

    # Were it not handed back, it would go on where it is.
    sessions._take(session, pb.SessionRequest(announce=pb.Announce(leases=[lease])))
    assert list(session.holdings.leases) == [token]
    await loading.close()
    replica.stop()
    await running
