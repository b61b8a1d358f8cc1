"""Work that an executor is handed, or claims: what runs, and what is handed back because it was halted meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import nats as nats_client
import pytest

from pixloom.rpc.bundles import unbundled
from pixloom.rpc.channel import aio_channel
from pixloom.v1 import executor_pb2 as pb
from pixloom.v1 import executor_pb2_grpc, item_pb2
from pixloom_executor.children import ChildPool, ChildSettings
from pixloom_executor.leases import LeaseBook
from pixloom_executor.owners import Owners
from pixloom_executor.puller import Room
from pixloom_executor.session import Session
from pixloom_executor.supervisor import Supervisor
from tests.unit.executor.tasks import batch_of, call, inline, item, sliced

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pixloom.local.nats import EmbeddedNats

JOB = "j1"


class Scheduler(executor_pb2_grpc.ExecutorServiceServicer):
    """Grants every claim, and says in the same breath that other tasks are to be ended; hands work over."""

    def __init__(self) -> None:
        self.reads_columns = False
        self.grants: tuple[int, ...] | None = None
        self.claims: list[pb.Claim] = []
        self.cancel: pb.CancelTasks | None = None
        self.answers: asyncio.Queue[pb.SessionResponse] = asyncio.Queue()
        self.heard: asyncio.Queue[pb.SessionRequest] = asyncio.Queue()
        self.hellos: asyncio.Queue[pb.Hello] = asyncio.Queue()
        self.welcomes = asyncio.Event()
        self.welcomes.set()

    async def Session(
        self, request_iterator: AsyncIterator[pb.SessionRequest], context: Any
    ) -> AsyncIterator[pb.SessionResponse]:
        del context
        reading = asyncio.create_task(self._read(request_iterator))
        try:
            while (answer := await self.answers.get()).HasField("message"):
                yield answer
        finally:
            reading.cancel()

    def hang_up(self) -> None:
        """End the stream."""
        self.answers.put_nowait(pb.SessionResponse())

    async def _read(self, requests: AsyncIterator[pb.SessionRequest]) -> None:
        async for together in requests:
            for request in unbundled(together):
                match request.WhichOneof("message"):
                    case "hello":
                        self.hellos.put_nowait(request.hello)
                        await self.welcomes.wait()
                        welcome = pb.Welcome(
                            incarnation="i",
                            owned=[pb.OwnedPartition(partition=0, epoch=1)],
                            reads_columns=self.reads_columns,
                        )
                        # An executor that misses a few replies opens another stream: none of it is to happen here.
                        welcome.heartbeat_interval.FromSeconds(60)
                        self.answers.put_nowait(pb.SessionResponse(welcome=welcome))
                    case "heartbeat":
                        self.answers.put_nowait(pb.SessionResponse(heartbeat_reply=pb.HeartbeatReply()))
                    case "claim":
                        self.claims.append(request.claim)
                        grant = self._granted(request.claim)
                        self.answers.put_nowait(self._together(pb.SessionResponse(grant=grant)))
                    case "report" | "give_back":
                        self.heard.put_nowait(request)

    def _granted(self, claim: pb.Claim) -> pb.Grant:
        grant = pb.Grant(claim_id=claim.claim_id, lease_token=b"t")
        keys = [(task.shard, task.attempt) for task in claim.tasks]
        keys += zip(claim.keys.shards, claim.keys.attempts, strict=True)
        if self.grants is None and claim.keys.shards:
            grant.all = True
        else:
            grant.tasks.extend(
                pb.TaskKey(shard=shard, attempt=attempt)
                for shard, attempt in keys
                if self.grants is None or shard in self.grants
            )
        return grant

    def hand_over(self, batch: pb.LeaseBatch) -> None:
        """Hand a batch over."""
        assignment = pb.Assignment(lease_token=b"t", batch=batch)
        self.answers.put_nowait(self._together(pb.SessionResponse(assignment=assignment)))

    def _together(self, answer: pb.SessionResponse) -> pb.SessionResponse:
        answers = [answer]
        if self.cancel is not None:
            answers.append(pb.SessionResponse(cancel_tasks=self.cancel))
        return pb.SessionResponse(bundle=pb.ResponseBundle(messages=answers))


@pytest.fixture
def reads_columns() -> bool:
    """Whether the scheduler reads claims and results as columns."""
    return False


@pytest.fixture
async def scheduler(*, reads_columns: bool) -> AsyncIterator[tuple[Scheduler, str]]:
    served = Scheduler()  # type: ignore[abstract]  # the other calls are not made
    served.reads_columns = reads_columns
    server = grpc.aio.server()
    executor_pb2_grpc.add_ExecutorServiceServicer_to_server(served, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield served, f"127.0.0.1:{port}"
    await server.stop(grace=None)


@pytest.fixture
async def supervisor(tmp_path: Path, scheduler: tuple[Scheduler, str]) -> AsyncIterator[Supervisor]:
    settings = ChildSettings(
        artifacts_url=(tmp_path / "store").as_uri(),
        scratch_dir=str(tmp_path / "scratch"),
        source_roots=(str(tmp_path),),
    )
    children, book = ChildPool(slots=1, settings=settings), LeaseBook()
    await children.start()
    made = Supervisor(executor_id="x", children=children, book=book)
    channel = aio_channel(scheduler[1], is_traced=False)

    def open_session(address: str, owners: Owners) -> Session:
        return Session(
            address=address,
            channel=channel,
            hello=lambda: pb.Hello(executor_id="x", pools=["cpu"], slots=1, leases=book.announced()),
            book=book,
            listener=made,
            owners=owners,
        )

    owners = Owners(configured=[scheduler[1]], open_session=open_session, book=book)
    room = Room(batches=lambda: 2, is_open=made.has_room)
    made.connect(owners=owners, room=room, ops=["debug.noop@1", "debug.sleep@1", "debug.range@1"])
    serving = asyncio.create_task(owners.run())
    async with asyncio.timeout(60):
        await room.take(0)  # there is room once the scheduler has said welcome
    yield made
    serving.cancel()
    await asyncio.wait([serving])
    await channel.close()
    await children.stop()


def three_tasks(op: str = "debug.noop") -> pb.LeaseBatch:
    batch = batch_of(
        [call(op)], [pb.Task(shard=shard, attempt=1, inputs=[sliced(inline(item(shard)))]) for shard in range(3)]
    )
    batch.job_id, batch.generation, batch.stage = JOB, 1, 1
    return batch


def three_in_columns() -> pb.LeaseBatch:
    """Return the same tasks as columns."""
    batch = three_tasks()
    del batch.tasks[:]
    batch.ordinary.CopyFrom(
        pb.OrdinaryTasks(
            shards=range(3),
            attempts=[1] * 3,
            places=[0] * 3,
            offsets=range(3),
            counts=[1] * 3,
            sources=[sliced(inline(*map(item, range(3))))],
        )
    )
    return batch


async def taken(
    supervisor: Supervisor, nats: EmbeddedNats, batch: pb.LeaseBatch | None = None, *, is_cut_off: bool = False
) -> None:
    """Let the executor take a dispatch of three tasks off a queue, whose server may be gone then."""
    batch = batch or three_tasks()
    connection = await nats_client.connect(nats.url)
    try:
        subject = connection.new_inbox()
        subscription = await connection.subscribe(subject)
        await connection.publish(subject, batch.SerializeToString(), reply=connection.new_inbox())
        message = await subscription.next_msg(timeout=60)
        if is_cut_off:
            await connection.close()
        await supervisor.take(message)
    finally:
        await connection.close()


@pytest.mark.parametrize("now", [False, True])
async def test_work_that_is_halted_as_it_is_granted_is_handed_back_and_never_run(
    supervisor: Supervisor, scheduler: tuple[Scheduler, str], nats: EmbeddedNats, *, now: bool
) -> None:
    scheduler[0].cancel = pb.CancelTasks(job_id=JOB, generation=1, now=now)
    await taken(supervisor, nats)
    async with asyncio.timeout(60):
        heard = await scheduler[0].heard.get()
    assert heard.give_back == pb.GiveBack(lease_token=b"t", job_id=JOB, generation=1, stage=1, shards=[0, 1, 2])
    assert await supervisor.flush(60)


async def test_what_was_granted_as_the_queue_went_away_is_handed_back(
    supervisor: Supervisor, scheduler: tuple[Scheduler, str], nats: EmbeddedNats
) -> None:
    with pytest.raises(nats_client.errors.ConnectionClosedError):
        await taken(supervisor, nats, is_cut_off=True)
    async with asyncio.timeout(60):
        heard = await scheduler[0].heard.get()
    assert heard.give_back == pb.GiveBack(lease_token=b"t", job_id=JOB, generation=1, stage=1, shards=[0, 1, 2])
    assert await supervisor.flush(5)


@pytest.mark.parametrize(
    "cancel",
    [
        None,
        pb.CancelTasks(job_id="j2", generation=1, now=True),
        pb.CancelTasks(job_id=JOB, generation=2, now=True),
        pb.CancelTasks(job_id=JOB, generation=1, stage=7, now=True),
    ],
    ids=["nothing", "another job", "another generation", "another stage"],
)
async def test_what_is_halted_elsewhere_stops_nothing_here(
    supervisor: Supervisor, scheduler: tuple[Scheduler, str], nats: EmbeddedNats, cancel: pb.CancelTasks | None
) -> None:
    scheduler[0].cancel = cancel
    await taken(supervisor, nats)
    async with asyncio.timeout(60):
        heard = await scheduler[0].heard.get()
    assert sorted(result.shard for result in heard.report.results) == [0, 1, 2]


async def handed_over(scheduler: Scheduler, batch: pb.LeaseBatch) -> pb.SessionRequest:
    """Hand a batch over and return what the executor says of it."""
    scheduler.hand_over(batch)
    async with asyncio.timeout(60):
        return await scheduler.heard.get()


async def test_what_is_handed_over_runs_without_a_claim(
    supervisor: Supervisor, scheduler: tuple[Scheduler, str]
) -> None:
    heard = await handed_over(scheduler[0], three_tasks())
    assert heard.report.lease_token == b"t"
    assert sorted(result.shard for result in heard.report.results) == [0, 1, 2]
    await supervisor.finish()


@pytest.mark.parametrize("now", [False, True])
async def test_what_is_halted_as_it_is_handed_over_goes_back_and_is_never_run(
    supervisor: Supervisor, scheduler: tuple[Scheduler, str], *, now: bool
) -> None:
    scheduler[0].cancel = pb.CancelTasks(job_id=JOB, generation=1, now=now)
    heard = await handed_over(scheduler[0], three_tasks())
    assert heard.give_back.shards == [0, 1, 2]
    assert await supervisor.flush(60)


async def test_what_cannot_be_run_here_goes_back(supervisor: Supervisor, scheduler: tuple[Scheduler, str]) -> None:
    heard = await handed_over(scheduler[0], three_tasks("image.resize"))
    assert heard.give_back.shards == [0, 1, 2]
    supervisor.drain()
    heard = await handed_over(scheduler[0], three_tasks())
    assert heard.give_back.shards == [0, 1, 2]
    assert await supervisor.flush(60)


async def test_what_is_handed_back_before_a_new_stream_is_up_is_told_on_it(
    supervisor: Supervisor, scheduler: tuple[Scheduler, str]
) -> None:
    served = scheduler[0]
    await served.hellos.get()
    batch = three_tasks("debug.sleep")
    batch.calls[0].params_json = b'{"seconds": 1}'
    served.hand_over(batch)
    served.welcomes.clear()
    served.hang_up()
    async with asyncio.timeout(60):
        hello = await served.hellos.get()
    assert [list(lease.held) for lease in hello.leases] == [[0, 1, 2]]
    # No stream is up, so there is nobody whom it could be told now.
    supervisor.drain()
    async with asyncio.timeout(60):
        await supervisor.finish()
    assert served.heard.empty()
    served.welcomes.set()
    async with asyncio.timeout(60):
        heard = await served.heard.get()
    # The first of them may have begun.
    assert heard.give_back.shards[-2:] == [1, 2]


# -- Columns ----------------------------------------------------------------------------------------------------------


async def reported(scheduler: Scheduler, tasks: int) -> dict[int, str]:
    """Return the keys of what came out by shard, and check that columns go only to who reads them."""
    found: dict[int, str] = {}
    async with asyncio.timeout(60):
        while len(found) < tasks:
            heard = await scheduler.heard.get()
            report = heard.report
            assert bool(report.results) is not scheduler.reads_columns
            assert bool(report.ordinary.shards) is scheduler.reads_columns
            rows = [(result.shard, result.output.inline) for result in report.results]
            rows += zip(report.ordinary.shards, report.ordinary.outputs, strict=True)
            for shard, output in rows:
                assert shard not in found
                (found[shard],) = [entry.key for entry in item_pb2.ItemBatch.FromString(output).items]
            scheduler.answers.put_nowait(pb.SessionResponse(report_ack=pb.ReportAck(report_id=report.report_id)))
    return found


@pytest.mark.parametrize("reads_columns", [False, True])
async def test_a_claim_of_columns_is_one_of_messages_for_who_does_not_read_them(
    supervisor: Supervisor, scheduler: tuple[Scheduler, str], nats: EmbeddedNats, *, reads_columns: bool
) -> None:
    await taken(supervisor, nats, three_in_columns())
    (claim,) = scheduler[0].claims
    keys = ([(task.shard, task.attempt) for task in claim.tasks], list(claim.keys.shards))
    assert keys == (([], [0, 1, 2]) if reads_columns else ([(0, 1), (1, 1), (2, 1)], []))
    assert await reported(scheduler[0], 3) == {0: "item-0", 1: "item-1", 2: "item-2"}
    assert await supervisor.flush(60)


@pytest.mark.parametrize("reads_columns", [False, True])
async def test_only_what_was_granted_of_columns_runs_and_reads_what_it_did(
    supervisor: Supervisor, scheduler: tuple[Scheduler, str], nats: EmbeddedNats
) -> None:
    scheduler[0].grants = (2,)
    await taken(supervisor, nats, three_in_columns())
    assert await reported(scheduler[0], 1) == {2: "item-2"}
    assert await supervisor.flush(60)


@pytest.mark.parametrize("reads_columns", [False, True])
async def test_what_is_handed_over_as_columns_runs_too(
    supervisor: Supervisor, scheduler: tuple[Scheduler, str]
) -> None:
    scheduler[0].hand_over(three_in_columns())
    assert await reported(scheduler[0], 3) == {0: "item-0", 1: "item-1", 2: "item-2"}
    await supervisor.finish()
    assert await supervisor.flush(60)


@pytest.mark.parametrize("reads_columns", [True])
async def test_columns_that_are_halted_go_back_as_a_whole(
    supervisor: Supervisor, scheduler: tuple[Scheduler, str], nats: EmbeddedNats
) -> None:
    scheduler[0].cancel = pb.CancelTasks(job_id=JOB, generation=1, now=True)
    await taken(supervisor, nats, three_in_columns())
    async with asyncio.timeout(60):
        heard = await scheduler[0].heard.get()
    assert heard.give_back.shards == [0, 1, 2]
    assert await supervisor.flush(60)


async def test_columns_that_do_not_fit_together_are_not_claimed(
    supervisor: Supervisor, scheduler: tuple[Scheduler, str], nats: EmbeddedNats
) -> None:
    batch = three_in_columns()
    batch.ordinary.places[1] = 7
    await taken(supervisor, nats, batch)
    assert scheduler[0].claims == []
    # It goes on with the next one.
    await taken(supervisor, nats, three_in_columns())
    assert len(await reported(scheduler[0], 3)) == 3
