"""Which replica an executor takes for the owner of a partition, told by real servers that say what they like."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from pixloom.rpc.bundles import unbundled
from pixloom.rpc.channel import aio_channel
from pixloom.v1 import executor_pb2 as pb
from pixloom.v1 import executor_pb2_grpc
from pixloom_executor.children import ChildPool, ChildSettings
from pixloom_executor.leases import HeldLease, LeaseBook
from pixloom_executor.owners import Owners
from pixloom_executor.puller import Room
from pixloom_executor.session import Session
from pixloom_executor.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Replica(executor_pb2_grpc.ExecutorServiceServicer):
    """Says what it owns, who owns what, and which replicas there are."""

    def __init__(self) -> None:
        self.address = ""
        self.owned: list[pb.OwnedPartition] = []
        self.alive: list[str] = []
        self.answer = pb.WhoOwnsResponse()
        self.announced: asyncio.Queue[pb.Announce] = asyncio.Queue()
        self.hang_up = asyncio.Event()

    async def Session(
        self, request_iterator: AsyncIterator[pb.SessionRequest], context: Any
    ) -> AsyncIterator[pb.SessionResponse]:
        self.hang_up.clear()
        welcome = pb.Welcome(incarnation="i", owned=self.owned, replicas=self.alive, address=self.address)
        welcome.heartbeat_interval.FromMilliseconds(50)
        yield pb.SessionResponse(welcome=welcome)
        async for together in request_iterator:
            for request in unbundled(together):
                match request.WhichOneof("message"):
                    case "announce":
                        self.announced.put_nowait(request.announce)
                    case "heartbeat":
                        if self.hang_up.is_set():
                            await context.abort(grpc.StatusCode.UNAVAILABLE, "hangs up")
                        yield pb.SessionResponse(heartbeat_reply=pb.HeartbeatReply(replicas=self.alive))

    async def WhoOwns(self, request: pb.WhoOwnsRequest, context: Any) -> pb.WhoOwnsResponse:
        del request, context
        return self.answer

    def owns(self, epoch: int) -> None:
        self.owned = [pb.OwnedPartition(partition=0, epoch=epoch)]

    async def hears_of_leases(self) -> list[bytes]:
        async with asyncio.timeout(30):
            return [lease.lease_token for lease in (await self.announced.get()).leases]


@asynccontextmanager
async def served() -> AsyncIterator[Replica]:
    replica = Replica()  # type: ignore[abstract]  # the other calls are not made
    server = grpc.aio.server()
    executor_pb2_grpc.add_ExecutorServiceServicer_to_server(replica, server)
    replica.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield replica
    finally:
        await server.stop(grace=None)


class Executor:
    """The sessions of an executor that holds one lease, unless it is idle, and their channels."""

    def __init__(self, folder: Path, *configured: str, is_idle: bool = False) -> None:
        book = self.book = LeaseBook()
        self.lease = HeldLease(b"t", pb.LeaseBatch(job_id="j", partition=0), ((0, 1),), {0})
        if not is_idle:
            book.hold(self.lease)
        # Never started: nothing here is to be run.
        children = ChildPool(
            slots=1, settings=ChildSettings(artifacts_url=folder.as_uri(), scratch_dir=str(folder / "scratch"))
        )
        supervisor = Supervisor(executor_id="x", children=children, book=book)
        self.channels: dict[str, grpc.aio.Channel] = {}

        def open_session(address: str, owners: Owners) -> Session:
            channel = self.channels[address] = aio_channel(address, is_traced=False)
            return Session(
                address=address, channel=channel, hello=pb.Hello, book=book, listener=supervisor, owners=owners
            )

        self.owners = Owners(configured=configured, open_session=open_session, book=book)
        supervisor.connect(owners=self.owners, room=Room(batches=lambda: 0, is_open=lambda: False), ops=())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Executor]:
        serving = asyncio.create_task(self.owners.run())
        try:
            yield self
        finally:
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving

    def owner(self) -> str | None:
        session = self.owners.owner(0)
        return session.address if session is not None else None


@pytest.fixture
async def first() -> AsyncIterator[Replica]:
    async with served() as replica:
        yield replica


@pytest.fixture
async def second() -> AsyncIterator[Replica]:
    async with served() as replica:
        yield replica


async def test_the_database_is_believed_after_it_was_put_back(tmp_path: Path, first: Replica, second: Replica) -> None:
    first.owns(9)
    async with Executor(tmp_path, first.address, second.address).running() as executor:
        assert await first.hears_of_leases() == [b"t"]
        # Put back to a moment at which the partition was yet to be taken, by the other one as it happens.
        first.answer = second.answer = pb.WhoOwnsResponse(address=second.address, epoch=3)
        executor.owners.seek(0)
        assert await second.hears_of_leases() == [b"t"]
        assert executor.owner() == second.address


async def test_a_replica_is_believed_about_itself(tmp_path: Path, first: Replica) -> None:
    first.owns(9)
    async with Executor(tmp_path, first.address).running() as executor:
        assert await first.hears_of_leases() == [b"t"]
        first.owns(3)
        first.hang_up.set()
        assert await first.hears_of_leases() == [b"t"]
        assert executor.owner() == first.address


async def test_who_held_nothing_looks_for_the_owner_of_what_it_is_given(
    tmp_path: Path, first: Replica, second: Replica
) -> None:
    first.owned = [pb.OwnedPartition(partition=1, epoch=1)]
    second.owned = [pb.OwnedPartition(partition=2, epoch=1)]
    first.answer = second.answer = pb.WhoOwnsResponse(address=second.address, epoch=2)
    async with Executor(tmp_path, first.address, second.address, is_idle=True).running() as executor:
        assert await first.hears_of_leases() == []
        assert await second.hears_of_leases() == []
        session = executor.owners.owner(1)
        assert session is not None
        executor.book.hold(executor.lease)
        executor.owners.granted(session, executor.lease.batch)
        assert await second.hears_of_leases() == [b"t"]
        assert executor.owner() == second.address


async def test_nothing_is_kept_open_to_a_replica_that_is_gone(tmp_path: Path, first: Replica) -> None:
    first.owns(1)
    async with Executor(tmp_path, first.address).running() as executor:
        async with served() as gone:
            gone.owned = [pb.OwnedPartition(partition=1, epoch=1)]
            first.alive = [first.address, gone.address]
            async with asyncio.timeout(30):
                await gone.announced.get()
        first.alive = [first.address]
        async with asyncio.timeout(30):
            state = executor.channels[gone.address].get_state
            while state() is not grpc.ChannelConnectivity.SHUTDOWN:  # noqa: ASYNC110 - gRPC tells nobody of its end
                await asyncio.sleep(0.02)
        assert executor.owner() == first.address
