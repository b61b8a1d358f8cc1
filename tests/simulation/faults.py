"""What goes wrong in a run, and the processes it happens to."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from pixloom.v1 import executor_pb2, job_pb2
from tests.simulation.children import ChildFaults
from tests.simulation.executor import ExecutorProcess
from tests.simulation.invariants import FORGED
from tests.simulation.items import manifest_of
from tests.simulation.looks import Looks
from tests.simulation.scheduler import SchedulerProcess

if TYPE_CHECKING:
    import random

    from tests.simulation.database import SimulatedDatabase
    from tests.simulation.invariants import Invariants
    from tests.simulation.jetstream import SimulatedNats
    from tests.simulation.network import Network, Stream
    from tests.simulation.world import World

__all__ = ["Faults", "Storm"]

STARVED_STEPS_S = (0.005, 0.02, 0.05)
"""Time that each callback of a starved scheduler takes: it is slow, always late, or hardly gets to anything."""


@dataclass(slots=True)
class Faults:
    """Rates by kind of fault: how many a second, or how often out of all; 0 means never.

    Without `hand_over` executors never say that they have room, so that all work comes by NATS; without `columns` they
    are of a version that reads and writes every task as a message. With `siblings` jobs have stages that do the same, and
    most executors take several of them at once. With `limit_pool` so many batches may run at once in
    all, and with `limit_jobs` so many jobs; 0 for no limit. A run draws about half of the kinds. Runs with few faults go
    deep where those with many only thrash.
    """

    replicas: int = 1
    commands: bool = False
    hand_over: bool = True
    columns: bool = True
    siblings: bool = False
    limit_pool: int = 0
    limit_jobs: int = 0
    database: float = 0.0
    unknown_commits: float = 0.0
    database_down: float = 0.0
    poison: float = 0.0
    restore: float = 0.0
    queue_loss: float = 0.0
    queue_repeat: float = 0.0
    queue_reorder: float = 0.0
    queue_silence: float = 0.0
    queue_wipe: float = 0.0
    queue_down: float = 0.0
    stream_snap: float = 0.0
    stream_stall: float = 0.0
    report_repeat: float = 0.0
    report_forge: float = 0.0
    lease_forge: float = 0.0
    child_fail: float = 0.0
    child_refuse: float = 0.0
    child_partial: float = 0.0
    child_crash: float = 0.0
    child_hang: float = 0.0
    executor_kill: float = 0.0
    executor_freeze: float = 0.0
    executor_drain: float = 0.0
    scheduler_kill: float = 0.0
    scheduler_freeze: float = 0.0
    scheduler_leave: float = 0.0
    scheduler_starve: float = 0.0

    @classmethod
    def drawn(cls, rng: random.Random) -> Faults:
        """Return a random mix."""
        most: dict[str, float] = {
            "database": 0.03, "unknown_commits": 0.05, "database_down": 0.05, "poison": 0.02, "restore": 0.03,
            "queue_loss": 0.1, "queue_repeat": 0.2, "queue_reorder": 0.3, "queue_silence": 0.03, "queue_wipe": 0.1,
            "queue_down": 0.05, "stream_snap": 0.3, "stream_stall": 0.2, "report_repeat": 0.3, "report_forge": 0.3, "lease_forge": 0.3,
            "child_fail": 0.15, "child_refuse": 0.02, "child_partial": 0.3, "child_crash": 0.15, "child_hang": 0.01,
            "executor_kill": 0.2, "executor_freeze": 0.1, "executor_drain": 0.05, "scheduler_kill": 0.15,
            "scheduler_freeze": 0.1, "scheduler_leave": 0.1, "scheduler_starve": 0.1,
        }  # fmt: skip
        share = rng.choice((0.2, 0.4, 0.6))
        drawn = {name: rng.uniform(0, rate) if rng.random() < share else 0.0 for name, rate in most.items()}
        drawn["restore"] *= rng.random() < 0.3
        replicas, commands, hand_over = rng.choice((1, 2, 2, 3)), rng.random() < 0.6, rng.random() < 0.5
        return cls(
            replicas=replicas,
            commands=commands,
            hand_over=hand_over,
            columns=rng.random() < 0.7,
            siblings=False,
            limit_pool=0,
            limit_jobs=0,
            **drawn,
        )

    def __str__(self) -> str:
        return " ".join(
            f"{item.name}={getattr(self, item.name):.3g}" for item in fields(self) if getattr(self, item.name)
        )


@dataclass(slots=True)
class _Place:
    """Where a process runs, one after another."""

    address: str
    number: int = 0
    scheduler: SchedulerProcess | None = None
    executor: ExecutorProcess | None = None
    zombies: list[Any] = field(default_factory=list)


class Storm:
    """Starts processes, harms them, and starts them again."""

    def __init__(
        self,
        world: World,
        faults: Faults,
        database: SimulatedDatabase,
        queue: SimulatedNats,
        network: Network,
        invariants: Invariants,
    ) -> None:
        self.faults = faults
        self._world = world
        self._database = database
        self._queue = queue
        self._network = network
        self._invariants = invariants
        self._schedulers = [_Place(address) for address in ("a", "b", "c")[: faults.replicas]]
        self._executors = [_Place(f"x{number}") for number in range(world.rng.randint(1, 3))]
        self._named = world.rng.randint(1, len(self._schedulers))
        self._slots = world.rng.choice((1, 1, 2, 4))
        self._tasks: list[asyncio.Task[None]] = []
        self._lost_jobs: set[str] = set()
        self._reports = 10**6
        self.replicas = len(self._schedulers)
        self.look = Looks(world, self).look
        self.ended = 0
        database.fault_rate, database.unknown_rate = faults.database, faults.unknown_commits
        queue.loss_rate, queue.repeat_rate = faults.queue_loss, faults.queue_repeat
        queue.reorder_rate, queue.silence_rate = faults.queue_reorder, faults.queue_silence
        database.refuses = lambda row: row.get("detail") == "poison"
        network.on_request = self._on_request
        self._children = ChildFaults(
            fail_rate=faults.child_fail,
            refuse_rate=faults.child_refuse,
            partial_rate=faults.child_partial,
            crash_rate=faults.child_crash,
            hang_rate=faults.child_hang,
            poison_rate=faults.poison,
            hand_over=faults.hand_over,
            columns=faults.columns,
            siblings=faults.siblings,
        )
        world.log("faults", faults)

    # -- Processes ----------------------------------------------------------------------------------------------------

    def serving(self) -> list[SchedulerProcess]:
        """Return the schedulers that serve."""
        return [
            place.scheduler
            for place in self._schedulers
            if place.scheduler is not None and place.scheduler.is_serving and place.scheduler.process.is_alive
        ]

    def _start_scheduler(self, place: _Place) -> None:
        place.number += 1
        place.scheduler = SchedulerProcess(
            self._world,
            name=f"{place.address}{place.number}",
            address=place.address,
            database=self._database,
            queue=self._queue,
            network=self._network,
            look=self._invariants.said,
            limits={name: most for name, most in self._limits().items() if most},
        )
        place.scheduler.start()

    def _limits(self) -> dict[str, int]:
        return {"pool.cpu": self.faults.limit_pool, "jobs": self.faults.limit_jobs}

    def _start_executor(self, place: _Place) -> None:
        place.number += 1
        place.executor = ExecutorProcess(
            self._world,
            name=f"{place.address}.{place.number}",
            network=self._network,
            queue=self._queue,
            faults=self._children,
            # Whoever is not named is found through the others.
            addresses=tuple(scheduler.address for scheduler in self._schedulers)[: self._named],
            slots=self._slots,
        )
        place.executor.start()

    def executors(self) -> list[ExecutorProcess]:
        """Return the executors that were started last in each place."""
        return [place.executor for place in self._executors if place.executor is not None]

    async def _keep_up(self) -> None:
        """Start again what has ended."""
        while True:
            for place in self._schedulers:
                if place.scheduler is None or not place.scheduler.process.is_alive:
                    self._start_scheduler(place)
            for place in self._executors:
                if place.executor is None or not place.executor.process.is_alive:
                    self._start_executor(place)
            await asyncio.sleep(self._world.rng.uniform(0.1, 1.0))

    # -- Harm ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin."""
        self._tasks.append(asyncio.create_task(self._keep_up()))
        strikes = {
            "database_down": self._database_down,
            "restore": self._restore,
            "queue_wipe": self._wipe,
            "queue_down": self._queue_down,
            "stream_snap": self._snap,
            "stream_stall": self._stall,
            "lease_forge": self._forge_lease,
            "executor_kill": self._kill_executor,
            "executor_freeze": self._freeze_executor,
            "executor_drain": self._drain_executor,
            "scheduler_kill": self._kill_scheduler,
            "scheduler_freeze": self._freeze_scheduler,
            "scheduler_leave": self._dismiss_scheduler,
            "scheduler_starve": self._starve_scheduler,
        }
        for name, strike in strikes.items():
            rate = getattr(self.faults, name)
            if rate:
                self._tasks.append(asyncio.create_task(self._again_and_again(rate, strike)))

    async def _again_and_again(self, rate: float, strike: Any) -> None:
        while True:
            await asyncio.sleep(self._world.rng.expovariate(rate))
            if self._world.is_calm:
                return
            self._world.log("strike", strike.__name__.strip("_"))
            strike()

    async def calm_down(self) -> None:
        """Stop harming; what is down comes back."""
        self._world.log("calm")
        self._world.is_calm = True
        self._database.is_down = False
        self._come_back()
        for place in [*self._schedulers, *self._executors]:
            process = (place.scheduler or place.executor).process  # type: ignore[union-attr]
            process.step_s = 0.0
            if process.is_frozen:
                process.thaw()

    def end(self) -> None:
        """Stop everything."""
        for task in self._tasks:
            task.cancel()

    def _pick(self, places: list[_Place]) -> _Place:
        return self._world.rng.choice(places)

    def _kill_executor(self) -> None:
        executor = self._pick(self._executors).executor
        if executor is not None:
            executor.kill()

    def _kill_scheduler(self) -> None:
        scheduler = self._pick(self._schedulers).scheduler
        if scheduler is not None:
            scheduler.kill()

    def _dismiss_scheduler(self) -> None:
        scheduler = self._pick(self._schedulers).scheduler
        if scheduler is not None:
            scheduler.leave()

    def _freeze_executor(self) -> None:
        executor = self._pick(self._executors).executor
        if executor is not None and executor.process.is_alive:
            self._freeze(executor.process)

    def _freeze_scheduler(self) -> None:
        scheduler = self._pick(self._schedulers).scheduler
        if scheduler is not None and scheduler.process.is_alive:
            self._freeze(scheduler.process)

    def _freeze(self, process: Any) -> None:
        if not process.is_frozen:
            process.freeze()
            self._world.after(self._world.rng.uniform(0.2, 9), lambda: process.thaw() if process.is_frozen else None)

    def _starve_scheduler(self) -> None:
        """Let everything that a scheduler does take long for a while."""
        scheduler = self._pick(self._schedulers).scheduler
        if scheduler is not None and scheduler.process.is_alive and not scheduler.process.step_s:
            process = scheduler.process
            process.step_s = self._world.rng.choice(STARVED_STEPS_S)
            self._world.after(self._world.rng.uniform(3, 20), lambda: setattr(process, "step_s", 0.0))

    def _drain_executor(self) -> None:
        executor = self._pick(self._executors).executor
        if executor is not None and executor.process.is_alive and not executor.process.is_frozen:
            executor.process.context.copy().run(executor.supervisor.drain)

    def _snap(self) -> None:
        if self._network.streams:
            stream = self._world.rng.choice(list(self._network.streams))
            stream.snap(self._world.rng.choice((0.01, 0.5, 4.0)))

    def _stall(self) -> None:
        if self._network.streams:
            self._world.rng.choice(list(self._network.streams)).stall(self._world.rng.uniform(0.2, 8))

    def _wipe(self) -> None:
        self._queue.wipe()
        self._reconnected()

    def _queue_down(self) -> None:
        self._queue.is_down = True
        self._world.after(self._world.rng.uniform(0.2, 6), self._come_back)

    def _come_back(self) -> None:
        if self._queue.is_down:
            self._queue.is_down = False
            self._reconnected()

    def _reconnected(self) -> None:
        """Tell the schedulers, as the NATS client does."""
        for scheduler in self.serving():
            scheduler.process.spawn(scheduler.dispatcher.reconnected())

    def _database_down(self) -> None:
        self._database.is_down = True
        self._database.drop()
        self._world.after(self._world.rng.uniform(0.2, 5), self._database_up)

    def _database_up(self) -> None:
        self._database.is_down = False

    def _restore(self) -> None:
        """Let the database lose its latest commits, and empty the queue as whoever restores a database has to.

        Takeovers are not lost: an epoch that is given out twice tells nobody apart. Schedulers that may have seen one
        have to be stopped before a database is restored to a moment before it.
        """
        before = set(self._database.tables.jobs)
        commits = self._database.commits
        taken = max((number for number, commit in enumerate(commits, start=1) if commit.is_takeover), default=0)
        self._database.restore(max(taken, len(commits) - self._world.rng.randint(0, 20)))
        self._queue.wipe()
        self._reconnected()
        self._lost_jobs |= before - set(self._database.tables.jobs)

    # -- Reports ------------------------------------------------------------------------------------------------------

    def _on_request(self, stream: Stream, message: executor_pb2.SessionRequest) -> list[tuple[float, Any]]:
        sent: list[tuple[float, Any]] = [(0.0, message)]
        self._invariants.requested(stream, message)
        if message.WhichOneof("message") != "report" or self._world.is_calm:
            return sent
        rng = self._world.rng
        if self._world.chance(self.faults.report_repeat):
            sent += [(rng.expovariate(1.0), message) for _ in range(rng.randint(1, 2))]
        if self._world.chance(self.faults.report_forge):
            sent.append((rng.choice((0.0, rng.expovariate(1.0))), self._forge(stream, message)))
            if rng.random() < 0.5:
                sent.reverse()
        return sent

    def _forge(self, stream: Stream, message: executor_pb2.SessionRequest) -> executor_pb2.SessionRequest:
        """Return a report that no scheduler may believe."""
        forged = executor_pb2.SessionRequest()
        forged.CopyFrom(message)
        report = forged.report
        self._reports += 1
        report.report_id = self._reports
        for result in report.results:
            result.detail = FORGED
        columns = report.ordinary
        columns.outputs[:] = [manifest_of([FORGED]).inline] * len(columns.outputs)
        columns.items[:] = [1] * len(columns.items)
        match self._world.rng.choice(("token", "generation", "attempt", "job", "stage")):
            case "token":
                report.lease_token = self._world.rng.randbytes(32)
            case "generation":
                report.generation += 1
            case "attempt":
                for result in report.results:
                    result.attempt += self._world.rng.choice((1, 2))
                columns.attempts[:] = [attempt + self._world.rng.choice((1, 2)) for attempt in columns.attempts]
            case "job":
                report.job_id = self._world.rng.choice([*self._database.tables.jobs, "0" * 32])
                if report.job_id == message.report.job_id:
                    report.lease_token = b""
            case _:
                report.stage += 1
                for result in report.results:
                    result.attempt += 7
                columns.attempts[:] = [attempt + 7 for attempt in columns.attempts]
        self._invariants.requested(stream, forged)
        return forged

    def _forge_lease(self) -> None:
        """Announce a lease that nobody granted, or not for these tasks, and report with it."""
        found = [
            (job_id, *place) for job_id in self._database.tables.jobs for place in self._invariants.open_tasks(job_id)
        ]
        if not found or not self._network.streams:
            return
        stream = self._world.rng.choice(list(self._network.streams))
        job_id, stage, shard, attempt = self._world.rng.choice(found)
        place: dict[str, Any] = {"lease_token": self._world.rng.randbytes(32), "job_id": job_id, "generation": 1}
        place["stage"] = stage
        task = executor_pb2.TaskKey(shard=shard, attempt=attempt)
        lease = executor_pb2.Lease(tasks=[task], held=[shard], **place)
        granted = [each for each in sorted(self._invariants.siblings) if each[0] == stream.client.name]
        granted = [each for each in granted if self._invariants.open_tasks(each[1])]
        if granted and self._world.rng.random() < 0.8:
            # With what was granted to it for other stages of their job.
            _, job_id, generation, token = self._world.rng.choice(granted)
            stage, _, attempt = self._world.rng.choice(self._invariants.open_tasks(job_id))
            shard = stage
            place = {"lease_token": token, "job_id": job_id, "generation": generation, "stage": stage}
            task = executor_pb2.TaskKey(shard=stage, attempt=attempt)
            lease = executor_pb2.Lease(tasks=[task], held=[stage], siblings=True, **place)
        self._reports += 1
        result = executor_pb2.TaskResult(
            shard=shard, attempt=attempt, outcome=job_pb2.ATTEMPT_OUTCOME_OK, detail=FORGED
        )
        report = executor_pb2.Report(report_id=self._reports, results=[result], **place)
        for message in (
            executor_pb2.SessionRequest(announce=executor_pb2.Announce(leases=[lease])),
            executor_pb2.SessionRequest(report=report),
        ):
            self._invariants.requested(stream, message)
            stream.send_to_server(message)

    # -- The end ------------------------------------------------------------------------------------------------------

    def surviving(self, jobs: list[str]) -> list[str]:
        """Return the jobs that no restore took away."""
        return [job for job in jobs if job not in self._lost_jobs]

    def count_ended(self) -> None:
        """Remember how many jobs have ended by now."""
        self.ended = sum(row["end_time"] is not None for row in self._database.tables.jobs.values())

    def is_everything_over(self) -> bool:
        """Return whether no job is unfinished."""
        return all(row["end_time"] is not None for row in self._database.tables.jobs.values())

    def leftovers(self) -> list[str]:
        """Return what should not be left once all is quiet."""
        left = []
        for scheduler in self.serving():
            for job_id, live in scheduler.replica.jobs.items():
                if live.run.leases:
                    left.append(f"leases of job {job_id[-4:]} in {scheduler.process.name}")
            if scheduler.dispatcher._offers:
                left.append(f"{len(scheduler.dispatcher._offers)} offers of {scheduler.process.name}")
        executors = [place.executor for place in self._executors if place.executor is not None]
        left += [
            f"{len(executor.book)} leases in {executor.process.name}"
            for executor in executors
            if executor.process.is_alive and len(executor.book)
        ]
        return left
