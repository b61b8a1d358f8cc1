"""The executor's supervisor: takes what is handed over and what the pullers bring, has children run it, reports.

It never decodes an image, so nothing an image does can take it down.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import structlog
from google.protobuf.message import DecodeError

from pixloom.batches import is_sound, keep_tasks, task_count, task_keys
from pixloom.queue import LANES
from pixloom.v1 import executor_pb2, job_pb2
from pixloom_executor.leases import HeldLease, LeaseBook
from pixloom_executor.session import SessionLostError
from pixloom_executor.spans import write_report_span, write_task_spans

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nats.aio.msg import Msg

    from pixloom_executor.children.pool import ChildPool
    from pixloom_executor.owners import Owners
    from pixloom_executor.puller import Room
    from pixloom_executor.session import Session

__all__ = ["Supervisor"]

CLAIM_TIMEOUT_S: Final = 1.0
NOT_OURS_S: Final = 0.1
"""How long a batch with ops of other executors is kept from the queue, so that it does not come back at once."""

LOOK_AT_SLOTS_S: Final = 0.3
MAX_UNACKNOWLEDGED: Final = 2000
MAX_UNACKNOWLEDGED_BYTES: Final = 16 * 1024 * 1024
REPORT_RESULTS: Final = 256
REPORT_DELAY_S: Final = 0.1
"""How long results of a batch wait for the next one; they go at once when the batch is done."""


class Supervisor:
    """Between the sessions, the pullers and the children."""

    def __init__(self, *, executor_id: str, children: ChildPool, book: LeaseBook) -> None:
        self._executor_id = executor_id
        self._children = children
        self._book = book
        self._ops: frozenset[str] = frozenset()
        self._draining = asyncio.Event()
        self._has_work = asyncio.Event()
        self._pending: dict[bytes, list[executor_pb2.TaskResult]] = {}
        self._sent: dict[int, tuple[executor_pb2.LeaseBatch, int, int]] = {}
        # Batches on their way to the children, by identity; and those that a cancel has met there.
        self._claiming: dict[int, executor_pb2.LeaseBatch] = {}
        self._overtaken: set[int] = set()
        self._assigned: set[asyncio.Task[None]] = set()
        self._slots = self._open_slots = children.urgent_batches
        self._log = structlog.get_logger("executor")

    def connect(self, *, owners: Owners, room: Room, ops: Iterable[str]) -> None:
        """Tie the supervisor to the parts made after it.

        Args:
            owners: Who owns which partition, with the streams to them.
            room: How many batches may be under way.
            ops: Names with versions of the ops that the children serve.
        """
        self._ops = frozenset(ops)
        self._owners = owners
        self._room = room

    # -- What sessions and pullers ask ------------------------------------------------------------------------------

    def has_room(self) -> bool:
        """Return whether more work may be taken now."""
        return (
            not self._draining.is_set()
            and self._book.unacknowledged_results < MAX_UNACKNOWLEDGED
            and self._book.unacknowledged_bytes < MAX_UNACKNOWLEDGED_BYTES
            and self._owners.is_any_up
        )

    def room_changed(self) -> None:
        """There may be room for more work."""
        self._room.wake()

    def busy(self) -> int:
        """Return the number of slots in use."""
        return self._children.busy

    def open_slots(self) -> int:
        """Return the number of slots that no long task holds up."""
        return self._open_slots

    def is_draining(self) -> bool:
        """Return whether nothing new is taken."""
        return self._draining.is_set()

    def drain(self) -> None:
        """Take nothing new, hand back what has not started, and leave when the rest is done."""
        if self._draining.is_set():
            return
        self._log.info("draining", leases=len(self._book))
        self._draining.set()
        self._children.end(lambda _: True, running=False)

    async def watch_slots(self) -> None:
        """Give back what waits behind tasks that take long, until cancelled: another executor may be free."""
        while True:
            await self._has_work.wait()
            await asyncio.sleep(LOOK_AT_SLOTS_S)
            # First, so that what comes back is not handed over here again.
            self._look_at_slots()
            # What is taken back is reported CANCELLED: in a job that nobody cancels, that hands it back.
            self._children.take_back()
            self.room_changed()
            if not self._children.busy:
                self._has_work.clear()

    def _look_at_slots(self) -> None:
        """Tell the schedulers when long tasks hold up more slots than before, or fewer."""
        open_slots = self._children.urgent_batches
        if open_slots != self._open_slots:
            self._open_slots = open_slots
            self._owners.tell_room()

    async def wait_for_drain(self) -> None:
        """Wait until somebody asked this executor to leave."""
        await self._draining.wait()

    async def finish(self) -> None:
        """Wait until what was handed over has ended."""
        if self._assigned:
            await asyncio.wait(self._assigned)

    async def flush(self, timeout_s: float) -> bool:
        """Wait until nothing is held any more; False if that took too long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._book.wait_until_empty()
        except TimeoutError:
            return False
        return True

    def cancel_tasks(self, message: executor_pb2.CancelTasks) -> None:
        """End tasks of a job."""
        stage = message.stage if message.HasField("stage") else None

        def is_meant(batch: executor_pb2.LeaseBatch) -> bool:
            # Of a stage that is ended by itself, a sibling's only task has a result already, and the others go on.
            return (
                batch.job_id == message.job_id
                and batch.generation == message.generation
                and (stage is None or (stage == batch.stage and not batch.siblings))
            )

        self._children.end(is_meant, running=message.now)
        self._overtaken.update(key for key, batch in self._claiming.items() if is_meant(batch))

    def leases_refused(self, tokens: list[bytes]) -> None:
        """Stop working on leases that are not valid any more."""
        for token in tokens:
            lease = self._book.get(token)
            for report_id in self._book.drop(token):
                self._sent.pop(report_id, None)
            self._pending.pop(token, None)
            if lease is not None:
                # This very batch: another grant of the same dispatch may be valid.
                self._children.end(lambda batch, refused=lease.batch: batch is refused)  # type: ignore[misc]

    # -- The way of a batch -----------------------------------------------------------------------------------------

    async def take(self, message: Msg) -> None:
        """Claim a dispatch, run what was granted, report it."""
        try:
            batch: executor_pb2.LeaseBatch | None = executor_pb2.LeaseBatch.FromString(message.data)
        except DecodeError:
            batch = None
        if batch is None or not is_sound(batch):
            self._log.error("message_unreadable", bytes=len(message.data))
            await message.term()
            return
        if any(call.op not in self._ops for call in batch.calls):
            # Another executor of the pool has them; this one would only fail its tasks.
            await message.nak(delay=NOT_OURS_S)
            return
        session = self._owners.claimant(batch)
        if session is None:
            await message.nak(delay=1.0)
            return
        key = id(batch)
        self._claiming[key] = batch
        try:
            lease = await self._claim(session, message, batch)
        finally:
            del self._claiming[key]
            is_overtaken = key in self._overtaken
            self._overtaken.discard(key)
        if lease is None:
            return
        if is_overtaken:
            # Somebody paused or cancelled the job between the claim and now: nothing of it is to start.
            self._hand_back(lease, set(lease.running))
            return
        await self._work(lease, urgent=message.subject.endswith(f".{LANES[0]}"))

    def assigned(self, session: Session, assignment: executor_pb2.Assignment) -> None:
        """Run what a scheduler has handed over; what cannot be run here goes back at once."""
        batch = assignment.batch
        granted = task_keys(batch)
        lease = HeldLease(assignment.lease_token, batch, granted, {shard for shard, _ in granted})
        self._book.hold(lease)
        self._owners.granted(session, batch)
        if self._draining.is_set() or any(call.op not in self._ops for call in batch.calls):
            self._hand_back(lease, set(lease.running))
            return
        self._room.enter()
        self._claiming[id(batch)] = batch
        work = asyncio.get_running_loop().create_task(self._work_on_assigned(session, lease))
        self._assigned.add(work)
        work.add_done_callback(self._assigned.discard)

    async def _work_on_assigned(self, session: Session, lease: HeldLease) -> None:
        key = id(lease.batch)
        try:
            try:
                await self._page_inputs(session, lease)
            finally:
                del self._claiming[key]
                is_overtaken = key in self._overtaken
                self._overtaken.discard(key)
            if is_overtaken or self._draining.is_set():
                self._hand_back(lease, set(lease.running))
            else:
                await self._work(lease, urgent=True)
        except SessionLostError:
            self._hand_back(lease, set(lease.running))
        finally:
            self._room.give()

    async def _work(self, lease: HeldLease, *, urgent: bool) -> None:
        self._has_work.set()
        await self._children.run(
            lease.batch,
            lambda result: self._finished(lease, result),
            urgent=urgent,
            deliver_ordinary=lambda results: self._send(lease, results),
        )
        self._send(lease)
        if self._open_slots != self._slots:
            self._look_at_slots()

    async def _claim(self, session: Session, message: Msg, batch: executor_pb2.LeaseBatch) -> HeldLease | None:
        """Return what was granted of a dispatch, with all its inputs, or None if nothing is to be run."""
        try:
            grant = await session.claim(batch, timeout_s=CLAIM_TIMEOUT_S)
        except SessionLostError:
            await message.nak(delay=1.0)
            return None
        if grant.elsewhere:
            self._owners.seek(batch.partition)
            await message.nak(delay=0.2)
            return None
        if not grant.lease_token:
            await message.ack()
            return None
        keys = task_keys(batch) if grant.all else tuple((task.shard, task.attempt) for task in grant.tasks)
        granted = dict(keys)
        if len(granted) != task_count(batch):
            keep_tasks(batch, granted)
        lease = HeldLease(grant.lease_token, batch, keys, set(granted))
        self._book.hold(lease)
        self._owners.granted(session, batch)
        try:
            await message.ack()
            await self._page_inputs(session, lease)
        except SessionLostError:
            self._hand_back(lease, granted)
            return None
        except BaseException:
            # NATS is away: nobody else knows of the grant, and kept to ourselves it would last until its deadline.
            self._hand_back(lease, granted)
            raise
        return lease

    @staticmethod
    async def _page_inputs(session: Session, lease: HeldLease) -> None:
        for task in lease.batch.tasks:
            if task.inputs_paged:
                await session.inputs(lease.token, lease.batch, task)

    def _hand_back(self, lease: HeldLease, shards: Iterable[int]) -> None:
        message = self._book.give_back(lease, shards)
        session = self._owners.owner(lease.batch.partition)
        if session is not None:
            session.send_give_back(message)

    def _finished(self, lease: HeldLease, result: executor_pb2.TaskResult) -> None:
        """Take a result from the children; results of one lease go out together."""
        if self._draining.is_set() and result.outcome == job_pb2.ATTEMPT_OUTCOME_CANCELLED:
            self._hand_back(lease, (result.shard,))
            return
        write_task_spans(lease.batch, result, self._executor_id, sibling=lease.siblings.get(result.shard))
        pending = self._pending.get(lease.token)
        if pending is None:
            pending = self._pending[lease.token] = []
            asyncio.get_running_loop().call_later(REPORT_DELAY_S, self._send, lease)
        pending.append(result)
        if len(pending) >= REPORT_RESULTS:
            self._send(lease)

    def _send(self, lease: HeldLease, ordinary: executor_pb2.OrdinaryResults | None = None) -> None:
        results = self._pending.pop(lease.token, ())
        if not (results or ordinary) or self._book.get(lease.token) is not lease:
            return
        report = self._book.report(lease, results, ordinary)
        if lease.batch.trace_tasks:
            self._sent[report.report_id] = (lease.batch, len(results), time.time_ns())
        # Without one it waits in the book for the next owner.
        session = self._owners.owner(lease.batch.partition)
        if session is not None:
            session.send_report(report)

    def acknowledged(self, report_id: int) -> None:
        """Write the span of a report that is durable now."""
        sent = self._sent.pop(report_id, None)
        if sent is not None:
            batch, results, start_ns = sent
            write_report_span(batch, results=results, start_ns=start_ns, end_ns=time.time_ns())
