"""The window of work on a real NATS: what was paused, cancelled or given another priority leaves it at once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import nats as nats_client
import pytest

from pixloom.graph.plan import StageKind
from pixloom.queue import LANES, STREAM, consumer_name, declare_stream, subject
from pixloom.v1 import executor_pb2, op_pb2
from pixloom_scheduler import dispatch
from pixloom_scheduler.clock import DatabaseClock
from pixloom_scheduler.core.events import CancelRequested, Event, PauseRequested, UpdateRequested
from pixloom_scheduler.core.model import JobRun
from pixloom_scheduler.dispatch import Dispatcher
from pixloom_scheduler.executors import ExecutorRegistry, ExecutorSession
from pixloom_scheduler.inputs import InputReader, OutputCache
from pixloom_scheduler.journal.ownership import Owned
from pixloom_scheduler.live import LiveJob
from pixloom_scheduler.messages import MessageComposer
from pixloom_scheduler.outside import Outside
from pixloom_scheduler.replica import Replica
from pixloom_scheduler.resolver import Resolver
from pixloom_scheduler.timers import Timers
from pixloom_scheduler.traces import Traces
from tests.support.core_world import plan_of
from tests.unit.scheduler.test_replica import MemoryJournal, SteppingClock, submission

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nats.js import JetStreamContext

    from pixloom.local.nats import EmbeddedNats

COSTS = {"debug.noop@1": 1.0}
"""So slow that one task fills the window."""


class Told:
    """Notes what executors are told to end."""

    def __init__(self) -> None:
        self.cancels: list[tuple[str, bool]] = []

    def cancel_tasks(self, job_id: str, generation: int, stage: int | None, *, now: bool) -> None:
        assert (generation, stage) == (1, None)
        self.cancels.append((job_id, now))


class Window:
    """A replica that dispatches into a pool of its own, with one slot that never claims anything."""

    def __init__(
        self,
        js: JetStreamContext,
        messages: asyncio.Queue[executor_pb2.LeaseBatch],
        *,
        limits: dict[str, int] | None = None,
    ) -> None:
        self.pool = f"pool-{uuid.uuid4().hex[:8]}"
        self.messages = messages
        self.js = js
        self.told = Told()
        clock, journal, executors = DatabaseClock(), MemoryJournal(), ExecutorRegistry()
        self.clock = clock
        ops = [op_pb2.Op(name="debug.noop@1")]
        # Nothing is handed over to an executor without an open slot.
        hello = executor_pb2.Hello(executor_id="x", pools=[self.pool], slots=1, ops=ops, open_slots=0)
        executors.add(ExecutorSession(hello, asyncio.Queue(), start=0.0, last_seen=0.0))
        traces = Traces()
        rejects: Any = None  # nothing is retried
        outside = Outside(
            executors=executors, timers=Timers(clock), traces=traces, resolver=Resolver(), rejects=rejects
        )
        monotonic = SteppingClock()
        self.replica = Replica(
            journal=journal, loader=journal, clock=clock, effects=outside, costs=COSTS, lease_s=3.0, monotonic=monotonic
        )
        payloads: Any = None  # a source reads nothing
        inputs = InputReader(cache=OutputCache(), payloads=payloads)
        self.dispatcher = Dispatcher(
            js=js,
            replica=self.replica,
            executors=executors,
            composer=MessageComposer(
                inputs=inputs,
                traces=traces,
                clock=clock,
                address="a:1",
                epoch_of=lambda _: 1,
                read_columns=executors.read_columns,
            ),
            clock=clock,
            costs=COSTS,
            new_id=lambda: uuid.uuid4().hex,
            limits=limits,
        )
        sessions: Any = self.told
        outside.connect(replica=self.replica, dispatcher=self.dispatcher, sessions=sessions)
        self.replica.own([Owned(i, 1, 0) for i in range(16)], [], since=monotonic())
        self._numbers = itertools.count(1)

    async def submit(self, *, priority: int = 5, limits: dict[str, int] | None = None) -> str:
        new, live = submission(next(self._numbers))
        plan = plan_of([(StageKind.SOURCE, [])])
        plan = replace(plan, nodes=(replace(plan.nodes[0], limits=limits or {}),))
        plan = replace(plan, stages=(replace(plan.stages[0], pool=self.pool),))
        job_id: str = live.header.id
        run = JobRun.of(job_id, live.header.partition, plan, priority=priority)
        await self.replica.submit(new, LiveJob(live.header, run), start=True)
        return job_id

    async def pull(self) -> executor_pb2.LeaseBatch:
        """Pull a message as an executor does, and leave it at that."""
        lane = LANES[0]
        subscription = await self.js.pull_subscribe(subject(self.pool, lane), consumer_name(self.pool, lane), STREAM)
        (message,) = await subscription.fetch(1, timeout=60)
        return executor_pb2.LeaseBatch.FromString(message.data)

    async def settled(self) -> None:
        """Wait until nothing is under way that could lead to a message."""
        while working := self.dispatcher._working:
            await asyncio.wait(working)
        await self.js.publish(subject(self.pool, LANES[0]), b"")
        async with asyncio.timeout(60):
            assert (await self.messages.get()) == executor_pb2.LeaseBatch()

    async def published(self) -> tuple[str, int]:
        """Return job and number of tasks of the next message."""
        async with asyncio.timeout(60):
            message = await self.messages.get()
        return message.job_id, len(message.tasks)

    async def until_acknowledged(self) -> None:
        """Return once NATS has acknowledged everything that was published."""
        async with asyncio.timeout(60):
            while not all(offer.published for offer in self.dispatcher._offers.values()):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(url: str, *, limits: dict[str, int] | None = None) -> AsyncIterator[Window]:
    """Run a replica with its window until the end of the block."""
    connection = await nats_client.connect(url)
    messages: asyncio.Queue[executor_pb2.LeaseBatch] = asyncio.Queue()
    js = connection.jetstream()
    await declare_stream(js)
    made = Window(js, messages, limits=limits)

    async def take(message: Any) -> None:
        messages.put_nowait(executor_pb2.LeaseBatch.FromString(message.data))

    for lane in LANES:
        await connection.subscribe(subject(made.pool, lane), cb=take)
    tasks = [asyncio.create_task(made.replica.run()), asyncio.create_task(made.dispatcher.run())]
    try:
        yield made
        # Python 3.11 loses a cancellation that comes together with what is waited for, such as an acknowledgement.
        await made.until_acknowledged()
    finally:
        made.replica.stop()
        tasks[1].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)
        await connection.close()


@pytest.fixture(autouse=True)
def nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let dispatchers find nothing by themselves, which would hide that they were not told."""
    monkeypatch.setattr(dispatch, "LOOK_EVERY_S", 3600.0)


@pytest.fixture
async def window(nats: EmbeddedNats) -> AsyncIterator[Window]:
    async with running(nats.url) as made:
        yield made


@pytest.mark.parametrize(
    ("event", "now"),
    [
        (PauseRequested(), False),
        (PauseRequested(now=True), True),
        (CancelRequested("enough"), False),
        (CancelRequested("enough", now=True), True),
    ],
    ids=["pause", "pause now", "cancel", "cancel now"],
)
async def test_what_is_halted_makes_room_in_the_window_at_once(window: Window, event: Event, now: bool) -> None:  # noqa: FBT001
    first = await window.submit()
    assert await window.published() == (first, 1)
    second = await window.submit()
    assert window.messages.empty()  # the window is full
    await window.replica.command(first, event)
    assert await window.published() == (second, 1)
    assert window.told.cancels == [(first, now)]


async def test_another_priority_counts_at_once(window: Window) -> None:
    first, second = await window.submit(), await window.submit()
    assert await window.published() == (first, 1)
    # What waited to be claimed was chosen by the priority of before: the choice is made anew.
    await window.replica.command(second, UpdateRequested(priority=9))
    await window.replica.command(first, UpdateRequested(priority=0))
    assert await window.published() == (second, 1)


async def test_a_job_that_no_message_can_be_made_of_ends_and_others_are_dispatched(window: Window) -> None:
    # Documents of before may hold what is refused today.
    bad = await window.submit(limits={"max_frames": 1 << 40})
    good = await window.submit()
    assert await window.published() == (good, 1)
    live = window.replica.find(bad)
    assert live is not None
    while not live.run.state.is_terminal:
        await live.news.wait()
    assert live.run.state == "FAILED"
    assert live.run.failure is not None
    assert live.run.failure[0] == "INTERNAL"


async def test_what_was_pulled_by_an_executor_that_is_gone_is_offered_again_at_once(window: Window) -> None:
    job_id = await window.submit()
    assert await window.published() == (job_id, 1)
    pulled = await window.pull()
    assert pulled.job_id == job_id
    await window.settled()
    window.dispatcher.executor_lost([window.pool], since=window.clock.now())
    async with asyncio.timeout(60):
        again = await window.messages.get()
    assert again.tasks == pulled.tasks
    assert again.dispatch_id != pulled.dispatch_id


async def test_what_an_executor_that_is_gone_cannot_have_stays_offered(window: Window) -> None:
    job_id = await window.submit()
    assert await window.published() == (job_id, 1)
    await window.settled()
    published = window.clock.now()
    # Nobody has pulled it.
    window.dispatcher.executor_lost([window.pool], since=published)
    await window.settled()
    # It was published when the executor was gone; the executor was of another pool.
    await window.pull()
    window.dispatcher.executor_lost([window.pool], since=published - 60.0)
    window.dispatcher.executor_lost(["another"], since=window.clock.now())
    await window.settled()
    assert window.messages.empty()


@pytest.mark.parametrize("name", ["op.debug.noop", "jobs"])
async def test_another_share_of_a_limit_counts_at_once(
    nats: EmbeddedNats, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(dispatch, "WINDOW_S", 3600.0)
    async with running(nats.url, limits={name: 5}) as window:
        window.dispatcher.divide_limits(1, 3)
        jobs = [await window.submit() for _ in range(7)]
        # Several publishers are at work, so messages may come in another order.
        assert {await window.published() for _ in range(2)} == {(job, 1) for job in jobs[:2]}
        assert window.messages.empty()
        window.dispatcher.divide_limits(0, 1)
        assert {await window.published() for _ in range(3)} == {(job, 1) for job in jobs[2:5]}
        # The share of before counts what was offered meanwhile.
        window.dispatcher.divide_limits(1, 3)
        for job in jobs[:3]:
            await window.replica.command(job, CancelRequested("enough"))
        assert window.messages.empty()
        await window.replica.command(jobs[3], CancelRequested("enough"))
        assert await window.published() == (jobs[5], 1)
