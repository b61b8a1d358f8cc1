"""An executor process: the real supervisor, sessions, lease book and pullers over simulated children and networks."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import nats.errors

from pixloom.graph.builtin import builtin_catalogue
from pixloom.opcodec import op_to_proto
from pixloom.queue import LANES
from pixloom.v1 import executor_pb2
from pixloom_executor.leases import LeaseBook
from pixloom_executor.owners import Owners
from pixloom_executor.puller import Puller, Room
from pixloom_executor.session import Session
from pixloom_executor.supervisor import Supervisor
from tests.simulation.children import ChildFaults, SimulatedChildren
from tests.simulation.loop import Process
from tests.simulation.network import Network, SimulatedChannel

if TYPE_CHECKING:
    from tests.simulation.jetstream import SimulatedNats
    from tests.simulation.world import World

__all__ = ["ExecutorProcess"]

DRAIN_S = 30.0
FLUSH_S = 5.0
OPS = [op_to_proto(op) for op in builtin_catalogue() if op.name in ("debug.noop", "debug.fail")]
"""What the workload needs."""


class ExecutorProcess:
    """One executor, wired as its service wires it."""

    def __init__(
        self,
        world: World,
        *,
        name: str,
        network: Network,
        queue: SimulatedNats,
        faults: ChildFaults,
        addresses: tuple[str, ...],
        slots: int,
    ) -> None:
        self.world = world
        self.process = Process(name)
        self.book = LeaseBook()
        self._network = network
        children: Any = SimulatedChildren(world, faults, slots=slots, executor=name)
        self.supervisor = Supervisor(executor_id=name, children=children, book=self.book)

        def open_session(address: str, owners: Owners) -> Session:
            return Session(
                address=address,
                channel=SimulatedChannel(network, self.process, address),  # type: ignore[arg-type]
                hello=self._hello,
                book=self.book,
                listener=self.supervisor,
                owners=owners,
            )

        self._owners = Owners(configured=addresses, open_session=open_session, book=self.book)
        self._slots = slots
        self._reads_columns = faults.columns
        # Some are of a version that does not.
        self._reads_siblings = faults.siblings and random.Random(f"{world.seed} {name} siblings").random() < 0.85
        self._room = Room(batches=lambda: 2 * slots, urgent=lambda: slots, is_open=self.supervisor.has_room)
        self.supervisor.connect(owners=self._owners, room=self._room, ops=(op.name for op in OPS))
        js: Any = queue.connect(self.process)
        self._pullers = [
            Puller(js=js, pool="cpu", lane=lane, room=self._room, take=self.supervisor.take, jitter=world.rng.random)
            for lane in LANES
        ]

    def start(self) -> None:
        """Begin to run."""
        self.world.log("executor_starts", self.process.name)
        self.process.spawn(self._main())

    def _hello(self) -> executor_pb2.Hello:
        return executor_pb2.Hello(
            executor_id=self.process.name,
            pools=["cpu"],
            slots=self._slots,
            ops=OPS,
            leases=self.book.announced(),
            open_slots=self.supervisor.open_slots(),
            reads_columns=self._reads_columns,
            reads_siblings=self._reads_siblings,
        )

    async def _main(self) -> None:
        tasks = [asyncio.create_task(self._owners.run()), asyncio.create_task(self.supervisor.watch_slots())]
        pulls = [asyncio.create_task(puller.run()) for puller in self._pullers]
        drained = asyncio.create_task(self.supervisor.wait_for_drain())
        for task in (*tasks, *pulls):
            task.add_done_callback(self._ended_by_itself)
        await drained
        for pull in pulls:
            pull.remove_done_callback(self._ended_by_itself)
            pull.cancel()
        try:
            async with asyncio.timeout(DRAIN_S):
                await self.supervisor.finish()
                for puller in self._pullers:
                    await puller.finish()
        except TimeoutError:
            pass
        flushed = await self.supervisor.flush(FLUSH_S)
        self.world.log("executor_leaves", self.process.name, flushed)
        self.kill()

    def _ended_by_itself(self, task: asyncio.Task[None]) -> None:
        if not self.process.is_alive:
            return
        error = "it was cancelled" if task.cancelled() else repr(task.exception())
        if not task.cancelled() and isinstance(task.exception(), nats.errors.Error):
            error = f"nats: {error}"
        self.world.violate("a part of an executor ends by itself", f"{self.process.name}: {error}")

    def kill(self) -> None:
        """End it between two steps."""
        if self.process.is_alive:
            self.process.kill()
            self._network.hang_up(self.process)
