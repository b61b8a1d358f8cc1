"""What is handed over and cannot be read gives nothing away."""

from __future__ import annotations

import asyncio
import uuid
from types import SimpleNamespace
from typing import Any

import pytest

from pixloom.graph.plan import StageKind
from pixloom.v1 import executor_pb2 as pb
from pixloom_scheduler.core.apply import apply
from pixloom_scheduler.core.changes import AttemptEnded, Cut
from pixloom_scheduler.core.states import Outcome
from pixloom_scheduler.executors import ExecutorRegistry, ExecutorSession
from pixloom_scheduler.grants import Grants
from pixloom_scheduler.rpc.session import ExecutorSessions
from pixloom_scheduler.tokens import TokenMint
from tests.support.live_jobs import live_job, offer
from tests.unit.scheduler.test_give_backs import Quiet
from tests.unit.scheduler.test_replica import SteppingClock, make

SHARDS = [0, 1, 2, 3]


@pytest.fixture
def handing() -> tuple[ExecutorSessions, ExecutorSession, ExecutorSession]:
    """Sessions with an executor that reads no columns and with one that does."""
    replica, _, _ = make(SteppingClock())
    quiet, registry = Quiet(), ExecutorRegistry()
    parts: Any = dict.fromkeys(("inputs", "outputs", "costs", "catalogue", "clock", "dispatcher", "takeovers"), quiet)
    mint = TokenMint(incarnation=uuid.uuid4(), key=b"k" * 32, nonce=lambda size: b"n" * size)
    partitions: Any = SimpleNamespace(is_elsewhere=lambda _: False)
    sessions = ExecutorSessions(
        replica=replica,
        executors=registry,
        grants=Grants(replica=replica, dispatcher=parts["dispatcher"], mint=mint, timers=parts["clock"], costs={}),
        partitions=partitions,
        timers=parts["clock"],
        incarnation="",
        **parts,
    )
    both = [
        ExecutorSession(
            pb.Hello(executor_id=name, slots=1, reads_columns=name == "new"), asyncio.Queue(), start=0.0, last_seen=0.0
        )
        for name in ("old", "new")
    ]
    for session in both:
        registry.add(session)
    return sessions, both[0], both[1]


def in_columns(job_id: str) -> pb.LeaseBatch:
    tasks = pb.OrdinaryTasks(shards=SHARDS, attempts=[1] * 4, places=[0] * 4, offsets=range(4), counts=[1] * 4)
    return pb.LeaseBatch(job_id=job_id, generation=1, stage=1, ordinary=tasks)


async def test_columns_for_an_executor_that_reads_none_give_nothing_away_and_run_elsewhere(
    handing: tuple[ExecutorSessions, ExecutorSession, ExecutorSession],
) -> None:
    sessions, old, new = handing
    live = live_job(1, [(StageKind.SOURCE, []), (StageKind.MAPPED, [0])], shard_size=1)
    page = AttemptEnded(
        stage=0, shard=0, attempt=1, outcome=Outcome.OK, executor="x", start=0.0, end=0.0, items_out=4,
        cuts=(Cut(stage=1, edge=0, items=4, size=1),), seals=True,
    )  # fmt: skip
    apply(live.run, [page])
    offer(live, 1, most=4)
    batch = in_columns(live.header.id)

    assert sessions.hand_over(old, live, batch) == 0
    assert old.outbox.empty()
    assert (old.holdings.leases, live.run.leases) == ({}, {})
    assert all(task.offered and not task.lease for task in live.run.stages[1].tasks.values())

    assert sessions.hand_over(new, live, batch) == 4
    message = new.outbox.get_nowait()
    assert message is not None
    assignment = message.assignment
    assert list(assignment.batch.ordinary.shards) == SHARDS
    assert list(new.holdings.leases) == [assignment.lease_token]
    (lease,) = live.run.leases.values()
    assert (lease.executor, lease.token, lease.tasks) == ("new", assignment.lease_token, dict.fromkeys(SHARDS, 1))
