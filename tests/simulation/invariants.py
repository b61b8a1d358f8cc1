"""What must hold, checked while it happens: at every commit, every message that leaves, and over the whole world.

The checks see what the outside sees (committed rows, messages) and compare it with a *shadow* of each job: its state as
the committed rows alone tell it. What a scheduler has in memory must equal the shadow at the moment it says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pixloom.graph.plan import StageKind
from pixloom.v1 import executor_pb2
from pixloom_scheduler.core.apply import apply
from pixloom_scheduler.core.states import JobState
from pixloom_scheduler.journal.check.audit import JobAudit
from pixloom_scheduler.journal.rows import decode
from tests.simulation.columns import keys_of, reported, tasks_of
from tests.simulation.flow import check_flow
from tests.simulation.memory import check_memory
from tests.simulation.reading import replay
from tests.simulation.siblings import Place, places_of, sibling_place, unlike
from tests.support.core_world import durable_view

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pixloom_scheduler.core.changes import Change
    from pixloom_scheduler.core.model import JobRun
    from pixloom_scheduler.journal.check.findings import Violation
    from pixloom_scheduler.live import LiveJob
    from tests.simulation.database import Commit, SimulatedDatabase
    from tests.simulation.network import Stream
    from tests.simulation.scheduler import SchedulerProcess
    from tests.simulation.world import World

__all__ = ["FORGED", "Invariants"]

FORGED = "forged"
"""Stands in the detail of every forged result."""

_ATTEMPT, _NODE_ENDED, _JOB_ENDED, _RECOVERED = 7, 8, 9, 11
_ENDS_SHARD, _LOST, _CANCELLED = 1, 4, 5
AFTERMATH_S = 10.0
"""Time after a restore in which messages of the lost future may still be about."""

Task = tuple[str, int, int, int]


class Invariants:
    """Watches a world.

    Attributes:
        siblings: Executor, job, generation and token of what was handed over for several stages.
    """

    def __init__(self, world: World, database: SimulatedDatabase) -> None:
        self._world = world
        self._database = database
        self._shadows: dict[str, JobRun] = {}
        self._granted: set[tuple[str, int, int, int, int, str]] = set()
        self._attempts: dict[Task, int] = {}
        self._ended: set[Task] = set()
        self._ended_nodes: set[tuple[str, int, int]] = set()
        self._writers: dict[tuple[int, int, int], str] = {}
        self._claims: dict[tuple[Stream, int], executor_pb2.Claim] = {}
        self._reports: dict[tuple[str, int], executor_pb2.Report] = {}
        self.siblings: set[tuple[str, str, int, bytes]] = set()
        self._sibling_tokens: set[bytes] = set()
        self._restores = 0
        self._restored_at = float("-inf")
        self._restored_epochs: dict[int, int] = {}
        database.on_commit.append(self.committed)
        database.on_restore.append(self._restored)

    def shadow(self, job_id: str) -> JobRun | None:
        """Return a job as the committed rows tell it."""
        return self._shadows.get(job_id)

    def open_tasks(self, job_id: str) -> list[tuple[int, int, int]]:
        """Return stage, shard and next attempt of the tasks of a job that have not ended."""
        run = self._shadows.get(job_id)
        if run is None or run.state is not JobState.RUNNING:
            return []
        return [
            (stage.plan.index, shard, stage.tasks[shard].attempt if shard in stage.tasks else 1)
            for stage in run.stages
            for shard in range(len(stage.shards))
            if not stage.ended and not stage.shards.ended[shard]
        ]

    def _cast(self, job_id: str, *, rows: bool) -> None:
        """Make the shadow of a job that is new, or of one that was restored with its rows."""
        loaded = replay(self._database.tables, job_id, rows=rows)
        if loaded is not None:
            self._shadows[job_id] = loaded.run

    def _replan(self, job_id: str, commit: Commit) -> None:
        """Make the shadow of a job anew, by its new plan, up to the commit that brought it."""
        first = min(row["seq"] for row in commit.rows if row["job_id"] == job_id)
        before = self._shadows.get(job_id)
        if before is not None and before.state is not JobState.PENDING:
            self._world.violate("a job is planned anew only before it starts", job_id[-4:])
        self._cast(job_id, rows=False)
        for row in self._database.tables.journal[job_id]:
            if row["seq"] < first:
                apply(self._shadows[job_id], [decode(row)], time=row["time"].timestamp())

    def _restored(self) -> None:
        self._restores += 1
        self._restored_at = self._world.loop.time()
        self._restored_epochs = {number: row.epoch for number, row in self._database.tables.partitions.items()}
        self._shadows.clear()
        self._attempts.clear()
        self._ended.clear()
        self._ended_nodes.clear()
        for job_id, rows in self._database.tables.journal.items():
            self._cast(job_id, rows=True)
            for row in rows:
                self._note(job_id, row)

    @property
    def _is_aftermath(self) -> bool:
        return self._world.loop.time() - self._restored_at < AFTERMATH_S

    # -- Commits ----------------------------------------------------------------------------------------------------

    def committed(self, commit: Commit) -> None:
        """Check a commit that has just been applied."""
        for number, partition in commit.partitions.items():
            place = (self._restores, number, partition.epoch)
            if self._writers.setdefault(place, commit.process) != commit.process:
                detail = f"partition {number}, epoch {partition.epoch}: {self._writers[place]} and {commit.process}"
                self._world.violate("two replicas never write one partition in the same epoch", detail)
        for job in commit.jobs:
            self._cast(job["id"], rows=False)
        for job_id, columns in commit.endings.items():
            if "plan" in columns:
                self._replan(job_id, commit)
        for row in commit.rows:
            self._check_row(row, commit)

    def _check_row(self, row: dict[str, Any], commit: Commit) -> None:
        job_id = row["job_id"]
        where = f"job {job_id[-4:]} row {row['seq']}"
        header = self._database.tables.jobs.get(job_id)
        if header is None:
            self._world.violate("every row belongs to a job", where)
            return
        if header["partition"] not in commit.partitions:
            self._world.violate("every partition written to is fenced", where)
        if FORGED in (row["detail"] or "") or FORGED.encode() in (row["payload"] or b""):
            self._world.violate("stale or forged reports change zero rows", f"{where}: {row['detail']}")
        self._note(job_id, row)
        if row["kind"] == _ATTEMPT and row["outcome"] != _LOST:
            key = (job_id, row["generation"], row["stage"], row["shard"], row["attempt"], row["executor"])
            if key not in self._granted:
                self._world.violate("an accepted result was granted to its executor", f"{where}: {key[1:]}")
        run = self._shadows.get(job_id)
        if run is None:
            return
        if run.state.is_terminal and row["kind"] != _RECOVERED:
            self._world.violate("terminal states never change within a generation", where)
            return
        if row["kind"] == _ATTEMPT and row["outcome"] == _CANCELLED and run.cancelling is None:
            self._world.violate("a task that is taken back has no outcome", where)
        try:
            apply(run, [decode(row)], time=row["time"].timestamp())
        except Exception as error:  # noqa: BLE001  # whatever it is, the journal cannot be replayed
            self._world.violate("the journal can be replayed", f"{where}: {error!r}")
            return
        if run.generation != row["generation"]:
            self._world.violate("a row names the generation of its job", f"{where}: the job is in {run.generation}")
        if run.seq != row["seq"]:
            self._world.violate("journal numbers have no gap", f"{where}: expected {run.seq}")

    def _note(self, job_id: str, row: dict[str, Any]) -> None:
        where = f"job {job_id[-4:]} row {row['seq']}"
        if row["kind"] == _NODE_ENDED:
            node = (job_id, row["generation"], row["data"]["node"])
            if node in self._ended_nodes:
                self._world.violate("a node ends once", where)
            self._ended_nodes.add(node)
        if row["kind"] != _ATTEMPT:
            return
        task = (job_id, row["generation"], row["stage"], row["shard"])
        if task in self._ended:
            self._world.violate("one accepted outcome per task", where)
        if row["attempt"] <= self._attempts.get(task, 0):
            self._world.violate("attempts strictly increase", where)
        self._attempts[task] = row["attempt"]
        if row["flags"] & _ENDS_SHARD:
            self._ended.add(task)

    # -- Messages -----------------------------------------------------------------------------------------------------

    def requested(self, stream: Stream, message: executor_pb2.SessionRequest) -> None:
        """Remember what an executor sends."""
        match message.WhichOneof("message"):
            case "claim":
                self._claims[stream, message.claim.claim_id] = message.claim
            case "report":
                self._reports[stream.client.name, message.report.report_id] = message.report

    def responded(self, stream: Stream, message: executor_pb2.SessionResponse) -> None:
        """Check what leaves a scheduler."""
        match message.WhichOneof("message"):
            case "grant":
                claim = self._claims.get((stream, message.grant.claim_id))
                if claim is not None and message.grant.lease_token:
                    keys = keys_of(claim, message.grant)
                    self._check_grant(stream, claim, places_of(claim.stage, keys, are_siblings=False))
            case "assignment":
                batch, token = message.assignment.batch, message.assignment.lease_token
                if batch.siblings:
                    self._sibling_tokens.add(token)
                    self.siblings.add((stream.client.name, batch.job_id, batch.generation, token))
                    if batch.stage != batch.siblings[0].stage:
                        self._world.violate("a batch of siblings names the first of them", batch.job_id[-4:])
                places = places_of(batch.stage, tasks_of(batch), are_siblings=bool(batch.siblings))
                self._check_grant(stream, batch, places)
            case "report_ack":
                report = self._reports.get((stream.client.name, message.report_ack.report_id))
                if report is not None and not message.report_ack.elsewhere:
                    self._check_ack(report, message.report_ack)

    def _check_grant(
        self, stream: Stream, offer: executor_pb2.Claim | executor_pb2.LeaseBatch, places: Iterable[Place]
    ) -> None:
        executor = stream.client.name
        for place in places:
            self._granted.add((offer.job_id, offer.generation, *place, executor))
            if not self._is_aftermath:
                where = f"job {offer.job_id[-4:]} task {'.'.join(map(str, place))} to {executor}"
                run = self.shadow(offer.job_id)
                if run is not None and run.generation != offer.generation:
                    detail = f"{where}: it is of {offer.generation}, the job is in {run.generation}"
                    self._world.violate("nothing is granted of another generation", detail)
                    continue
                self._check_task(offer.job_id, place, "grant", where, must_be_current=True)
        job = self._database.tables.jobs.get(offer.job_id)
        if job is None or stream.server is None or self._is_aftermath:
            return
        owner = self._database.tables.partitions[job["partition"]].owner
        if owner != stream.server.name:
            self._world.violate("who does not own a partition is mute", f"{stream.server.name} granted, {owner} owns")

    def _check_ack(self, report: executor_pb2.Report, ack: executor_pb2.ReportAck) -> None:
        rows = self._database.tables.journal.get(report.job_id, ())
        for result in reported(report):
            if result.shard in ack.refused:
                continue
            task = sibling_place(
                report.stage, result.shard, result.attempt, are_siblings=report.lease_token in self._sibling_tokens
            )
            where = f"job {report.job_id[-4:]} {report.generation} task {'.'.join(map(str, task))}"
            if FORGED in result.detail or FORGED.encode() in result.output.inline:
                self._world.violate("a forged report is refused", where)
            place = (report.generation, *task)
            if not self._is_aftermath and not any(
                row["kind"] == _ATTEMPT and (row["generation"], row["stage"], row["shard"], row["attempt"]) == place
                for row in rows
            ):
                self._world.violate("no acknowledgement leaves before its commit", where)

    def published(self, subject: str, data: bytes, headers: dict[str, str]) -> None:
        """Check a dispatch that reaches NATS."""
        del subject, headers
        if self._is_aftermath:
            return
        batch = executor_pb2.LeaseBatch.FromString(data)
        if batch.siblings:
            self._world.violate("siblings are handed over and never published", batch.job_id[-4:])
        run = self.shadow(batch.job_id)
        if run is not None and batch.generation < run.generation:
            return  # composed before the job ended; nobody is granted any of it
        for task in tasks_of(batch):
            place = (batch.stage, task.shard, task.attempt)
            where = f"job {batch.job_id[-4:]} task {'.'.join(map(str, place))}"
            self._check_task(batch.job_id, place, "publish", where, must_be_current=False)

    def repeated(self, message_id: str) -> None:
        """Note that NATS swallowed a dispatch as a repetition."""
        self._world.violate("a dispatch has an id of its own", message_id)

    def _check_task(self, job_id: str, place: Place, what: str, where: str, *, must_be_current: bool) -> None:
        """Check that what leaves follows from what is committed."""
        stage_index, shard, task_attempt = place
        run = self.shadow(job_id)
        rule = f"no {what} leaves before what it rests on is committed"
        if run is None or run.state is JobState.PENDING:
            self._world.violate(rule, f"{where}: the job is not there or not started")
            return
        stage = run.stages[stage_index]
        if any(not run.nodes[node].state.is_terminal for node in stage.plan.after) and not stage.ended:
            self._world.violate("a task is released when what it names has ended", where)
        if stage.plan.kind is StageKind.WHOLE and any(
            not run.stages[edge.producer].ended for edge in stage.plan.inputs
        ):
            self._world.violate("a task is released when what it names has ended", where)
        known = max(len(stage.shards), 0 if stage.plan.kind is StageKind.MAPPED else 1)
        if shard >= known:
            self._world.violate(rule, f"{where}: there is no such shard")
            return
        history = stage.tasks.get(shard)
        attempt = history.attempt if history is not None else 1
        is_over = stage.ended or (shard < len(stage.shards) and stage.shards.ended[shard])
        if task_attempt > attempt and not is_over:
            self._world.violate(rule, f"{where}: the journal is at attempt {attempt}")
        if must_be_current and is_over:
            self._world.violate("nothing is granted that has ended", where)
        if must_be_current and (run.state.is_terminal or run.cancelling is not None):
            self._world.violate("nothing is granted of a job that ends", where)

    # -- Memory -------------------------------------------------------------------------------------------------------

    def said(self, scheduler: SchedulerProcess, live: LiveJob, changes: list[Change]) -> None:
        """Check memory against the journal at the moment a replica takes it for durable."""
        del changes
        if scheduler.incarnation != self._database.incarnation or not scheduler.process.is_alive:
            return
        shadow = self.shadow(live.header.id)
        where = f"job {live.header.id[-4:]} in {scheduler.process.name}"
        if shadow is None:
            self._world.violate("what is said is committed", where)
            return
        mine, committed = durable_view(live.run), durable_view(shadow)
        if mine != committed:
            parts = [name for name in mine if mine[name] != committed[name]]
            detail = "; ".join(f"{mine[name]} instead of {committed[name]}" for name in parts)
            self._world.violate("replaying the journal gives the live state", f"{where}: {detail}")

    def look(self, schedulers: list[SchedulerProcess]) -> None:
        """Check the memory of every scheduler that serves."""
        for scheduler in schedulers:
            for problem in check_memory(scheduler):
                self._world.violate("what is ready is known to somebody", f"{scheduler.process.name}: {problem}")
            if scheduler.incarnation != self._database.incarnation:
                self._look_at_survivor(scheduler)

    def _look_at_survivor(self, scheduler: SchedulerProcess) -> None:
        """Check a scheduler that has outlived a restore: it would take leases of the time that was lost for good ones."""
        for partition, stamp in scheduler.replica.stamps.items():
            if stamp.epoch > self._restored_epochs[partition]:
                where = f"{scheduler.process.name}: partition {partition} in epoch {stamp.epoch}"
                self._world.violate("who outlives a restore takes no partition", where)

    # -- The end ------------------------------------------------------------------------------------------------------

    def finish(self, accepted: list[str], cancelled: list[str]) -> None:
        """Check the whole world after everything is quiet."""
        tables = self._database.tables
        for job_id in accepted:
            if job_id not in tables.jobs:
                self._world.violate("an accepted job is never lost", job_id)
        for job_id in sorted(tables.jobs):
            loaded = replay(tables, job_id)
            if loaded is None:
                continue
            run = loaded.run
            if not run.state.is_terminal or tables.jobs[job_id]["end_time"] is None:
                self._world.violate("every job ends", f"job {job_id[-4:]} is {run.state}")
            is_refused = job_id in self._database.refused
            if run.failure is not None and run.failure[0] == "INTERNAL" and not is_refused:
                self._world.violate("no job fails by a mistake of ours", f"job {job_id[-4:]}: {run.failure[1]}")
                continue
            if any(not node.state.is_terminal for node in run.nodes):
                self._world.violate("a job is terminal if and only if all its nodes are", job_id[-4:])
            if tables.jobs[job_id]["state"] != run.state:
                self._world.violate("the job's row tells its state", f"job {job_id[-4:]}")
            shadow = self.shadow(job_id)
            if shadow is None or durable_view(shadow) != durable_view(run):
                self._world.violate("replaying the journal gives the live state", f"job {job_id[-4:]} at the end")
            for problem in unlike(run):
                self._world.violate("each node has the value that its own task gave", f"job {job_id[-4:]}: {problem}")
            for problem in check_flow(run, tables.journal.get(job_id, [])):
                self._world.violate("items in are items out", f"job {job_id[-4:]}: {problem}")
            self._audit(job_id, run)
        for job_id in cancelled:
            if job_id in tables.jobs and tables.jobs[job_id]["state"] == "RUNNING":
                self._world.violate("a cancelled job ends", job_id[-4:])

    def _audit(self, job_id: str, run: JobRun) -> None:
        """Let what `pixloom db check` does with a job have its say."""

        def report(violation: Violation) -> None:
            self._world.violate(violation.rule, f"job {job_id[-4:]} {violation.where}: {violation.detail}")

        job = self._database.tables.jobs[job_id]
        ops = frozenset(node.plan.op for node in run.nodes)
        audit = JobAudit(
            job_id, partition=run.partition, plan=run.plan, project=job["project"], counted=ops, report=report
        )
        for row in sorted(self._database.tables.journal.get(job_id, []), key=lambda row: row["seq"]):
            audit.feed(row)
