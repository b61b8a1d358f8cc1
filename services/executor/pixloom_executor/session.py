"""The stream to one scheduler replica: claims and reports go out; grants, work and acknowledgements come back.

The stream may break at any time. What was granted and what was reported is kept in the `LeaseBook`; when the stream is
up again, leases are announced and reports without acknowledgement sent once more, to whoever owns their jobs (`owners`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import grpc
import structlog

from pixloom.batches import task_keys
from pixloom.rpc.bundles import bundled, unbundled
from pixloom.rpc.channel import FIXED_WINDOW, aio_channel
from pixloom.v1 import executor_pb2, executor_pb2_grpc
from pixloom_executor.ordinary import without_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pixloom_executor.leases import LeaseBook

__all__ = ["Session", "SessionListener", "SessionLostError", "session_channel"]

MISSED_HEARTBEATS: Final = 2
PUNCTUAL_S: Final = 0.25
"""Lateness of a timer that may happen to anybody; what goes beyond it was kept from this process."""

RECONNECT_MIN_S: Final = 0.1
RECONNECT_MAX_S: Final = 0.5
"""Longest wait before the stream, and the connection below it, is tried again.

A scheduler that was started again waits 2 s for what executors hold before it offers that once more. It may have been
away for long: both waits together must be over well before.
"""

Outbox: TypeAlias = "asyncio.Queue[executor_pb2.SessionRequest | None]"
"""What is to be sent; None ends it."""


class SessionLostError(Exception):
    """The stream broke before an answer came."""


class OwnershipListener(Protocol):
    """Who keeps track of what replicas own."""

    def welcomed(self, session: Session, welcome: executor_pb2.Welcome) -> None:
        """A replica has welcomed us."""

    def owned(self, session: Session, partitions: Iterable[executor_pb2.OwnedPartition]) -> None:
        """A replica took partitions over."""

    def replicas(self, addresses: Iterable[str]) -> None:
        """These replicas are alive."""

    def seek(self, partition: int) -> None:
        """The owner of a partition is not who we think it is."""


class SessionListener(Protocol):
    """Who acts on what a scheduler says."""

    def cancel_tasks(self, message: executor_pb2.CancelTasks) -> None:
        """End tasks."""

    def leases_refused(self, tokens: list[bytes]) -> None:
        """Leases are not valid any more."""

    def acknowledged(self, report_id: int) -> None:
        """A report is durable, or refused for good."""

    def drain(self) -> None:
        """Take nothing new and leave."""

    def room_changed(self) -> None:
        """There may be room for more work: the stream is up, or results were acknowledged."""

    def assigned(self, session: Session, assignment: executor_pb2.Assignment) -> None:
        """Run what was handed over."""

    def busy(self) -> int:
        """Return the number of slots in use."""

    def open_slots(self) -> int:
        """Return the number of slots that no long task holds up."""

    def is_draining(self) -> bool:
        """Return whether nothing new is taken."""


def session_channel(address: str) -> grpc.aio.Channel:
    """Open a channel for a session with the replica at an address; it is back soon after the replica is."""
    backoff = ("grpc.max_reconnect_backoff_ms", int(RECONNECT_MAX_S * 1000))
    return aio_channel(address, options=(backoff, *FIXED_WINDOW), is_traced=False)


class Session:
    """Keeps a stream to one replica open."""

    def __init__(
        self,
        *,
        address: str,
        channel: grpc.aio.Channel,
        hello: Callable[[], executor_pb2.Hello],
        book: LeaseBook,
        listener: SessionListener,
        owners: OwnershipListener,
    ) -> None:
        self.address = address
        self._channel = channel
        self._hello = hello
        self._book = book
        self._listener = listener
        self._owners = owners
        self._stub = executor_pb2_grpc.ExecutorServiceStub(channel)
        self._outbox: Outbox = asyncio.Queue()
        # None is the answer when the stream ends.
        self._claims: dict[int, asyncio.Future[executor_pb2.Grant | None]] = {}
        # Claims nobody waits for any more: what is granted for them all the same is handed back.
        self._given_up: dict[int, executor_pb2.Claim] = {}
        self._next_claim = 1
        self._last_reply = 0.0
        self._up = False
        self._reads_columns = False
        self._log = structlog.get_logger("session")

    @property
    def is_up(self) -> bool:
        """Whether the replica has welcomed us."""
        return self._up

    async def claim(self, batch: executor_pb2.LeaseBatch, *, timeout_s: float) -> executor_pb2.Grant:
        """Ask for the tasks of a dispatch.

        Raises:
            SessionLostError: If no answer came in time.
        """
        if not self._up:
            raise SessionLostError
        claim_id = self._next_claim
        self._next_claim += 1
        answer: asyncio.Future[executor_pb2.Grant | None] = asyncio.get_running_loop().create_future()
        self._claims[claim_id] = answer
        claim = executor_pb2.Claim(
            claim_id=claim_id,
            dispatch_id=batch.dispatch_id,
            job_id=batch.job_id,
            generation=batch.generation,
            stage=batch.stage,
        )
        columns = batch.ordinary
        if columns.shards and self._reads_columns:
            claim.keys.shards.extend(columns.shards)
            claim.keys.attempts.extend(columns.attempts)
        else:
            claim.tasks.extend(
                executor_pb2.TaskKey(shard=shard, attempt=attempt) for shard, attempt in task_keys(batch)
            )
        self._outbox.put_nowait(executor_pb2.SessionRequest(claim=claim))
        try:
            # Not `asyncio.timeout`: where time is short, the answer and the end of the time come in one turn of the
            # loop, and a grant that has been read would be dropped with nobody to hand it back.
            await asyncio.wait({answer}, timeout=timeout_s)
        finally:
            del self._claims[claim_id]
            if not answer.done():
                self._given_up[claim_id] = claim
        grant = answer.result() if answer.done() else None
        if grant is None:
            raise SessionLostError
        return grant

    def send_report(self, report: executor_pb2.Report) -> None:
        """Send results, in columns only to who reads them; while the stream is down they wait in the book."""
        if not self._up:
            return
        if report.HasField("ordinary") and not self._reads_columns:
            lease = self._book.get(report.lease_token)
            if lease is None:
                return
            report = without_columns(report, lease.batch)
        self._outbox.put_nowait(executor_pb2.SessionRequest(report=report))

    def send_announce(self, message: executor_pb2.Announce) -> None:
        """Tell what is held; while the stream is down nothing needs to be told."""
        if self._up:
            self._outbox.put_nowait(executor_pb2.SessionRequest(announce=message))

    async def who_owns(self, partition: int) -> executor_pb2.WhoOwnsResponse:
        """Ask the replica for the owner of a partition.

        Raises:
            SessionLostError: If it does not answer.
        """
        answer: executor_pb2.WhoOwnsResponse = await _answer(
            self._stub.WhoOwns, executor_pb2.WhoOwnsRequest(partition=partition), timeout_s=2
        )
        return answer

    def send_give_back(self, message: executor_pb2.GiveBack) -> None:
        """Hand tasks back; if the stream is down, the next one tells that they are not held."""
        if self._up:
            self._outbox.put_nowait(executor_pb2.SessionRequest(give_back=message))

    def send_heartbeat(self) -> None:
        """Tell how it is here; while the stream is down nobody needs to know."""
        if self._up:
            heartbeat = executor_pb2.Heartbeat(
                busy=self._listener.busy(),
                draining=self._listener.is_draining(),
                open_slots=self._listener.open_slots(),
            )
            self._outbox.put_nowait(executor_pb2.SessionRequest(heartbeat=heartbeat))

    async def inputs(self, lease_token: bytes, batch: executor_pb2.LeaseBatch, task: executor_pb2.Task) -> None:
        """Page the inputs of a granted task into it.

        Raises:
            SessionLostError: If the replica does not answer.
        """
        token = ""
        while True:
            response: executor_pb2.ListInputsResponse = await _answer(
                self._stub.ListInputs,
                executor_pb2.ListInputsRequest(
                    lease_token=lease_token,
                    job_id=batch.job_id,
                    generation=batch.generation,
                    stage=batch.stage,
                    shard=task.shard,
                    page_token=token,
                ),
                timeout_s=30,
            )
            task.inputs.extend(response.inputs)
            token = response.next_page_token
            if not token:
                task.inputs_paged = False
                return

    async def run(self) -> None:
        """Keep the stream open until cancelled, then close the channel."""
        try:
            await self._keep_open()
        finally:
            await self._channel.close()

    async def _keep_open(self) -> None:
        delay = RECONNECT_MIN_S
        while True:
            try:
                await self._serve()
                delay = RECONNECT_MIN_S
            except (grpc.aio.AioRpcError, TimeoutError, asyncio.InvalidStateError) as error:
                self._log.warning("session_broken", address=self.address, error=_reason(error))
            except asyncio.CancelledError:
                # A call that our own heartbeat gave up ends its reader in this way too; then nobody cancelled us.
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
            finally:
                was_up, self._up = self._up, False
                for answer in self._claims.values():
                    if not answer.done():
                        answer.set_result(None)
                # What was granted on the stream that ended is found out as lost by the other side.
                self._given_up.clear()
            if was_up:
                delay = RECONNECT_MIN_S
            await asyncio.sleep(delay)
            delay = min(delay * 2, RECONNECT_MAX_S)

    async def _serve(self) -> None:
        outbox: Outbox = asyncio.Queue()
        self._outbox = outbox
        hello = self._hello()
        outbox.put_nowait(executor_pb2.SessionRequest(hello=hello))
        call = self._stub.Session(bundled(outbox, _bundle))
        heart: asyncio.Task[None] | None = None
        try:
            async for together in call:
                for response in unbundled(together):
                    if response.WhichOneof("message") != "welcome":
                        self._take(response)
                        continue
                    interval_s = response.welcome.heartbeat_interval.ToTimedelta().total_seconds()
                    self._last_reply = asyncio.get_running_loop().time()
                    heart = asyncio.create_task(self._beat(interval_s, call))
                    self._reads_columns = response.welcome.reads_columns
                    self._up = True
                    # The replica has read of leases that were still held when the stream was asked for.
                    for message in self._book.let_go_since(hello.leases):
                        self.send_give_back(message)
                    self._owners.welcomed(self, response.welcome)
                    self._log.info("session_open", address=self.address)
                    self._listener.room_changed()
        finally:
            if heart is not None:
                heart.cancel()
            call.cancel()
            # gRPC leaves the generator waiting when the other side ended the stream.
            outbox.put_nowait(None)

    async def _beat(self, interval_s: float, call: grpc.aio.Call) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self.send_heartbeat()
            due = loop.time() + interval_s
            await asyncio.sleep(interval_s)
            late_s = loop.time() - due
            if late_s > PUNCTUAL_S:
                # Nothing was read meanwhile: replies may be there.
                self._last_reply = min(loop.time(), self._last_reply + late_s)
            if loop.time() - self._last_reply > interval_s * (MISSED_HEARTBEATS + 0.5):
                self._log.warning("heartbeats_missed", address=self.address)
                call.cancel()
                return

    def _hand_back(self, grant: executor_pb2.Grant) -> None:
        """Hand back tasks that were granted too late."""
        claim = self._given_up.pop(grant.claim_id, None)
        if claim is not None and grant.lease_token:
            self.send_give_back(
                executor_pb2.GiveBack(
                    lease_token=grant.lease_token,
                    job_id=claim.job_id,
                    generation=claim.generation,
                    stage=claim.stage,
                    shards=claim.keys.shards if grant.all else [task.shard for task in grant.tasks],
                )
            )

    def _take(self, response: executor_pb2.SessionResponse) -> None:
        self._last_reply = asyncio.get_running_loop().time()
        match response.WhichOneof("message"):
            case "grant":
                answer = self._claims.get(response.grant.claim_id)
                if answer is not None and not answer.done():
                    answer.set_result(response.grant)
                else:
                    self._hand_back(response.grant)
            case "report_ack" if response.report_ack.elsewhere:
                partition = self._book.partition_of(response.report_ack.report_id)
                if partition is not None:
                    self._owners.seek(partition)
            case "report_ack":
                self._book.acknowledge(response.report_ack.report_id)
                self._listener.acknowledged(response.report_ack.report_id)
                self._listener.room_changed()
            case "announce_ack":
                self._listener.leases_refused(list(response.announce_ack.refused_tokens))
            case "assignment":
                self._listener.assigned(self, response.assignment)
            case "cancel_tasks":
                self._listener.cancel_tasks(response.cancel_tasks)
            case "drain":
                self._listener.drain()
            case "owned":
                self._owners.owned(self, response.owned.partitions)
            case "heartbeat_reply":
                self._owners.replicas(response.heartbeat_reply.replicas)
            case _:
                pass


async def _answer(method: Callable[..., Any], request: Any, *, timeout_s: float) -> Any:
    """Make a call beside the stream.

    Raises:
        SessionLostError: If the replica does not answer.
    """
    try:
        return await method(request, timeout=timeout_s)
    except (grpc.aio.AioRpcError, grpc.aio.UsageError) as error:
        raise SessionLostError from error
    except asyncio.CancelledError as error:
        # A channel that is closed ends its calls in this way; then nobody cancelled us.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise SessionLostError from error


def _bundle(messages: list[executor_pb2.SessionRequest]) -> executor_pb2.SessionRequest:
    return executor_pb2.SessionRequest(bundle=executor_pb2.RequestBundle(messages=messages))


def _reason(error: Exception) -> str:
    return str(error.code()) if isinstance(error, grpc.aio.AioRpcError) else type(error).__name__
