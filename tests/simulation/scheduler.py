"""A scheduler process: every real part of a replica over a simulated PostgreSQL, NATS and network."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pixloom_scheduler.catalogue import OpCatalogue
from pixloom_scheduler.clock import DatabaseClock
from pixloom_scheduler.costs import CostModel
from pixloom_scheduler.dispatch import Dispatcher
from pixloom_scheduler.executors import ExecutorRegistry
from pixloom_scheduler.grants import Grants
from pixloom_scheduler.inputs import InputReader, OutputCache
from pixloom_scheduler.journal.committer import CommitsLostError, Committer, OwnershipLostError
from pixloom_scheduler.journal.membership import Membership
from pixloom_scheduler.journal.ownership import Deployment, Ownership
from pixloom_scheduler.messages import MessageComposer
from pixloom_scheduler.outside import Outside
from pixloom_scheduler.partitions import Partitions
from pixloom_scheduler.replica import Replica
from pixloom_scheduler.resolver import Resolver
from pixloom_scheduler.rpc.session import ExecutorSessions
from pixloom_scheduler.service import LEASE_S, RELEASE_S
from pixloom_scheduler.takeovers import HeldTakeovers
from pixloom_scheduler.timers import Timers
from pixloom_scheduler.tokens import TokenMint
from pixloom_scheduler.traces import Traces
from tests.simulation.loop import Process
from tests.simulation.reading import SimulatedLoader, SimulatedReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixloom_scheduler.core.changes import Change
    from pixloom_scheduler.live import LiveJob
    from tests.simulation.database import SimulatedDatabase
    from tests.simulation.jetstream import SimulatedNats
    from tests.simulation.network import Network
    from tests.simulation.world import World

__all__ = ["SchedulerProcess"]


class WatchedEffects:
    """The effects of a replica, with somebody looking on; what they say is what just became durable."""

    def __init__(self, inner: Outside, look: Callable[[LiveJob, list[Change]], None]) -> None:
        self._inner = inner
        self._look = look

    def committed(self, live: LiveJob, changes: list[Change]) -> None:
        """Look, then go on."""
        self._look(live, changes)
        self._inner.committed(live, changes)

    def resumed(self, live: LiveJob) -> None:
        """Look, unless the next step has begun, as this comes a turn of the loop after it was durable; then go on."""
        if live.run.seq == live.committed_seq:
            self._look(live, [])
        self._inner.resumed(live)

    def dropped(self, jobs: list[LiveJob]) -> None:
        """Go on."""
        self._inner.dropped(jobs)

    def settled(self) -> None:
        """Go on."""
        self._inner.settled()

    def served_pools(self) -> frozenset[str]:
        """Go on."""
        return self._inner.served_pools()


class SchedulerProcess:
    """One replica, wired as its service wires it, from start to end of its process."""

    def __init__(
        self,
        world: World,
        *,
        name: str,
        address: str,
        database: SimulatedDatabase,
        queue: SimulatedNats,
        network: Network,
        look: Callable[[SchedulerProcess, LiveJob, list[Change]], None],
        limits: dict[str, int] | None = None,
    ) -> None:
        self.world = world
        self.process = Process(name)
        self.address = address
        self.is_serving = False
        self.started_at = 0.0
        self._database = database
        self._network = network

        async def connect() -> Any:
            return await database.connect(self.process, transaction_timeout_s=LEASE_S * 0.8)

        monotonic = world.loop.time
        self.incarnation = database.incarnation
        self._ownership = Ownership(
            connect=connect,
            replica=name,
            address=address,
            lease_s=LEASE_S,
            deployment=Deployment(self.incarnation, "", database.token_key),
        )
        self.clock = DatabaseClock(
            wall=lambda: world.now() + world.rng.choice((-600, -2, 0, 2, 600)), monotonic=monotonic
        )
        self._timers = Timers(self.clock)
        costs = CostModel({})
        executors = ExecutorRegistry()
        definitions: Any = None
        outputs = OutputCache()
        self._loader: Any = SimulatedLoader(database)
        inputs = InputReader(cache=outputs, payloads=SimulatedReader(database))
        traces = Traces()

        async def run_at_once(work: Any) -> Any:
            await asyncio.sleep(world.latency())
            return work()

        rejects: Any = None  # jobs are recovered here; what retries look up is read in threads
        outside = Outside(
            executors=executors,
            timers=self._timers,
            traces=traces,
            resolver=Resolver(run_off_loop=run_at_once),
            rejects=rejects,
        )
        self.replica = Replica(
            journal=Committer(connect=connect, lease_s=LEASE_S),
            loader=self._loader,
            clock=self.clock,
            effects=WatchedEffects(outside, lambda live, changes: look(self, live, changes)),
            costs=costs.costs,
            lease_s=LEASE_S,
            monotonic=monotonic,
        )
        takeovers = HeldTakeovers(clock=self.clock, timers=self._timers)
        self.partitions = Partitions(
            replica_id=name,
            address=address,
            replica=self.replica,
            ownership=self._ownership,
            membership=lambda released: Membership(
                connect=connect, replica=name, address=address, lease_s=LEASE_S, released=released
            ),
            jobs=self._loader,
            takeovers=takeovers,
            monotonic=monotonic,
            chance=world.rng.random,
        )
        js: Any = queue.connect(self.process)
        self.dispatcher = Dispatcher(
            js=js,
            replica=self.replica,
            executors=executors,
            composer=MessageComposer(
                inputs=inputs,
                traces=traces,
                clock=self.clock,
                address=address,
                epoch_of=self.replica.epoch_of,
                read_columns=executors.read_columns,
            ),
            clock=self.clock,
            costs=costs.costs,
            new_id=lambda: f"{world.rng.getrandbits(128):032x}",
            limits=limits,
        )
        grants = Grants(
            replica=self.replica,
            dispatcher=self.dispatcher,
            mint=TokenMint(incarnation=self.incarnation, key=database.token_key, nonce=world.rng.randbytes),
            timers=self._timers,
            costs=costs.costs,
        )
        self.sessions = ExecutorSessions(
            replica=self.replica,
            executors=executors,
            dispatcher=self.dispatcher,
            inputs=inputs,
            outputs=outputs,
            costs=costs,
            catalogue=OpCatalogue(definitions),
            partitions=self.partitions,
            takeovers=takeovers,
            grants=grants,
            clock=self.clock,
            timers=self._timers,
            incarnation=str(self.incarnation),
        )
        outside.connect(replica=self.replica, dispatcher=self.dispatcher, sessions=self.sessions)
        self.dispatcher.connect(self.sessions.hand_over)
        self.partitions.connect(self.dispatcher.divide_limits)
        takeovers.connect(dispatcher=self.dispatcher, sessions=self.sessions)

    def start(self) -> None:
        """Begin to run."""
        self.world.log("scheduler_starts", self.process.name)
        self.process.spawn(self._main())

    async def _main(self) -> None:
        try:
            self.clock.set(await self._ownership.time())
            await self.partitions.join()
        except Exception as error:  # noqa: BLE001  # the process ends, whatever it was, and is started again
            self.world.log("scheduler_gives_up", self.process.name, type(error).__name__)
            self.kill()
            return
        self.world.log("taken", self.process.name, len(self.replica.stamps))
        self._network.listen(self.address, self.process, self.sessions)
        self.is_serving = True
        self.started_at = self.world.loop.time()
        self.sessions.watch_silence()
        for work in (self.replica.run(), self.dispatcher.run(), self._timers.run()):
            asyncio.create_task(work).add_done_callback(self._ended_by_itself)  # its process holds it
        self._levelling = asyncio.create_task(self.partitions.run())
        self._levelling.add_done_callback(self._ended_by_itself)

    def _ended_by_itself(self, task: asyncio.Task[None]) -> None:
        if not self.process.is_alive:
            return
        if task.cancelled() or not isinstance(task.exception(), OwnershipLostError | CommitsLostError):
            error = "it was cancelled" if task.cancelled() else repr(task.exception())
            self.world.violate("a part of a scheduler ends by itself", f"{self.process.name}: {error}")
        self.world.log("scheduler_ends", self.process.name, type(task.exception()).__name__)
        self.kill()

    def leave(self) -> None:
        """Give everything back and end, as on SIGTERM."""
        if self.process.is_alive and self.is_serving and not self.process.is_frozen:
            self.is_serving = False
            self.process.spawn(self._leave())

    async def _leave(self) -> None:
        self._levelling.remove_done_callback(self._ended_by_itself)
        self._levelling.cancel()
        try:
            async with asyncio.timeout(RELEASE_S):
                await asyncio.gather(self._levelling, return_exceptions=True)
                await self.partitions.release_all()
        except Exception as error:  # noqa: BLE001  # its leases end by themselves
            self.world.log("release_failed", self.process.name, type(error).__name__)
        self.kill()

    def kill(self) -> None:
        """End it between two steps."""
        if self.process.is_alive:
            self.is_serving = False
            self.process.kill()
            self._network.hang_up(self.process)
            self._database.drop(self.process)
