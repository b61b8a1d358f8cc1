"""Drives one job of the scheduler's core with random executors, and keeps what would be its journal."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

import orjson

from pixloom.graph.catalogue import OpKind
from pixloom.graph.plan import Edge, NodePlan, OnError, Plan, RetryPolicy, StageKind, StagePlan
from pixloom_scheduler.core.apply import apply
from pixloom_scheduler.core.changes import AttemptEnded, Change, Durable, NodeTally, ResolutionAsked, TasksOffered
from pixloom_scheduler.core.decide import decide
from pixloom_scheduler.core.events import (
    BackoffEnded,
    DispatchFilled,
    DispatchVanished,
    Event,
    LeaseLost,
    NodeResolved,
    PauseRequested,
    Result,
    ResumeRequested,
    SiblingsHandedOver,
    SiblingsReported,
    StartRequested,
    TasksClaimed,
    TasksReported,
    TasksReturned,
    UpdateRequested,
)
from pixloom_scheduler.core.model import JobRun, StageRun
from pixloom_scheduler.core.settle import settle
from pixloom_scheduler.core.states import JobState, Outcome
from pixloom_scheduler.journal.rows import COLUMNS, decode, encode

if TYPE_CHECKING:
    import random

JOB = "0" * 30 + "07"


def plan_of(shape: list[tuple[StageKind, list[int]]], **options: Any) -> Plan:
    """Return a plan with one node a stage; `shape` gives kind and producers of each."""
    kinds = {
        StageKind.SOURCE: OpKind.SOURCE,
        StageKind.MAPPED: OpKind.ITEM,
        StageKind.WHOLE: OpKind.COLLECTION,
    }
    nodes, stages = [], []
    for index, (kind, producers) in enumerate(shape):
        nodes.append(
            NodePlan(
                id=f"n{index}",
                op="debug.noop@1",
                kind=kinds[kind],
                stage=index,
                params={},
                needs=tuple(sorted(set(producers))),
                on_error=options.get("on_error", {}).get(index, OnError.QUARANTINE),
                max_failed_ratio=options.get("max_failed_ratio", {}).get(index, 1.0),
                when=options.get("when", {}).get(index, ""),
            )
        )
        edges = tuple(
            Edge(producer=producer, port="items", position=place if len(producers) > 1 else None)
            for place, producer in enumerate(producers)
        )
        after = tuple(sorted(set(producers))) if options.get("when", {}).get(index) else ()
        stages.append(
            StagePlan(
                index=index,
                kind=kind,
                nodes=(index,),
                inputs=edges,
                shard_size=options.get("shard_size", 3),
                retry=RetryPolicy(max_attempts=options.get("max_attempts", 3)),
                after=after,
            )
        )
    return Plan(nodes=tuple(nodes), stages=tuple(stages))


def random_shape(rng: random.Random) -> list[tuple[StageKind, list[int]]]:
    """Return a random acyclic shape that begins with a source."""
    shape: list[tuple[StageKind, list[int]]] = [(StageKind.SOURCE, [])]
    for index in range(1, rng.randint(2, 7)):
        givers = list(range(index))
        kind = rng.choice([StageKind.MAPPED, StageKind.MAPPED, StageKind.WHOLE, StageKind.SOURCE])
        producers = [] if kind is StageKind.SOURCE else rng.sample(givers, rng.randint(1, min(2, len(givers))))
        shape.append((kind, producers))
    return shape


@dataclass
class CoreWorld:
    """One job, its journal, and executors that do anything an executor may do.

    With `hands_over`, stages of which nothing was offered yet are handed over together at times; `handed_over` counts them.
    """

    plan: Plan
    rng: random.Random
    pages: int = 2
    page_items: int = 7
    now: float = 1_000_000.0
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    endings: dict[tuple[int, int, int], int] = field(default_factory=dict)
    releases: int = 0
    meddles: bool = False
    hands_over: bool = False
    handed_over: int = 0

    def __post_init__(self) -> None:
        self.job = JobRun.of(JOB, 7, self.plan)
        self.outstanding: list[tuple[int, tuple[tuple[int, int], ...]]] = []

    def is_over(self) -> bool:
        """Return whether the job has ended."""
        return self.job.state.is_terminal

    def happen(self, event: Event) -> list[Change]:
        """Let an event happen with all that follows from it."""
        changes = decide(self.job, event, self.now, {})
        self._apply(changes)
        while more := settle(self.job, self.now):
            self._apply(more)
            changes = [*changes, *more]
        for change in changes:
            if isinstance(change, ResolutionAsked):
                self.happen(NodeResolved(change.stage, run=self.rng.random() < 0.5, generation=self.job.generation))
        return changes

    def _apply(self, changes: list[Change]) -> None:
        for change in changes:
            apply(self.job, [change], time=self.now)
            if isinstance(change, Durable):
                row = encode(
                    change,
                    day=date(2026, 1, 1),
                    job_id=JOB,
                    seq=self.job.seq,
                    time=self.job.updated,
                    project="default",
                    generation=self.job.generation,
                )
                self.rows.append(row)
            if isinstance(change, AttemptEnded) and change.ends_shard:
                place = (self.job.generation, change.stage, change.shard)
                self.endings[place] = self.endings.get(place, 0) + 1

    def begin_with(self, changes: list[Durable]) -> None:
        """Let the job begin with a journal, as if it had been read from the database."""
        self._apply([*changes])
        self.job.unsettled.update(range(len(self.job.stages)))
        while more := settle(self.job, self.now):
            self._apply(more)
            for change in more:
                if isinstance(change, ResolutionAsked):
                    self.happen(NodeResolved(change.stage, run=self.rng.random() < 0.5, generation=self.job.generation))

    def run(self, steps: int = 3000) -> None:
        """Run the job to its end."""
        self.happen(StartRequested())
        for _ in range(steps):
            if self.job.state.is_terminal:
                return
            self.step()
        raise AssertionError(f"the job did not end: {[(s.plan.index, s.open, s.sealed) for s in self.job.stages]}")

    def step(self) -> None:
        """Do one random thing."""
        self.now += self.rng.random()
        job, rng = self.job, self.rng
        if self.meddles and rng.random() < 0.1:
            self._meddle()
            return
        if job.state is JobState.PAUSED and not job.leases:
            self.happen(ResumeRequested())
        dues = [(i, s) for i, stage in enumerate(job.stages) for s, task in stage.tasks.items() if task.due]
        if dues and rng.random() < 0.3:
            stage, shard = rng.choice(dues)
            self.happen(BackoffEnded(stage, (shard,)))
            return
        if job.leases and rng.random() < 0.7:
            self._act_on_lease(rng.choice(list(job.leases)))
            return
        ready = [stage.plan.index for stage in job.stages if stage.has_ready]
        if self.hands_over and rng.random() < 0.7:
            untouched = [i for i in ready if job.stages[i].plan.kind is StageKind.WHOLE and job.stages[i].is_untouched]
            if len(untouched) > 1:
                self._hand_over(tuple(rng.sample(untouched, rng.randint(2, len(untouched)))))
                return
        if ready:
            self._dispatch(rng.choice(ready))
        elif job.leases:
            self._act_on_lease(rng.choice(list(job.leases)))
        elif dues:
            self.now += 100
            self.happen(BackoffEnded(dues[0][0], (dues[0][1],)))

    def _meddle(self) -> None:
        """Let somebody pause, resume or change the job; what already holds changes nothing."""
        job, rng = self.job, self.rng
        if job.state is JobState.PAUSED:
            event: Event = rng.choice((ResumeRequested(), PauseRequested(), PauseRequested(now=True)))
        else:
            event = rng.choice(
                (PauseRequested(), PauseRequested(now=True), UpdateRequested(priority=rng.randint(0, 9)))
            )
        self.happen(event)
        assert self.happen(event) == []

    def _dispatch(self, stage: int) -> None:
        changes = self.happen(DispatchFilled(stage, self.rng.randint(1, 4)))
        shards = tuple(s for change in changes if isinstance(change, TasksOffered) for s in change.shards)
        if not shards:
            return
        if self.rng.random() < 0.1:
            self.happen(DispatchVanished(stage, shards))
            return
        tasks = self.job.stages[stage].tasks
        keys = tuple((shard, tasks[shard].attempt) for shard in shards)
        claim = TasksClaimed("x", self.job.generation, stage, keys, lambda granted: repr(granted).encode())
        self.happen(claim)
        if self.rng.random() < 0.1:
            assert self.happen(claim) == []  # a dispatch that was delivered twice grants nothing twice

    def _hand_over(self, stages: tuple[int, ...]) -> None:
        self.handed_over += len(stages)
        event = SiblingsHandedOver("x", stages, lambda granted: b"siblings" + repr(granted).encode())
        leases = set(self.job.leases)
        self.happen(event)
        new = [lease for number, lease in self.job.leases.items() if number not in leases]
        if self.job.state is JobState.RUNNING:
            assert sorted(lease.stage for lease in new) == sorted(stages)
        assert self.happen(event) == []

    def _report_siblings(self, token: bytes) -> None:
        """Report some of what was handed over together, in any order, at times twice."""
        leases = [(number, lease) for number, lease in self.job.leases.items() if lease.token == token]
        told = self.rng.sample(leases, self.rng.randint(1, len(leases)))
        results = [(number, self._result(lease.stage, *task)) for number, lease in told for task in lease.tasks.items()]
        results += self.rng.sample(results, self.rng.randint(0, 1))
        event = SiblingsReported(tuple(results))
        self.happen(event)
        assert self.happen(event) == []

    def _act_on_lease(self, lease_id: int) -> None:
        lease = self.job.leases[lease_id]
        if self.hands_over and lease.token.startswith(b"siblings") and self.rng.random() < 0.6:
            self._report_siblings(lease.token)
            return
        chance = self.rng.random()
        if self.job.gives_back and chance < 0.5:
            self._end_tasks(lease_id)
        elif chance < 0.06:
            self.happen(LeaseLost(lease_id))
        elif chance < 0.1:
            self.happen(TasksReturned(lease_id, tuple(lease.tasks)[:1]))
        else:
            results = tuple(self._result(lease.stage, shard, attempt) for shard, attempt in lease.tasks.items())
            taken = results[: self.rng.randint(1, len(results))]
            event = TasksReported(lease_id, taken)
            self.happen(event)
            assert self.happen(event) == []  # sent again, late: changes nothing

    def _end_tasks(self, lease_id: int) -> None:
        """Report what was taken back: it is ready again, as the same attempt, and nothing of it is journaled."""
        lease = self.job.leases[lease_id]
        tasks, stage, rows = dict(lease.tasks), self.job.stages[lease.stage], len(self.rows)
        event = TasksReported(
            lease_id, tuple(Result(shard, attempt, Outcome.CANCELLED, "CANCELLED") for shard, attempt in tasks.items())
        )
        self.happen(event)
        assert len(self.rows) == rows
        assert all(
            stage.tasks[shard].attempt == attempt and not stage.tasks[shard].lease for shard, attempt in tasks.items()
        )
        assert self.happen(event) == []

    def _result(self, stage_index: int, shard: int, attempt: int) -> Result:
        stage, rng = self.job.stages[stage_index], self.rng
        if stage.plan.kind is StageKind.SOURCE:
            if rng.random() < 0.1:
                return Result(shard, attempt, Outcome.FAILED, "READ_ERROR", retryable=True)
            items = rng.randint(0, self.page_items)
            end = shard >= self.pages - 1
            return Result(shard, attempt, Outcome.OK, items_out=items, cursor="" if end else "c", end_of_source=end)
        if stage.plan.kind is StageKind.WHOLE:
            if rng.random() < 0.1:
                return Result(shard, attempt, Outcome.FAILED, "OP_ERROR", retryable=rng.random() < 0.7)
            return Result(shard, attempt, Outcome.OK, items_out=rng.randint(0, 5))
        return self._mapped_result(stage.shards.items_of(shard), shard, attempt)

    def _mapped_result(self, items: int, shard: int, attempt: int) -> Result:
        rng = self.rng
        chance = rng.random()
        if chance < 0.08:
            return Result(shard, attempt, Outcome.FAILED, "STORE_ERROR", retryable=True)
        retried = tuple(i for i in range(items) if rng.random() < 0.3) if chance < 0.25 else ()
        if len(retried) == items:
            retried = ()
        left = items - len(retried)
        ok = rng.randint(0, left)
        filtered = rng.randint(0, left - ok)
        rejected = left - ok - filtered
        reasons = {name: count for name, count in (("DUPLICATE", filtered), ("TRUNCATED", rejected)) if count}
        return Result(
            shard,
            attempt,
            Outcome.PARTIAL if retried else Outcome.OK,
            items_out=ok,
            tallies=(NodeTally(ok, filtered, rejected, reasons or None),),
            retry_indexes=retried,
        )

    def records(self) -> list[dict[str, Any]]:
        """Return the rows of the journal as a database gives them."""
        records = [dict(zip(COLUMNS, row, strict=True)) for row in self.rows]
        return [record | {"data": orjson.loads(record["data"]) if record["data"] else None} for record in records]

    def replayed(self) -> JobRun:
        """Return the job as its journal tells it."""
        job = JobRun.of(JOB, 7, self.plan)
        for record in self.records():
            apply(job, [decode(record)], time=record["time"].timestamp())
        return job


def durable_view(job: JobRun) -> dict[str, Any]:
    """Return what must be the same after a restart."""
    return {
        "job": (job.state, job.seq, job.failure, job.ended_nodes, job.cancelling, job.priority, job.gives_back),
        "times": (round(job.updated, 6), round(job.checkpoint, 6)),
        "generation": (job.generation, job.recoveries, job.recovery),
        "nodes": [
            (n.state, n.ok, n.filtered, n.rejected, n.reasons, n.retry_count, n.error, n.value) for n in job.nodes
        ],
        "stages": [stage_view(stage) for stage in job.stages],
    }


def stage_view(stage: StageRun) -> tuple[Any, ...]:
    """Return what must be the same of a stage."""
    history = {
        shard: (task.attempt, task.failures, task.lost, task.cursor)
        for shard, task in stage.tasks.items()
        if task.attempt > 1 or task.cursor
    }
    if stage.plan.kind is not StageKind.MAPPED and not stage.done and not history:
        # The first shard of such a stage follows from its release, which is worked out again after a restart.
        return ("untouched",)
    shards = stage.shards
    return (
        shards.edge.tolist(),
        shards.source.tolist(),
        shards.offset.tolist(),
        shards.count.tolist(),
        bytes(shards.ended),
        shards.subsets,
        stage.done,
        stage.failed,
        stage.items_out,
        stage.since,
        stage.retried,
        history,
    )
