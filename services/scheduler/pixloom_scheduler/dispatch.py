"""Gives ready work to executors: what is urgent by handing it over, the rest through a small window on NATS.

Urgent is the first batch of each stage, and what has a high priority: about 25 ms of expected work. It goes straight to
an executor in session that has room for it, granted already (ADR 16). Where no executor in session can take any, it is
offered in the lane `now` on NATS; everything else in the lane `bulk`, with more in a batch while there is much to do, as
executors let what is urgent go ahead after the task they are on (ADR 15).

Work is offered only while less than about 50 ms of it for each slot waits to be claimed, so that a job with a million
items never stands in the way of a small one, and pause, cancel and priority act at once.

Whose turn it is, `turns` tells; what people limit, `limits`. Both are kept up to date by `note`, from the changes of each
commit, so that a step never looks at all jobs.

Tasks are chosen when everything in memory is durable (`fill`), right after a commit; composing and sending the message
then takes its time. A dispatch that can no longer be claimed (the stream was wiped, the message is behind the
consumer's acknowledgements, five minutes have passed) is offered again, and so is one that may have gone with the
executor that had pulled it: NATS would wait for its acknowledgement for seconds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

import nats.errors
import structlog

from pixloom.errors import UnavailableError
from pixloom.queue import LANES
from pixloom_scheduler.core.changes import (
    AttemptEnded,
    Change,
    JobStarted,
    LeaseDropped,
    NodeEnded,
    NodeReleased,
    ResumeAccepted,
    StageReleased,
    TasksGivenUp,
    TasksOffered,
    TasksReadied,
)
from pixloom_scheduler.core.events import CancelRequested, DispatchFilled, DispatchVanished
from pixloom_scheduler.core.states import JobState
from pixloom_scheduler.executors import BATCH_OVERHEAD_S
from pixloom_scheduler.limits import Admission, Concurrency
from pixloom_scheduler.lookout import LOOK_EVERY_S, Lookout
from pixloom_scheduler.offers import Offer, OfferBook
from pixloom_scheduler.siblings import MOST_AT_ONCE, MOST_SIBLINGS, SIBLINGS_S, are_siblings, may_have_siblings
from pixloom_scheduler.task_stream import TaskStream
from pixloom_scheduler.turns import Turns, task_s

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Coroutine, Iterable, Mapping
    from typing import Any

    from nats.js import JetStreamContext

    from pixloom.v1 import executor_pb2
    from pixloom_scheduler.clock import DatabaseClock
    from pixloom_scheduler.executors import ExecutorRegistry, ExecutorSession
    from pixloom_scheduler.live import LiveJob
    from pixloom_scheduler.messages import MessageComposer
    from pixloom_scheduler.offers import HandOver
    from pixloom_scheduler.replica import Replica

__all__ = ["Dispatcher"]

WINDOW_S: Final = 0.05
BATCH_S: Final = 0.025
LONG_BATCH_S: Final = 0.8
BATCHES_LEFT: Final = 8
"""Batches a slot that the ready work of a stage is cut into: long ones while there is much, short ones at its end."""
MAX_BATCH_TASKS: Final = 512
URGENT_PRIORITY: Final = 7
PUBLISHERS: Final = 4
RETRY_S: Final = 0.1


class Dispatcher:
    """Chooses, composes and publishes; `connect` ties it to who hands work over."""

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
        limits: Mapping[str, int] | None = None,
    ) -> None:
        self._tasks = TaskStream(js=js, clock=clock, on_new=self._stream_is_new)
        self._replica = replica
        self._executors = executors
        self._composer = composer
        self._clock = clock
        self._costs = costs
        self._new_id = new_id
        self.concurrency = Concurrency(limits or {})
        self.admission = Admission(limits or {})
        self.turns = Turns(costs=costs, limits_of=self.concurrency.names_of, find=replica.find)
        self._unserved: dict[str, tuple[LiveJob, set[int]]] = {}
        self._offers = OfferBook()
        self._lookout = Lookout(offers=self._offers, tasks=self._tasks, clock=clock, withdraw=self._withdraw)
        self._handed = 0
        self._working: set[asyncio.Task[None]] = set()
        self._outbox: deque[str] = deque()
        self._has_outbox = asyncio.Event()
        self._log = structlog.get_logger("dispatch")

    def connect(self, hand_over: HandOver) -> None:
        """Name who hands work over to executors in session."""
        self._hand_over = hand_over

    # -- What is ready --------------------------------------------------------------------------------------------

    def note(self, live: LiveJob, changes: Iterable[Change]) -> None:
        """Take in which stages may have become ready, and what is under way."""
        run = live.run
        ready: set[int] = set()
        touched: set[int] = set()
        everything = False
        for change in changes:
            match change:
                case AttemptEnded():
                    touched.add(change.stage)
                    if not change.ends_shard or change.split is not None or change.cursor is not None:
                        ready.add(change.stage)
                    for cut in change.cuts:
                        ready.add(cut.stage)
                case StageReleased() | NodeReleased():
                    ready.add(change.stage)
                case TasksReadied():
                    ready.add(change.stage)
                    touched.add(change.stage)
                case NodeEnded():
                    touched.add(run.nodes[change.node].plan.stage)
                case JobStarted() | ResumeAccepted() | LeaseDropped() | TasksGivenUp():
                    everything = True
                case _:
                    pass
        if run.state is not JobState.RUNNING:
            self._leave(run.id, leases=run.leases)
            return
        self.concurrency.settle(run.id, run.leases)
        if everything:
            self.note_all(live)
            return
        self.turns.weigh(live, touched)
        if self.admission.is_waiting(run.id):
            self.admission.admit(live)  # its priority may have changed
        if ready:
            self._mark(live, ready)

    def note_all(self, live: LiveJob) -> None:
        """Take in that any stage of a job may be ready."""
        self.turns.weigh(live, range(len(live.run.stages)))
        self._mark(live, range(len(live.run.stages)))

    def _mark(self, live: LiveJob, stages: Iterable[int]) -> None:
        if live.run.state is not JobState.RUNNING:
            return
        ready = []
        for stage in stages:
            if live.run.stages[stage].has_ready:
                if self._is_served(live, stage):
                    ready.append(stage)
                else:
                    self._park(live, stage)
        if ready and self.admission.admit(live):
            self.turns.mark(live, ready)

    def _is_served(self, live: LiveJob, stage: int) -> bool:
        return self._executors.offers(live.run.plan.stages[stage].pool, _ops(live, stage))

    def _park(self, live: LiveJob, stage: int) -> None:
        """Put a stage aside that nobody could run: offered, it would take the room of others in the window."""
        self._unserved.setdefault(live.run.id, (live, set()))[1].add(stage)

    def executors_changed(self) -> None:
        """Take in that an executor came, drains or went: other ops are served than before."""
        for dispatch_id, offer in list(self._offers.items()):
            if not self._is_served(offer.live, offer.stage):
                self._withdraw(dispatch_id)
        parked, self._unserved = self._unserved, {}
        for job_id, (live, stages) in parked.items():
            if self._replica.find(job_id) is live:
                self._mark(live, stages)
        self.fill()

    def _leave(self, job_id: str, *, leases: Container[int] = ()) -> None:
        """Take in that a job has ended, was paused or went elsewhere: others may begin in its place."""
        self.concurrency.settle(job_id, leases)
        self.turns.drop(job_id)
        self._unserved.pop(job_id, None)
        for admitted in self.admission.leave(job_id):
            self.note_all(admitted)

    def divide_limits(self, place: int, replicas: int) -> None:
        """Take the share of all limits that follows from this replica's place among those that may have jobs."""
        self.concurrency.divide(place, replicas)
        for admitted in self.admission.divide(place, replicas):
            self.note_all(admitted)
        self.fill()

    def leased(self, live: LiveJob, lease: int, stage: int) -> None:
        """Take in that an executor holds a batch."""
        self.concurrency.leased(live.run, lease, stage)

    def may_grant(self, live: LiveJob, stage: int, dispatch_id: str) -> bool:
        """Return whether limits allow that a dispatch is granted; one that was withdrawn has no room of its own."""
        if dispatch_id in self._offers or not 0 <= stage < len(live.run.stages):
            return True
        names = self.concurrency.names_of(live.run, stage)
        return self.concurrency.has_room(names) and not self.admission.is_waiting(live.run.id)

    # -- Choosing -------------------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Offer what the windows have room for; only while memory and database agree."""
        if self._replica.is_committing or not self._replica.is_inside_lease:
            return
        self._handed = 0
        for pool in self.turns.pools():
            slots = self._executors.slots(pool)
            while slots:
                if self._handed >= MOST_AT_ONCE:
                    asyncio.get_running_loop().call_soon(self.fill)
                    return
                turn = self.turns.next(pool, self._has_room)
                if turn is None or not self._offer_from(*turn, pool=pool, slots=slots):
                    break

    def _has_room(self, names: tuple[str, ...]) -> bool:
        """Return whether limits have room; after a takeover only once executors have said what they hold."""
        return not self.turns.is_holding and self.concurrency.has_room(names)

    def hold(self, jobs: Iterable[str]) -> None:
        """Offer nothing of jobs until `release`: executors may still hold tasks of theirs and are about to say so."""
        self.turns.hold(jobs)

    def release(self, jobs: Iterable[str]) -> None:
        """Offer again what was held."""
        self.turns.release(jobs)
        self.fill()

    def drop(self, jobs: Iterable[str]) -> None:
        """Forget jobs that belong to another replica now, with what was offered of them."""
        gone = frozenset(jobs)
        self.turns.release(gone)
        for dispatch_id in [number for number, offer in self._offers.items() if offer.live.header.id in gone]:
            self._forget(dispatch_id)
        for job_id in gone:
            self._leave(job_id)

    def executor_lost(self, pools: Iterable[str], *, since: float) -> None:
        """Offer again what an executor that is gone may have pulled and not claimed.

        Another one may have it as well: whoever claims it second is refused.

        Args:
            pools: The pools it served.
            since: When it was gone, seconds; later messages it has not got.
        """
        if lanes := self._lookout.pulled(pools, since=since):
            self._work(self._offer_pulled(lanes, since))

    async def _offer_pulled(self, lanes: list[tuple[str, str]], since: float) -> None:
        try:
            await self._lookout.withdraw_pulled(lanes, since=since)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            # They come again when the time for their acknowledgement is over.
            self._log.warning("pulled_not_offered", error=type(error).__name__)
        self.fill()

    def _work(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    def knows(self, live: LiveJob, stage: int) -> bool:
        """Return whether a ready stage will have its turn."""
        parked = self._unserved.get(live.run.id)
        return (
            self.turns.has(live.run.id, stage)
            or (parked is not None and stage in parked[1])
            or self.admission.is_waiting(live.run.id)
        )

    def _offer_from(self, live: LiveJob, index: int, *, pool: str, slots: int) -> bool:
        """Offer one batch of a stage, if it has one after all; False if the window has no room for it."""
        run = live.run
        stage = run.stages[index]
        is_first = stage.done == 0 and stage.active == 0
        lane = LANES[0] if is_first or run.priority >= URGENT_PRIORITY else LANES[1]
        ops = _ops(live, index)
        if not self._executors.offers(pool, ops):
            self.turns.unmark(live, index)
            self._park(live, index)
            return True
        session = None
        if lane == LANES[0]:
            now = self._clock.now()
            session = self._executors.with_room(pool, ops, now=now)
            if session is None and self._executors.is_brisk(pool, ops, now=now):
                # It has room in a moment, sooner than by NATS.
                return False
        if session is None and self._offers.offered_s(pool, lane) >= WINDOW_S * slots:
            return False
        seconds = task_s(run, index, self._costs)
        if session is not None and self._hand_siblings(session, live, index, most=int(SIBLINGS_S / seconds)):
            return True
        backlog_s = (len(stage.shards) - stage.cursor + len(stage.ready)) * seconds
        batch_s = BATCH_S
        if lane != LANES[0]:
            batch_s = min(max(backlog_s / (BATCHES_LEFT * slots), BATCH_S), LONG_BATCH_S)
        most = max(1, min(MAX_BATCH_TASKS, int(batch_s / seconds)))
        changes = self._replica.handle_now(live, DispatchFilled(stage=index, most=most))
        shards = tuple(shard for change in changes if isinstance(change, TasksOffered) for shard in change.shards)
        if not shards or not stage.has_ready:
            self.turns.unmark(live, index)
        if not shards:
            return True
        self.turns.weigh(live, (index,))
        names = self.concurrency.names_of(run, index)
        offer = Offer(live, index, run.generation, shards, pool, lane, min(seconds * len(shards), 1.0), names)
        dispatch_id = self._new_id()
        self.concurrency.take(names)
        if session is not None:
            offer.session = session
            offer.expected_s += BATCH_OVERHEAD_S
            self._offers.add(dispatch_id, offer)
            self._work(self._hand(dispatch_id, offer))
        else:
            self._offers.add(dispatch_id, offer)
            self._outbox.append(dispatch_id)
            self._has_outbox.set()
        return True

    def _hand_siblings(self, session: ExecutorSession, live: LiveJob, index: int, *, most: int) -> bool:
        """Hand a stage over together with others that are like it; False if there are none, or it cannot be."""
        run = live.run
        goes_alone = most < 2 or not session.hello.reads_siblings or self.concurrency.names_of(run, index)
        if goes_alone or not may_have_siblings(run, index):
            return False
        stages = self.turns.take_while(
            live,
            index,
            lambda other: may_have_siblings(run, other) and are_siblings(run, index, other),
            most=min(most, MOST_SIBLINGS),
        )
        handed = 0
        if len(stages) > 1:
            try:
                batch = self._composer.compose_siblings(live, stages, dispatch_id=self._new_id())
            except Exception:  # noqa: BLE001 # alone, the one that cannot be told of ends its job
                self._log.exception("siblings_not_composed", job=run.id, stages=stages)
            else:
                handed = self._hand_over(session, live, batch)
        if handed:
            self._handed += handed
            self.turns.weigh(live, stages)
        if handed < len(stages):
            self._mark(live, stages)
        return bool(handed)

    async def _hand(self, dispatch_id: str, offer: Offer) -> None:
        """Hand an offer over; what the executor does not get is offered again."""
        session = offer.session
        batch = await self._composed(dispatch_id, offer)
        if batch is None or session is None or self._offers.get(dispatch_id) is not offer:
            return
        granted = self._hand_over(session, offer.live, batch)
        if granted < len(offer.shards):
            self._withdraw(dispatch_id)
            self.fill()
        else:
            self._forget(dispatch_id)

    async def _composed(self, dispatch_id: str, offer: Offer) -> executor_pb2.LeaseBatch | None:
        """Return the message of an offer, or None: it is offered again later, or its job has ended."""
        live = offer.live
        try:
            return await self._composer.compose(live, offer.stage, offer.shards, dispatch_id=dispatch_id)
        except UnavailableError:
            self._log.warning("not_composed", dispatch=dispatch_id)
            # In a moment, for the database would not answer now.
            await asyncio.sleep(RETRY_S)
            self._withdraw(dispatch_id)
            self.fill()
        except Exception:  # noqa: BLE001 # a job that nobody can be told of ends, and the others go on
            self._log.exception("job_not_composed", job=live.header.id, stage=offer.stage)
            self._forget(dispatch_id)
            if live.run.generation == offer.generation:
                detail = "a message about its tasks could not be made; the log of the scheduler says why"
                self._replica.report(
                    live.header.id, CancelRequested(detail, now=True, failure=("INTERNAL", detail, ""))
                )
        return None

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

    def _forget(self, dispatch_id: str) -> Offer | None:
        offer = self._offers.remove(dispatch_id)
        if offer is not None:
            self.concurrency.give(offer.limits)
        return offer

    def _withdraw(self, dispatch_id: str) -> None:
        """Make the tasks of a dispatch ready again."""
        offer = self._forget(dispatch_id)
        if offer is None or offer.live.run.generation != offer.generation:
            return
        self._replica.handle_now(offer.live, DispatchVanished(stage=offer.stage, shards=offer.shards))
        self.turns.weigh(offer.live, (offer.stage,))
        self._mark(offer.live, (offer.stage,))

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
            batch = await self._composed(dispatch_id, offer)
            if batch is None:
                continue
            try:
                offer.seq = await self._tasks.publish(offer.pool, offer.lane, batch)
                offer.published = self._clock.now()
                delay = 0.05
            except (nats.errors.Error, OSError, TimeoutError) as error:
                self._log.warning("publish_failed", error=type(error).__name__, dispatch=dispatch_id)
                self._withdraw(dispatch_id)
                await self._tasks.mend()
                await asyncio.sleep(delay)
                delay = min(delay * 2, 1.0)
                self.fill()

    async def _look_forever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.look()
            except (nats.errors.Error, OSError, TimeoutError) as error:
                self._log.warning("look_failed", error=type(error).__name__)

    async def look(self) -> None:
        """Offer again what can no longer be claimed, and forget jobs that went elsewhere."""
        for job_id in {*self.turns.jobs(), *self.concurrency.jobs(), *self.admission.jobs()}:
            if self._replica.find(job_id) is None:
                self._leave(job_id)
        await self._lookout.withdraw_lost()
        self.fill()

    async def reconnected(self) -> None:
        """Declare the stream again if NATS came back without it, and offer again what it forgot."""
        await self._tasks.reconnected()
        self.fill()

    def _stream_is_new(self) -> None:
        """Offer again what another stream than the one there is held."""
        for dispatch_id in [key for key, offer in self._offers.items() if offer.session is None]:
            self._withdraw(dispatch_id)


def _ops(live: LiveJob, stage: int) -> frozenset[str]:
    plan = live.run.plan
    return frozenset([plan.nodes[node].op for node in plan.stages[stage].nodes])
