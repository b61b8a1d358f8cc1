"""Keeps a small window of ready work of each pool on NATS.

Work is offered only while less than about 50 ms of it for each slot waits to be claimed, so that a job with a million
items never stands in the way of a small one, and pause, cancel and priority act at once. A message carries several
tasks of one stage: about 25 ms of expected work in the lane `now`; more in the lane `bulk` while there is much to do,
as executors let what comes by `now` go ahead after the task they are on (ADR 13).

Tasks are chosen when everything in memory is durable (`fill`), right after a commit; composing and publishing the
message then takes its time. A dispatch that can no longer be claimed (the stream was wiped, the message is behind the
consumer's acknowledgements, five minutes have passed) is offered again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import nats.errors
import nats.js.errors
import structlog

from pixloom.queue import LANES, STREAM, consumer_name, declare_consumers, declare_stream, subject
from pixloom_scheduler.core.changes import (
    AttemptEnded,
    Change,
    JobStarted,
    LeaseDropped,
    NodeReleased,
    ResumeAccepted,
    StageReleased,
    TasksGivenUp,
    TasksOffered,
    TasksReadied,
)
from pixloom_scheduler.core.events import DispatchFilled, DispatchVanished
from pixloom_scheduler.core.states import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from nats.js import JetStreamContext

    from pixloom_scheduler.clock import DatabaseClock
    from pixloom_scheduler.executors import ExecutorRegistry
    from pixloom_scheduler.live import LiveJob
    from pixloom_scheduler.messages import MessageComposer
    from pixloom_scheduler.replica import Replica

__all__ = ["Dispatcher"]

WINDOW_S: Final = 0.05
BATCH_S: Final = 0.025
LONG_BATCH_S: Final = 0.4
BATCHES_LEFT: Final = 8
"""Batches a slot that the ready work of a stage is cut into: long ones while there is much, short ones at its end."""
MAX_BATCH_TASKS: Final = 512
URGENT_PRIORITY: Final = 7
LOOK_EVERY_S: Final = 10.0
FORGET_AFTER_S: Final = 300.0
PUBLISHERS: Final = 4
PUBLISH_TIMEOUT_S: Final = 2.0


@dataclass(slots=True)
class _Offer:
    """A dispatch that nobody has claimed.

    Attributes:
        live: Its job.
        stage: Its stage.
        generation: Generation of the job.
        shards: Its tasks.
        pool: Its pool.
        lane: Its lane.
        expected_s: Expected work.
        published: When it was published, seconds; 0 while it is not.
        seq: Its place in the stream; 0 while it is not published.
    """

    live: LiveJob
    stage: int
    generation: int
    shards: tuple[int, ...]
    pool: str
    lane: str
    expected_s: float
    published: float = 0.0
    seq: int = 0


class Dispatcher:
    """Chooses, composes and publishes."""

    def __init__(
        self,
        *,
        js: JetStreamContext,
        replica: Replica,
        executors: ExecutorRegistry,
        composer: MessageComposer,
        clock: DatabaseClock,
        costs: dict[str, float],
        new_id: Callable[[], str],
    ) -> None:
        self._js = js
        self._replica = replica
        self._executors = executors
        self._composer = composer
        self._clock = clock
        self._costs = costs
        self._new_id = new_id
        self._ready: dict[str, dict[str, set[int]]] = {}
        self._offers: dict[str, _Offer] = {}
        self._offered_s: dict[tuple[str, str], float] = {}
        self._outbox: deque[str] = deque()
        self._has_outbox = asyncio.Event()
        self._declared: set[str] = set()
        self._held: set[str] = set()
        self._stream_created: datetime | None = None
        self._log = structlog.get_logger("dispatch")

    # -- What is ready --------------------------------------------------------------------------------------------

    def note(self, live: LiveJob, changes: Iterable[Change]) -> None:
        """Take in which stages may have become ready."""
        for change in changes:
            match change:
                case AttemptEnded():
                    if not change.ends_shard or change.split is not None or change.cursor is not None:
                        self._mark(live, change.stage)
                    for cut in change.cuts:
                        self._mark(live, cut.stage)
                case StageReleased() | NodeReleased() | TasksReadied():
                    self._mark(live, change.stage)
                case JobStarted() | ResumeAccepted() | LeaseDropped() | TasksGivenUp():
                    self.note_all(live)
                case _:
                    pass

    def note_all(self, live: LiveJob) -> None:
        """Take in that any stage of a job may be ready."""
        for stage in live.run.stages:
            if stage.has_ready:
                self._mark(live, stage.plan.index)

    def _mark(self, live: LiveJob, stage: int) -> None:
        pool = live.run.stages[stage].plan.pool
        self._ready.setdefault(pool, {}).setdefault(live.header.id, set()).add(stage)

    # -- Choosing -------------------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Offer what the windows have room for; only while memory and database agree."""
        if self._replica.is_committing or not self._replica.is_inside_lease:
            return
        for pool, jobs in self._ready.items():
            slots = self._executors.slots(pool)
            while jobs and slots:
                live = self._next_job(jobs)
                if live is None or not self._offer_from(live, jobs, pool, slots):
                    break

    def hold(self, jobs: Iterable[str]) -> None:
        """Offer nothing of jobs until `release`: executors may still hold tasks of theirs and are about to say so."""
        self._held.update(jobs)

    def release(self) -> None:
        """Offer again what was held."""
        self._held.clear()
        self.fill()

    def _next_job(self, jobs: dict[str, set[int]]) -> LiveJob | None:
        """Return the job whose turn it is: highest priority, then the least work under way, then the oldest."""
        best: LiveJob | None = None
        best_key: tuple[int, int, str] | None = None
        for job_id in list(jobs):
            live = self._replica.find(job_id)
            if live is None or live.run.state.is_terminal:
                del jobs[job_id]
                continue
            if live.run.state is not JobState.RUNNING or job_id in self._held:
                continue
            key = (-live.run.priority, sum(live.run.stages[stage].active for stage in jobs[job_id]), job_id)
            if best_key is None or key < best_key:
                best, best_key = live, key
        return best

    def _offer_from(self, live: LiveJob, jobs: dict[str, set[int]], pool: str, slots: int) -> bool:
        """Offer one batch of a job, if it has one after all; False if the window has no room for it."""
        stages = jobs[live.header.id]
        # The stage nearest to the end goes first: finished items leave, intermediate ones do not pile up.
        index = max(stages)
        run = live.run
        stage = run.stages[index]
        is_first = stage.done == 0 and stage.active == 0
        lane = LANES[0] if is_first or run.priority >= URGENT_PRIORITY else LANES[1]
        if self._offered_s.get((pool, lane), 0.0) >= WINDOW_S * slots:
            return False
        item_s = sum(self._costs.get(run.plan.nodes[node].op, run.plan.nodes[node].cost_s) for node in stage.plan.nodes)
        items = stage.shards.items_of(stage.cursor) if stage.cursor < len(stage.shards) else 1
        task_s = max(item_s * max(items, 1), 1e-6)
        backlog_s = (len(stage.shards) - stage.cursor + len(stage.ready)) * task_s
        batch_s = BATCH_S
        if lane != LANES[0]:
            batch_s = min(max(backlog_s / (BATCHES_LEFT * slots), BATCH_S), LONG_BATCH_S)
        most = max(1, min(MAX_BATCH_TASKS, int(batch_s / task_s)))
        changes = self._replica.handle_now(live, DispatchFilled(stage=index, most=most))
        shards = tuple(shard for change in changes if isinstance(change, TasksOffered) for shard in change.shards)
        if not stage.has_ready:
            stages.discard(index)
            if not stages:
                del jobs[live.header.id]
        if not shards:
            stages.discard(index)
            if not stages:
                jobs.pop(live.header.id, None)
            return True
        offer = _Offer(live, index, run.generation, shards, pool, lane, min(task_s * len(shards), 1.0))
        dispatch_id = self._new_id()
        self._offers[dispatch_id] = offer
        self._offered_s[pool, lane] = self._offered_s.get((pool, lane), 0.0) + offer.expected_s
        self._outbox.append(dispatch_id)
        self._has_outbox.set()
        return True

    def claimed(self, dispatch_id: str, granted: int) -> None:
        """Take in that somebody came for a dispatch and got `granted` of its tasks: room for the next one."""
        offer = self._offers.get(dispatch_id)
        if offer is not None and granted < len(offer.shards):
            # The message is used up: what was refused, as the job was paused, would be offered by nothing.
            self._withdraw(dispatch_id)
        else:
            self._forget(dispatch_id)
        self.fill()

    def withdraw_job(self, job_id: str) -> None:
        """Take what waits to be claimed of a job out of the windows; its messages come to nothing or to a grant."""
        for dispatch_id in [key for key, offer in self._offers.items() if offer.live.header.id == job_id]:
            self._withdraw(dispatch_id)

    def _forget(self, dispatch_id: str) -> _Offer | None:
        offer = self._offers.pop(dispatch_id, None)
        if offer is not None:
            left = self._offered_s[offer.pool, offer.lane] - offer.expected_s
            self._offered_s[offer.pool, offer.lane] = left if left > 1e-9 else 0.0
        return offer

    def _withdraw(self, dispatch_id: str) -> None:
        """Make the tasks of a dispatch ready again."""
        offer = self._forget(dispatch_id)
        if offer is None or offer.live.run.generation != offer.generation:
            return
        self._replica.handle_now(offer.live, DispatchVanished(stage=offer.stage, shards=offer.shards))
        self._mark(offer.live, offer.stage)

    # -- Publishing -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Publish, and look after what was published, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(PUBLISHERS):
                tasks.create_task(self._publish_forever())
            tasks.create_task(self._look_forever())

    async def _publish_forever(self) -> None:
        delay = 0.05
        while True:
            while not self._outbox:
                self._has_outbox.clear()
                await self._has_outbox.wait()
            dispatch_id = self._outbox.popleft()
            offer = self._offers.get(dispatch_id)
            if offer is None:
                continue
            try:
                await self._publish(dispatch_id, offer)
                delay = 0.05
            except (nats.errors.Error, OSError, TimeoutError) as error:
                self._log.warning("publish_failed", error=type(error).__name__, dispatch=dispatch_id)
                self._declared.clear()
                self._withdraw(dispatch_id)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 1.0)
                self.fill()

    async def _publish(self, dispatch_id: str, offer: _Offer) -> None:
        message, headers = await self._composer.compose(offer.live, offer.stage, offer.shards, dispatch_id=dispatch_id)
        if offer.pool not in self._declared:
            await self._declare_stream()
            await declare_consumers(self._js, offer.pool)
            self._declared.add(offer.pool)
        ack = await self._js.publish(
            subject(offer.pool, offer.lane),
            message,
            timeout=PUBLISH_TIMEOUT_S,
            headers={**headers, "Nats-Msg-Id": dispatch_id},
        )
        offer.published, offer.seq = self._clock.now(), ack.seq

    async def _look_forever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.look()
            except (nats.errors.Error, OSError, TimeoutError) as error:
                self._log.warning("look_failed", error=type(error).__name__)

    async def look(self) -> None:
        """Offer again what can no longer be claimed."""
        now = self._clock.now()
        old = [
            (dispatch_id, offer)
            for dispatch_id, offer in self._offers.items()
            if offer.published and now - offer.published > LOOK_EVERY_S
        ]
        for dispatch_id, offer in old:
            if offer.live.run.state.is_terminal or now - offer.published > FORGET_AFTER_S:
                self._withdraw(dispatch_id)
        lanes = {(offer.pool, offer.lane) for _, offer in old}
        for pool, lane in sorted(lanes):
            try:
                info = await self._js.consumer_info(STREAM, consumer_name(pool, lane))
                floor = info.ack_floor.stream_seq if info.ack_floor is not None else 0
                last = (await self._js.stream_info(STREAM)).state.last_seq
            except nats.js.errors.NotFoundError:
                self._declared.clear()
                floor, last = 0, 0
            for dispatch_id, offer in old:
                if (offer.pool, offer.lane) == (pool, lane) and (offer.seq <= floor or offer.seq > last):
                    self._withdraw(dispatch_id)
        self.fill()

    async def reconnected(self) -> None:
        """Declare the stream again if NATS came back without it, and offer again what it forgot."""
        try:
            await self._declare_stream()
            self.fill()
        except (nats.errors.Error, OSError, TimeoutError) as error:
            self._log.warning("declare_failed", error=type(error).__name__)

    async def _declare_stream(self) -> None:
        """Create the stream if it is missing; if it is not the one of before, offer again what that one held."""
        await declare_stream(self._js)
        # An executor may have been faster in creating it, so only the time of its creation tells that it is new.
        created = (await self._js.stream_info(STREAM)).created
        if created == self._stream_created:
            return
        known, self._stream_created = self._stream_created is not None, created
        if known:
            self._declared.clear()
            for dispatch_id in list(self._offers):
                self._withdraw(dispatch_id)
