"""`ExecutorService`: the session of each executor, and the leases it holds.

Claims are answered at once; work that the dispatcher hands over is granted without a claim; what is reported, `reports`
takes. When a stream breaks, its leases are given a short grace in which the executor may come back; then they are LOST
and their tasks go out again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from pixloom.batches import keep_tasks, task_count, task_keys
from pixloom.errors import InvalidError, NotFoundError
from pixloom.opcodec import op_from_proto
from pixloom.rpc.bundles import bundled, unbundled
from pixloom.v1 import executor_pb2, executor_pb2_grpc
from pixloom_scheduler.core.view import halt_of
from pixloom_scheduler.executors import ExecutorSession
from pixloom_scheduler.rpc.reports import Reports
from pixloom_scheduler.rpc.requests import read_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import grpc

    from pixloom_scheduler.catalogue import OpCatalogue
    from pixloom_scheduler.clock import DatabaseClock
    from pixloom_scheduler.core.changes import TasksGranted
    from pixloom_scheduler.costs import CostModel
    from pixloom_scheduler.dispatch import Dispatcher
    from pixloom_scheduler.executors import ExecutorRegistry
    from pixloom_scheduler.grants import Grants, SiblingsGranted
    from pixloom_scheduler.inputs import InputReader, OutputCache
    from pixloom_scheduler.journal.ownership import Owned
    from pixloom_scheduler.live import LiveJob
    from pixloom_scheduler.partitions import Partitions
    from pixloom_scheduler.replica import Replica
    from pixloom_scheduler.takeovers import HeldTakeovers
    from pixloom_scheduler.timers import Timers

__all__ = ["ExecutorSessions"]

HEARTBEAT_S: Final = 1.0
GRACE_S: Final = 1.0
MOST_GRACES: Final = 4
SILENCE_S: Final = 5.0
PUNCTUAL_S: Final = 0.25
"""Lateness of a timer that may happen to anybody; what goes beyond it was kept from this process."""

MAX_OPEN_REPORTS: Final = 256
PAGE_SLICES: Final = 1000
MAX_ID: Final = 256


class ExecutorSessions(executor_pb2_grpc.ExecutorServiceServicer):
    """Serves executors."""

    def __init__(
        self,
        *,
        replica: Replica,
        executors: ExecutorRegistry,
        dispatcher: Dispatcher,
        inputs: InputReader,
        outputs: OutputCache,
        costs: CostModel,
        catalogue: OpCatalogue,
        partitions: Partitions,
        takeovers: HeldTakeovers,
        grants: Grants,
        clock: DatabaseClock,
        timers: Timers,
        incarnation: str,
    ) -> None:
        self._replica = replica
        self._executors = executors
        self._dispatcher = dispatcher
        self._inputs = inputs
        self._catalogue = catalogue
        self._partitions = partitions
        self._takeovers = takeovers
        self._grants = grants
        self._clock = clock
        self._timers = timers
        self._incarnation = incarnation
        self._reports = Reports(replica=replica, partitions=partitions, outputs=outputs, costs=costs)
        self._log = structlog.get_logger("sessions")

    def stop(self) -> None:
        """End all sessions, so that the server can stop."""
        for session in self._executors:
            session.outbox.put_nowait(None)

    # -- The stream -----------------------------------------------------------------------------------------------

    async def Session(
        self,
        request_iterator: AsyncIterator[executor_pb2.SessionRequest],
        context: grpc.aio.ServicerContext[executor_pb2.SessionRequest, executor_pb2.SessionResponse],
    ) -> AsyncIterator[executor_pb2.SessionResponse]:
        """Serve one executor until its stream ends."""
        del context
        first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("message") != "hello":
            return
        session = await self._open(first.hello)
        reader = asyncio.create_task(self._read(session, request_iterator))
        reader.add_done_callback(lambda _: session.outbox.put_nowait(None))
        try:
            async for message in bundled(session.outbox, _bundle):
                yield message
        finally:
            reader.cancel()
            self._close(session)

    async def _open(self, hello: executor_pb2.Hello) -> ExecutorSession:
        if not read_text(hello.executor_id, "executor_id", most=MAX_ID):
            raise InvalidError("executor_id is missing; every executor needs one of its own")
        await self._catalogue.announce([op_from_proto(op) for op in hello.ops])
        # No waiting from here on: what is granted on the stream before would be in nobody's account.
        now = self._clock.now()
        session = ExecutorSession(hello, asyncio.Queue(), start=now, last_seen=now)
        before = self._executors.get(hello.executor_id)
        if before is not None:
            session.holdings = before.holdings
        self._executors.add(session)
        owned = [
            executor_pb2.OwnedPartition(partition=partition, epoch=self._replica.stamps[partition].epoch)
            for partition in self._replica.open_partitions()
        ]
        welcome = executor_pb2.Welcome(
            incarnation=self._incarnation,
            partitions=[each.partition for each in owned],
            owned=owned,
            replicas=self._partitions.addresses(),
            address=self._partitions.address,
            reads_columns=True,
        )
        welcome.heartbeat_interval.FromMilliseconds(int(HEARTBEAT_S * 1000))
        session.outbox.put_nowait(executor_pb2.SessionResponse(welcome=welcome))
        self._announce(session, executor_pb2.Announce(leases=hello.leases))
        self._grants.not_received(session, frozenset(lease.lease_token for lease in hello.leases))
        self._log.info("executor_joined", executor=session.id, pools=list(hello.pools), slots=hello.slots)
        self._dispatcher.executors_changed()
        return session

    def tell_owned(self, owned: Sequence[Owned]) -> list[str]:
        """Ask every executor for what it holds of partitions just taken; return the executors asked."""
        message = executor_pb2.Owned(
            partitions=[executor_pb2.OwnedPartition(partition=each.id, epoch=each.epoch) for each in owned]
        )
        for session in self._executors:
            session.outbox.put_nowait(executor_pb2.SessionResponse(owned=message))
        return [session.id for session in self._executors]

    def forget(self, jobs: frozenset[str]) -> None:
        """Forget the leases of jobs that belong to another replica now."""
        for session in self._executors:
            for token in [token for token, lease in session.holdings.leases.items() if lease.job_id in jobs]:
                session.holdings.let_go(token)

    def _close(self, session: ExecutorSession) -> None:
        self._executors.remove(session)
        self._dispatcher.executors_changed()
        self._log.info("executor_left", executor=session.id, leases=len(session.holdings.leases))
        if session.holdings.leases or not session.draining:
            self._lose_later(session)

    def _lose_later(self, session: ExecutorSession, *, graces: int = MOST_GRACES) -> None:
        """Give its executor a grace in which to come back, and some more while we are late ourselves."""
        due = self._clock.now() + GRACE_S

        def end() -> None:
            if self._clock.now() - due > PUNCTUAL_S and graces > 1:
                # It may have come back meanwhile, and not have been read yet.
                self._lose_later(session, graces=graces - 1)
            else:
                self._lose(session)

        self._timers.at(due, end)

    def _lose(self, session: ExecutorSession) -> None:
        """Give up the leases of a session that is gone, and what it may be about to claim, unless its executor came back."""
        current = self._executors.get(session.id)
        self._grants.lose(session, current)
        if current is None:
            # A grace ago its stream broke, or it was silent longer than that.
            self._dispatcher.executor_lost(session.hello.pools, since=self._clock.now() - GRACE_S)

    def watch_silence(self, due: float | None = None) -> None:
        """End sessions that have not been heard of; calls itself every second.

        Args:
            due: When it was to be called, seconds. What it was called late is time in which nothing was read, whoever
                spoke, and does not count as silence.
        """
        now = self._clock.now()
        late_s = 0.0 if due is None else now - due
        for session in list(self._executors):
            if late_s > PUNCTUAL_S:
                session.last_seen = min(now, session.last_seen + late_s)
            if now - session.last_seen > SILENCE_S:
                self._log.warning("executor_silent", executor=session.id)
                self._executors.remove(session)
                self._dispatcher.executors_changed()
                self._lose(session)
        again = now + HEARTBEAT_S
        self._timers.at(again, lambda: self.watch_silence(again))

    async def _read(self, session: ExecutorSession, requests: AsyncIterator[executor_pb2.SessionRequest]) -> None:
        open_reports = asyncio.Semaphore(MAX_OPEN_REPORTS)
        async for request in requests:
            session.last_seen = self._clock.now()
            for message in unbundled(request):
                if message.WhichOneof("message") == "report":
                    # Reading stops while too many results wait for their commit: that is the back-pressure.
                    await open_reports.acquire()
                    self._reports.take(session, message.report, open_reports)
                else:
                    self._take(session, message)

    def _take(self, session: ExecutorSession, message: executor_pb2.SessionRequest) -> None:
        match message.WhichOneof("message"):
            case "claim":
                self._claim(session, message.claim)
            case "give_back":
                self._give_back(session, message.give_back)
            case "heartbeat":
                self._heartbeat(session, message.heartbeat)
            case "announce":
                self._announce(session, message.announce)
            case _:
                pass

    # -- Messages -------------------------------------------------------------------------------------------------

    def _heartbeat(self, session: ExecutorSession, heartbeat: executor_pb2.Heartbeat) -> None:
        session.busy = heartbeat.busy
        open_slots = heartbeat.open_slots if heartbeat.HasField("open_slots") else session.hello.slots
        if open_slots != session.open_slots:
            session.open_slots = open_slots
            self._dispatcher.fill()
        if heartbeat.draining != session.draining:
            session.draining = heartbeat.draining
            self._executors.forget_pools()
            self._dispatcher.executors_changed()
        if self._executors.get(session.id) is None:
            self._executors.add(session)
            self._dispatcher.executors_changed()
        reply = executor_pb2.HeartbeatReply(replicas=self._partitions.addresses())
        session.outbox.put_nowait(executor_pb2.SessionResponse(heartbeat_reply=reply))

    def _give_back(self, session: ExecutorSession, message: executor_pb2.GiveBack) -> None:
        if self._partitions.loading.is_loading(message.job_id):
            # Its lease was announced before, and is adopted once the job is there: not to be kept then.
            self._partitions.loading.when_loaded(message.job_id, lambda: self._give_back(session, message))
        else:
            self._grants.give_back(session, message)

    def _claim(self, session: ExecutorSession, claim: executor_pb2.Claim) -> None:
        if self._executors.is_replaced(session):
            # Its executor has given the claim up with the stream and will come again: it would not hear of the grant.
            return
        grant = executor_pb2.Grant(claim_id=claim.claim_id)
        live = self._replica.find(claim.job_id)
        keys = claim.keys
        tasks: tuple[tuple[int, int], ...] = ()
        if not keys.shards:
            tasks = tuple((task.shard, task.attempt) for task in claim.tasks)
        elif len(keys.shards) == len(keys.attempts):
            tasks = tuple(zip(keys.shards, keys.attempts, strict=True))
        count = 0
        if self._partitions.is_elsewhere(claim.job_id):
            grant.elsewhere = True
        elif (
            live is not None
            and self._replica.is_inside_lease
            and self._dispatcher.may_grant(live, claim.stage, claim.dispatch_id)
        ):
            granted = self._grants.grant(
                session,
                live,
                generation=claim.generation,
                stage=claim.stage,
                tasks=tasks,
            )
            if granted is not None:
                grant.lease_token = granted.token
                count = len(granted.tasks)
                if keys.shards and granted.tasks == tasks:
                    grant.all = True
                else:
                    grant.tasks.extend(
                        executor_pb2.TaskKey(shard=shard, attempt=attempt) for shard, attempt in granted.tasks
                    )
        session.outbox.put_nowait(executor_pb2.SessionResponse(grant=grant))
        self._dispatcher.claimed(claim.dispatch_id, count)

    def hand_over(self, session: ExecutorSession, live: LiveJob, batch: executor_pb2.LeaseBatch) -> int:
        """Grant a batch to an executor that did not ask for it; return how many of its tasks it got.

        Tasks that are no longer offered are taken out of the batch.
        """
        if self._executors.get(session.id) is not session or session.draining or not self._replica.is_inside_lease:
            return 0
        if batch.ordinary.shards and not session.hello.reads_columns:
            # It was not in session when the batch was composed, and would see no task in it.
            return 0
        granted: TasksGranted | SiblingsGranted | None
        if batch.siblings:
            granted = self._grants.grant_siblings(session, live, tuple(sibling.stage for sibling in batch.siblings))
        else:
            granted = self._grants.grant(
                session,
                live,
                generation=batch.generation,
                stage=batch.stage,
                tasks=task_keys(batch),
                handed_over=True,
            )
        if granted is None:
            return 0
        if len(granted.tasks) < task_count(batch):
            keep_tasks(batch, dict(granted.tasks))
        if batch.siblings:
            batch.stage = batch.siblings[0].stage
        assignment = executor_pb2.Assignment(lease_token=granted.token, batch=batch)
        session.outbox.put_nowait(executor_pb2.SessionResponse(assignment=assignment))
        return len(granted.tasks)

    def _announce(self, session: ExecutorSession, announce: executor_pb2.Announce) -> None:
        """Adopt leases that an earlier owner, or this one before the stream broke, granted."""
        refused = []
        for lease in announce.leases:
            # What belongs to another replica is neither adopted nor refused.
            if self._partitions.loading.is_loading(lease.job_id):
                self._partitions.loading.when_loaded(lease.job_id, lambda lease=lease: self._adopt_late(session, lease))  # type: ignore[misc]
            elif not self._partitions.is_elsewhere(lease.job_id) and not self._grants.adopt(session, lease):
                refused.append(lease.lease_token)
        if announce.leases:
            ack = executor_pb2.AnnounceAck(refused_tokens=refused)
            session.outbox.put_nowait(executor_pb2.SessionResponse(announce_ack=ack))
        for job_id in dict.fromkeys(lease.job_id for lease in announce.leases):
            self._remind(session, job_id)
        self._takeovers.announced(session.id, announce.partitions)

    def _remind(self, session: ExecutorSession, job_id: str) -> None:
        """Tell an executor again to end tasks of a job: it may have been away when it was told first."""
        live = self._replica.find(job_id)
        now = None if live is None else halt_of(live.run)
        if live is not None and now is not None:
            message = executor_pb2.CancelTasks(job_id=job_id, generation=live.run.generation, now=now)
            session.outbox.put_nowait(executor_pb2.SessionResponse(cancel_tasks=message))

    def _adopt_late(self, session: ExecutorSession, lease: executor_pb2.Lease) -> None:
        """Adopt a lease of a job that was still to be loaded, if its executor is still there."""
        if self._executors.get(session.id) is session:
            self._announce(session, executor_pb2.Announce(leases=[lease]))

    # -- Calls ----------------------------------------------------------------------------------------------------

    async def WhoOwns(
        self,
        request: executor_pb2.WhoOwnsRequest,
        context: grpc.aio.ServicerContext[executor_pb2.WhoOwnsRequest, executor_pb2.WhoOwnsResponse],
    ) -> executor_pb2.WhoOwnsResponse:
        """Tell who owns a partition."""
        del context
        address, epoch = await self._partitions.owner_of(request.partition)
        return executor_pb2.WhoOwnsResponse(address=address, epoch=epoch)

    async def ListInputs(
        self,
        request: executor_pb2.ListInputsRequest,
        context: grpc.aio.ServicerContext[executor_pb2.ListInputsRequest, executor_pb2.ListInputsResponse],
    ) -> executor_pb2.ListInputsResponse:
        """Page the inputs of a granted task."""
        del context
        live = self._replica.find(request.job_id)
        if live is None or not any(
            lease.token == request.lease_token and request.shard in lease.tasks for lease in live.run.leases.values()
        ):
            raise NotFoundError("there is no such lease")
        slices, token = await self._inputs.page(live, request.stage, token=request.page_token, most=PAGE_SLICES)
        return executor_pb2.ListInputsResponse(inputs=slices, next_page_token=token)

    def cancel_tasks(self, job_id: str, generation: int, stage: int | None, *, now: bool) -> None:
        """Tell every executor to end tasks of a job."""
        message = executor_pb2.CancelTasks(job_id=job_id, generation=generation, now=now)
        if stage is not None:
            message.stage = stage
        for session in self._executors:
            session.outbox.put_nowait(executor_pb2.SessionResponse(cancel_tasks=message))

    def drain(self, executor: str) -> ExecutorSession:
        """Ask an executor to finish and leave.

        Raises:
            NotFoundError: If it is not in session here.
        """
        session = self._executors.get(executor)
        if session is None:
            raise NotFoundError(f"there is no executor {executor}; `pixloom executors list` shows those there are")
        session.outbox.put_nowait(executor_pb2.SessionResponse(drain=executor_pb2.Drain()))
        session.draining = True
        self._executors.forget_pools()
        self._dispatcher.executors_changed()
        return session


def _bundle(messages: list[executor_pb2.SessionResponse]) -> executor_pb2.SessionResponse:
    return executor_pb2.SessionResponse(bundle=executor_pb2.ResponseBundle(messages=messages))
