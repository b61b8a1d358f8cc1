"""An executor that speaks the protocol by hand, so that a test can say whatever it likes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any, Self

import grpc
import nats

from pixloom.graph.builtin import builtin_catalogue
from pixloom.opcodec import op_to_proto
from pixloom.queue import LANES, STREAM, consumer_name, declare_consumers, declare_stream, subject
from pixloom.rpc.bundles import unbundled
from pixloom.rpc.channel import aio_channel
from pixloom.v1 import executor_pb2 as pb
from pixloom.v1 import executor_pb2_grpc, item_pb2, job_pb2

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["BareExecutor", "succeeded"]

OPS = [op_to_proto(op) for op in builtin_catalogue()]
HEARTBEAT_S = 1.0
"""Without heartbeats an executor is given up after five seconds, which a test may take on a busy machine."""


class BareExecutor:
    """A session with the scheduler, opened by `async with`, and a hand on the queue.

    Args:
        identity: Id of the executor.
        scheduler: Address of the scheduler, host:port.
        pool: The only pool it serves.
        open_slots: Slots that it says are open: with none, nothing is handed over to it, and all work comes by NATS.
        reads_columns: Whether it says that it reads tasks as columns.
    """

    def __init__(
        self, identity: str, *, scheduler: str, pool: str, open_slots: int = 0, reads_columns: bool = False
    ) -> None:
        self.identity = identity
        self._open_slots = open_slots
        self._reads_columns = reads_columns
        self._pool = pool
        self._channel = aio_channel(scheduler, is_traced=False)
        self._call: Any = executor_pb2_grpc.ExecutorServiceStub(self._channel).Session()
        self._claims = 0
        self._answers: deque[pb.SessionResponse] = deque()
        self._writing = asyncio.Lock()
        self._beating: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        hello = pb.Hello(
            executor_id=self.identity,
            pools=[self._pool],
            slots=1,
            ops=OPS,
            open_slots=self._open_slots,
            reads_columns=self._reads_columns,
        )
        await self.send(hello=hello)
        await self.answer("welcome")
        self._beating = asyncio.create_task(self._beat())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait([self._beating])
        self._call.cancel()
        await self._channel.close()

    async def _beat(self) -> None:
        # A test that reads the stream to its end finds out by itself that it has ended.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                await asyncio.sleep(HEARTBEAT_S)
                await self.send(heartbeat=pb.Heartbeat(open_slots=self._open_slots))

    async def send(self, **message: Any) -> None:
        """Send one message."""
        async with self._writing:
            await self._call.write(pb.SessionRequest(**message))

    async def answer(self, kind: str) -> Any:
        """Return the next answer of a kind; others are passed over."""
        async with asyncio.timeout(60):
            while True:
                while self._answers:
                    answer = self._answers.popleft()
                    if answer.WhichOneof("message") == kind:
                        return getattr(answer, kind)
                response = await self._call.read()
                assert isinstance(response, pb.SessionResponse), f"the stream ended before {kind}"
                self._answers.extend(unbundled(response))

    async def pull(self, nats_url: str, *, acknowledge: bool = True) -> pb.LeaseBatch:
        """Take the first dispatch of a job in this executor's pool off the queue, or only pull it."""
        connection = await nats.connect(nats_url)
        try:
            js = connection.jetstream()
            await declare_stream(js)
            await declare_consumers(js, self._pool)
            lane = LANES[0]
            subscription = await js.pull_subscribe(subject(self._pool, lane), consumer_name(self._pool, lane), STREAM)
            (message,) = await subscription.fetch(1, timeout=60)
            if acknowledge:
                await message.ack_sync()
            return pb.LeaseBatch.FromString(message.data)
        finally:
            await connection.close()

    async def claim(self, batch: pb.LeaseBatch) -> pb.Grant:
        """Claim all tasks of a dispatch and return what was granted."""
        await self.ask(batch)
        grant: pb.Grant = await self.answer("grant")
        return grant

    async def ask(self, batch: pb.LeaseBatch) -> None:
        """Claim all tasks of a dispatch, in the form in which they came."""
        self._claims += 1
        claim = pb.Claim(
            claim_id=self._claims,
            dispatch_id=batch.dispatch_id,
            job_id=batch.job_id,
            generation=batch.generation,
            stage=batch.stage,
            tasks=[pb.TaskKey(shard=task.shard, attempt=task.attempt) for task in batch.tasks],
        )
        columns = batch.ordinary
        if columns.shards:
            claim.keys.CopyFrom(pb.TaskKeys(shards=columns.shards, attempts=columns.attempts))
        await self.send(claim=claim)

    async def refused(self, report: pb.Report) -> list[int]:
        """Send a report and return the shards that were refused."""
        await self.send(report=report)
        ack = await self.answer("report_ack")
        assert ack.report_id == report.report_id
        return list(ack.refused)


def succeeded(batch: pb.LeaseBatch, grant: pb.Grant | pb.Assignment) -> pb.Report:
    """Return a report that all granted tasks let all of their items pass."""
    report = pb.Report(
        report_id=1,
        lease_token=grant.lease_token,
        job_id=batch.job_id,
        generation=batch.generation,
        stage=batch.stage,
    )
    for task in batch.tasks:
        (part,) = task.inputs
        items = item_pb2.ItemBatch.FromString(part.manifest.inline).items[part.offset : part.offset + part.count]
        output = item_pb2.Manifest(count=part.count, inline=item_pb2.ItemBatch(items=items).SerializeToString())
        result = report.results.add(
            shard=task.shard, attempt=task.attempt, outcome=job_pb2.ATTEMPT_OUTCOME_OK, output=output
        )
        result.start_time.GetCurrentTime()
        result.end_time.GetCurrentTime()
        for call in batch.calls:
            result.counts.add(node=call.node, ok=part.count)
    return report
