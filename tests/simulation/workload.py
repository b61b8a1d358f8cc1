"""Jobs of random shape, and the client that submits, pauses, resumes, cancels and recovers them."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from pixloom.errors import PixloomError, UnavailableError
from pixloom.graph.catalogue import OpKind
from pixloom.graph.plan import Edge, NodePlan, OnError, Plan, RetryPolicy, StageKind, StagePlan
from pixloom.graph.plan_codec import plan_to_json
from pixloom_scheduler.core.changes import NewPlan
from pixloom_scheduler.core.events import (
    CancelRequested,
    PauseRequested,
    RecoverRequested,
    ResumeRequested,
    StartRequested,
    UpdateRequested,
)
from pixloom_scheduler.core.model import JobRun
from pixloom_scheduler.job import JobHeader
from pixloom_scheduler.journal.batch import NewJob
from pixloom_scheduler.live import LiveJob
from tests.simulation.loop import Process
from tests.simulation.siblings import with_siblings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.simulation.database import SimulatedDatabase
    from tests.simulation.scheduler import SchedulerProcess
    from tests.simulation.world import World

__all__ = ["Client", "random_plan"]

MOST_RECOVERIES = 3
END_WITHIN_S = 60.0
"""How long somebody who means to recover a job waits for its end."""

_KINDS = {StageKind.SOURCE: OpKind.SOURCE, StageKind.MAPPED: OpKind.ITEM, StageKind.WHOLE: OpKind.COLLECTION}


def random_plan(rng: random.Random) -> Plan:
    """Return a plan of two to six stages: sources, chains of item ops and collection ops, some with conditions."""
    nodes: list[NodePlan] = []
    stages: list[StagePlan] = []
    shard_size = rng.choice((1, 2, 3, 5))
    attempts = rng.choice((2, 3, 4))
    for index in range(rng.randint(2, 6)):
        kind = (
            StageKind.SOURCE
            if index == 0
            else rng.choice((StageKind.MAPPED,) * 5 + (StageKind.WHOLE,) * 3 + (StageKind.SOURCE,))
        )
        producers = [] if kind is StageKind.SOURCE else sorted(rng.sample(range(index), rng.randint(1, min(2, index))))
        length = rng.choice((1, 1, 2, 3)) if kind is StageKind.MAPPED else 1
        gives = [stages[producer].nodes[-1] for producer in producers]
        when = f"nodes.n{gives[0]}.ok >= {rng.choice((0, 0, 3))}" if gives and rng.random() < 0.2 else ""
        chain = tuple(range(len(nodes), len(nodes) + length))
        for place, number in enumerate(chain):
            nodes.append(
                NodePlan(
                    id=f"n{number}",
                    op="debug.noop@1",
                    kind=_KINDS[kind],
                    stage=index,
                    params={},
                    when=when if place == 0 else "",
                    needs=tuple(gives) if place == 0 else (number - 1,),
                    on_error=rng.choice((OnError.QUARANTINE, OnError.QUARANTINE, OnError.SKIP)),
                    max_failed_ratio=rng.choice((1.0, 1.0, 1.0, 0.3)),
                    timeout_s=2.0,
                    cost_s=rng.choice((0.001, 0.01, 0.1)),
                )
            )
        waits = tuple(gives) if when or (gives and rng.random() < 0.1) else ()
        edges = tuple(
            Edge(producer=producer, port="items", position=place if len(producers) > 1 else None)
            for place, producer in enumerate(producers)
        )
        retry = RetryPolicy(max_attempts=attempts, initial_backoff_s=rng.choice((0.05, 0.5)))
        stages.append(
            StagePlan(
                index=index, kind=kind, nodes=chain, inputs=edges, shard_size=shard_size, retry=retry, after=waits
            )
        )
    return Plan(nodes=tuple(nodes), stages=tuple(stages), timeout_s=20.0 if rng.random() < 0.05 else None)


class Client:
    """Somebody who uses the schedulers, patiently.

    Attributes:
        accepted: Jobs that a scheduler said it accepted.
        cancelled: Jobs that a scheduler said it cancels.
    """

    def __init__(
        self,
        world: World,
        database: SimulatedDatabase,
        serving: Callable[[], list[SchedulerProcess]],
        *,
        siblings: bool = False,
    ) -> None:
        self.accepted: dict[str, None] = {}
        self.cancelled: dict[str, None] = {}
        self.process = Process("client")
        self._world = world
        self._database = database
        self._serving = serving
        self._siblings = siblings
        self._requests = 0

    def start(self, jobs: int, *, commands: bool) -> None:
        """Submit jobs one after another, and meddle with them."""
        for _ in range(jobs):
            self._requests += 1
            self.process.spawn(self._live(f"request-{self._requests}", commands=commands))

    async def _live(self, request: str, *, commands: bool) -> None:
        rng = self._world.rng
        await asyncio.sleep(rng.uniform(0, 12))
        starts = rng.random() < 0.8
        job_id = await self._submit(request, self._plan(request), starts=starts)
        if not starts:
            await asyncio.sleep(rng.uniform(0, 3))
            await self._command(job_id, StartRequested(self._new_plan(request) if rng.random() < 0.5 else None))
        if commands and rng.random() < 0.2:
            await self._command(job_id, UpdateRequested(priority=rng.choice((0, 9))))
        if commands and rng.random() < 0.3:
            await asyncio.sleep(rng.expovariate(1.0))
            await self._command(job_id, PauseRequested(now=rng.random() < 0.5))
            await asyncio.sleep(rng.expovariate(0.5))
            await self._command(job_id, ResumeRequested())
        if commands and rng.random() < 0.2:
            await asyncio.sleep(rng.expovariate(1.0))
            if await self._command(job_id, CancelRequested("enough", now=rng.random() < 0.5)):
                self.cancelled[job_id] = None
        if commands:
            await self._recover_when_it_ends(job_id, random.Random(f"{self._world.seed} {request}"))

    def _plan(self, request: str) -> Plan:
        plan = random_plan(self._world.rng)
        if not self._siblings:
            return plan
        return with_siblings(plan, random.Random(f"{self._world.seed} {request} siblings"))

    def _new_plan(self, request: str) -> NewPlan:
        plan = self._plan(request)
        return NewPlan(plan, plan_to_json(plan), b"{}")

    async def help_along(self) -> None:
        """Start and resume what still waits for that."""
        for job_id, row in sorted(self._database.tables.jobs.items()):
            if row["state"] == "PENDING":
                await self._command(job_id, StartRequested())
            elif row["state"] == "PAUSED":
                await self._command(job_id, ResumeRequested())

    async def _submit(self, request: str, plan: Plan, *, starts: bool) -> str:
        while True:
            before = self._database.tables.requests.get(("default", request))
            if before is not None:
                self._accept(before)
                return before
            scheduler = self._any()
            if scheduler is not None:
                answer = await self._ask(scheduler, lambda owner: self._create(owner, request, plan, starts=starts))
                if isinstance(answer, str):
                    self._accept(answer)
                    return answer
            await asyncio.sleep(self._world.rng.uniform(0.1, 0.5))

    def _accept(self, job_id: str) -> None:
        self._world.log("accepted", job_id[-4:])
        self.accepted[job_id] = None
        # The answer may be on its way while a restore takes the job away.
        if job_id not in self._database.jobs_ever:
            self._world.violate("no reply leaves before its commit", f"job {job_id} was accepted and is not there")

    async def _create(self, scheduler: SchedulerProcess, request: str, plan: Plan, *, starts: bool) -> str:
        rng, now = self._world.rng, datetime.fromtimestamp(self._world.now(), UTC)
        open_partitions = scheduler.replica.open_partitions()
        if not open_partitions:
            raise UnavailableError("this scheduler owns no partition at the moment")
        partition = rng.choice(open_partitions)
        job_id = f"{rng.getrandbits(120):030x}{partition:02x}"
        header = JobHeader(
            id=job_id,
            partition=partition,
            project="default",
            day=now.date(),
            name="job",
            workflow="workflow",
            version=0,
            sha256="",
            params_json=b"{}",
            metadata_json=b"{}",
            create_time=now,
            request_id=request,
            priority=rng.choice((5, 5, 9)),
        )
        new = NewJob(header, b"{}", plan_to_json(plan), "RUNNING" if starts else "PENDING")
        run = JobRun.of(job_id, partition, replace(plan), priority=header.priority)
        await scheduler.replica.submit(new, LiveJob(header, run), start=starts)
        return job_id

    async def _command(self, job_id: str, event: Any) -> bool:
        """Send a command until somebody answers; return whether it was done."""
        for _ in range(200):
            row = self._database.tables.jobs.get(job_id)
            if row is None or row["end_time"] is not None:
                return False
            scheduler = self._any()
            if scheduler is not None and scheduler.replica.find(job_id) is not None:
                answer = await self._ask(scheduler, lambda owner: owner.replica.command(job_id, event))
                if answer is not None:
                    self._world.log("commanded", job_id[-4:], type(event).__name__, isinstance(answer, list))
                    return isinstance(answer, list)
            await asyncio.sleep(self._world.rng.uniform(0.1, 0.5))
        return False

    async def _recover_when_it_ends(self, job_id: str, rng: random.Random) -> None:
        """Take a job that failed or was cancelled up again, once or twice; nothing else depends on these dice."""
        for _ in range(rng.choice((0, 1, 1, 2))):
            row = await self._ended(job_id)
            if row is None or row["state"] == "COMPLETED":
                return
            nodes = len(orjson.loads(row["plan"])["nodes"])
            again = (rng.randrange(nodes),) if rng.random() < 0.4 else ()
            await asyncio.sleep(rng.choice((0.0, 0.0, rng.uniform(0, 5))))
            await self._recover(job_id, RecoverRequested(most=MOST_RECOVERIES, again=again))

    async def _ended(self, job_id: str) -> dict[str, Any] | None:
        """Wait for the end of a job; None if it does not come or the job was lost in a restore."""
        until = self._world.loop.time() + END_WITHIN_S
        while self._world.loop.time() < until:
            row = self._database.tables.jobs.get(job_id)
            if row is None or row["end_time"] is not None:
                return row
            await asyncio.sleep(0.25)
        return None

    async def _recover(self, job_id: str, event: RecoverRequested) -> None:
        """Ask for a recovery until somebody answers; who gets no answer does not know what became of it."""
        for _ in range(100):
            row = self._database.tables.jobs.get(job_id)
            if row is None:
                return
            scheduler = self._any()
            if scheduler is not None and scheduler.replica.serves(row["partition"]):
                answer = await self._ask(scheduler, lambda owner: self._take_up(owner, job_id, event))
                if answer is not None:
                    self._world.log("recovered", job_id[-4:], event.again, isinstance(answer, list))
                    return
            await asyncio.sleep(0.3)

    @staticmethod
    async def _take_up(scheduler: SchedulerProcess, job_id: str, event: RecoverRequested) -> Any:
        """Do what the verb does: read the job if it has left memory, and let it be recovered."""
        if await scheduler.replica.recall(job_id) is None:
            raise UnavailableError("this scheduler does not own the job at the moment")
        return await scheduler.replica.command(job_id, event)

    def _any(self) -> SchedulerProcess | None:
        serving = self._serving()
        return self._world.rng.choice(serving) if serving else None

    async def _ask(self, scheduler: SchedulerProcess, call: Callable[[SchedulerProcess], Awaitable[Any]]) -> Any:
        """Call a scheduler; return its answer, the error that is final, or None if it should be tried again."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def serve() -> None:
            try:
                result = await call(scheduler)
            except PixloomError as error:
                result = None if error.wire.retryable else error

            def arrive() -> None:
                if not answer.done():
                    answer.set_result(result)

            if not answer.done():
                self._world.after(self._world.latency(), arrive)

        scheduler.process.spawn(serve())
        try:
            async with asyncio.timeout(10):
                return await answer
        except TimeoutError:
            return None
