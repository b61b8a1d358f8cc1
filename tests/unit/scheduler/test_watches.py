"""When a watcher is shown what."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from pixloom.graph.plan import StageKind
from pixloom.sdk.watching import NO_EVENTS
from pixloom.v1 import job_pb2
from pixloom_scheduler import watches
from pixloom_scheduler.core.events import CancelRequested
from pixloom_scheduler.watches import SNAPSHOT_EVERY_S, Watches
from tests.support.live_jobs import happen, live_job

if TYPE_CHECKING:
    import pytest

    from pixloom_scheduler.live import LiveJob

HANGING_S = 60

SHAPE: list[tuple[StageKind, list[int]]] = [(StageKind.WHOLE, [])]


class Reads:
    """Shows the number of the latest row as that of the job."""

    def __init__(self, live: LiveJob) -> None:
        self.live = live

    async def durable(self, _job_id: str) -> LiveJob:
        return self.live

    async def until_durable(self, live: LiveJob) -> None:
        while live.run.seq != live.committed_seq:
            await live.news.wait()

    def snapshot(self, live: LiveJob) -> job_pb2.JobSnapshot:
        return job_pb2.JobSnapshot(job=job_pb2.Job(id=live.header.id, seq=live.run.seq))


def commit(live: LiveJob) -> None:
    """Let everything of a job become durable and be told."""
    for seq in range(live.committed_seq + 1, live.run.seq + 1):
        live.events.append(job_pb2.JobEvent(seq=seq))
    live.committed_seq = live.run.seq
    live.announce()


def watching(live: LiveJob) -> Watches:
    nothing = cast("Any", None)
    return Watches(reads=cast("Any", Reads(live)), reader=nothing, clock=nothing)


def watch(live: LiveJob, *, after: int = 0) -> Any:
    return watching(live).watch(live.header.id, after)


def never_shown_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a job without news not be shown again: whatever is shown is shown as there is news."""
    monkeypatch.setattr(watches, "REFRESH_S", 3600.0)


async def next_snapshot(updates: Any) -> job_pb2.JobSnapshot:
    while True:
        update = await anext(updates)
        if update.HasField("snapshot"):
            return cast("job_pb2.JobSnapshot", update.snapshot)


async def test_what_happens_right_after_a_snapshot_is_shown_by_the_next_though_nothing_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    never_shown_again(monkeypatch)
    live = live_job(1, SHAPE)
    commit(live)
    updates = watch(live)
    async with asyncio.timeout(HANGING_S):
        before = await next_snapshot(updates)
        live.run.seq += 1
        commit(live)
        after = await next_snapshot(updates)
    assert (before.job.seq, after.job.seq) == (live.run.seq - 1, live.run.seq)


async def test_a_job_without_news_is_shown_again_after_a_while() -> None:
    live = live_job(1, SHAPE)
    commit(live)
    updates = watch(live)
    async with asyncio.timeout(HANGING_S):
        assert (await next_snapshot(updates)).job.seq == (await next_snapshot(updates)).job.seq


async def test_who_wants_no_events_is_shown_snapshots_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    never_shown_again(monkeypatch)
    live = live_job(1, SHAPE)
    commit(live)
    updates = watch(live, after=NO_EVENTS)
    happen(live, CancelRequested("enough", now=True))
    commit(live)
    async with asyncio.timeout(HANGING_S):
        seen = [update.WhichOneof("update") async for update in updates]
    assert len(live.events) > 1
    assert set(seen) == {"snapshot"}


async def test_an_end_is_not_shown_before_it_is_durable_and_the_loop_goes_on_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    never_shown_again(monkeypatch)
    live = live_job(1, SHAPE)
    commit(live)
    updates = watch(live)
    await next_snapshot(updates)
    happen(live, CancelRequested("enough", now=True))
    assert live.run.state.is_terminal
    waiting = asyncio.ensure_future(next_snapshot(updates))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    commit(live)
    async with asyncio.timeout(HANGING_S):
        assert (await waiting).job.seq == live.run.seq


async def test_who_waits_for_an_end_waits_until_it_is_durable() -> None:
    live = live_job(1, SHAPE)
    commit(live)
    waiting = asyncio.ensure_future(watching(live).until_ended(live, wait_s=60))
    happen(live, CancelRequested("enough", now=True))
    live.announce()
    await asyncio.sleep(0.1)
    assert not waiting.done()
    commit(live)
    async with asyncio.timeout(60):
        await waiting


async def test_who_waits_for_an_end_is_told_when_the_job_went_elsewhere_or_the_time_is_up() -> None:
    live = live_job(1, SHAPE)
    commit(live)
    waiting = asyncio.ensure_future(watching(live).until_ended(live, wait_s=60))
    await asyncio.sleep(0)
    live.is_gone = True
    live.announce()
    other = live_job(2, SHAPE)
    async with asyncio.timeout(60):
        await waiting
        await watching(other).until_ended(other, wait_s=0.01)


async def test_a_snapshot_shows_nothing_that_is_not_durable() -> None:
    live = live_job(1, SHAPE)
    commit(live)
    updates = watch(live)
    before = await next_snapshot(updates)
    live.run.seq += 1
    waiting = asyncio.ensure_future(next_snapshot(updates))
    # Long enough for the next snapshot to be due.
    await asyncio.wait({waiting}, timeout=2 * SNAPSHOT_EVERY_S)
    assert not waiting.done()
    commit(live)
    async with asyncio.timeout(1):
        assert (await waiting).job.seq == before.job.seq + 1
