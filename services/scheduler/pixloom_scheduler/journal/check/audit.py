"""Replays the journal of one job through the core and says what it breaks on the way.

The audit is fed rows in the order of their numbers and only reads. Before each change is applied, what must hold of it
is compared with the state that the rows before it give; after the last one, that state is compared with the rows
beside the journal. What the state means after a row that could not follow is anybody's guess, so the audit of a job
ends with the first violation that keeps its journal from being replayed.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pixloom.graph.plan import StageKind
from pixloom_scheduler.core.apply import apply
from pixloom_scheduler.core.changes import (
    AttemptEnded,
    Durable,
    GenerationOpened,
    JobAccepted,
    JobEnded,
    JobStarted,
    NodeEnded,
)
from pixloom_scheduler.core.model import JobRun, StageRun, TaskRun
from pixloom_scheduler.core.policy import LOST_BEFORE_REJECT
from pixloom_scheduler.core.states import JobState, NodeState, Outcome
from pixloom_scheduler.journal.check.findings import Violation
from pixloom_scheduler.journal.check.flow import check_flow, expected_cuts
from pixloom_scheduler.journal.check.openings import check_opening
from pixloom_scheduler.journal.rows import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from pixloom.graph.plan import Plan

__all__ = ["RULES", "JobAudit"]

RULES: Final = {
    "numbered": "journal numbers begin at 1 and have no gap",
    "readable": "every journal row can be read",
    "project": "job, journal and nodes belong to one project",
    "replayable": "the journal can be replayed",
    "generation": "a journal row names the generation of its job",
    "opened": "a generation is opened by a recovery or a retry, or taken over from another job",
    "does_again": "a generation does again what has no complete results",
    "retries": "what a generation tries again had been rejected",
    "terminal": "terminal states never change within a generation",
    "released": "a task runs only when what it waits for has ended",
    "once": "at most one accepted outcome ends a task",
    "attempts": "attempts strictly increase by one",
    "policy": "failed and lost attempts stay within the policy",
    "cuts": "an output is cut into shards exactly once",
    "ends": "a node ends when all its tasks have",
    "flow": "items in are items out",
    "all_nodes": "a job is terminal if and only if all its nodes are",
    "node_rows": "the rows of nodes tell what the journal tells",
    "job_row": "the row of a job tells what its journal tells",
    "served": "what is served of an ended job or node is what its journal tells",
}
"""Rules that the audit of a job looks after, by the names they have in this package."""

_FRESH: Final = TaskRun()
_AFTER_THE_END: Final = (AttemptEnded, NodeEnded, JobEnded, JobStarted)
_COUNTED: Final = ("state", "reason", "ok", "filtered", "rejected")


class _BrokenError(Exception):
    """The rows of a job cannot be followed any further."""


class JobAudit:
    """Follows one job.

    Args:
        job_id: The job.
        partition: Its partition.
        plan: Its plan.
        project: Its project.
        counted: Ops that make one item of one at most, whatever an old plan says, `name@version`.
        report: Takes the violations.
    """

    def __init__(
        self,
        job_id: str,
        *,
        partition: int,
        plan: Plan,
        project: str,
        counted: AbstractSet[str],
        report: Callable[[Violation], None],
    ) -> None:
        self.run = JobRun.of(job_id, partition, plan)
        self.is_broken = False
        self._project = project
        self._counted = counted
        self._report = report
        self._takes_over = False
        self._node_rows: dict[tuple[int, int], tuple[Any, ...]] = {}

    def feed(self, row: Mapping[str, Any]) -> None:
        """Check a row against those before it and apply it; does nothing once the job is broken."""
        if self.is_broken:
            return
        try:
            self._feed(row)
        except _BrokenError:
            self.is_broken = True
        except Exception as error:  # noqa: BLE001 # whatever a damaged row raises, it is a finding
            self._violate("readable", f"row {row['seq']}", repr(error)[:300])
            self.is_broken = True

    def finish(self, job: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> None:
        """Compare the state that the journal gives with the rows of the job and of its nodes.

        Args:
            job: The job's row: `state`, `generation`, `recovery_attempts`, `end_time` and what is `served` of it.
            nodes: Its node rows, with what is `served` of each.
        """
        if self.is_broken:
            return
        run = self.run
        stored = (
            job["state"], job["generation"], job["recovery_attempts"], job["end_time"] is not None, job["served"] is not None
        )  # fmt: skip
        ended = run.state.is_terminal
        replayed = (str(run.state), run.generation, run.recoveries, ended, ended)
        if stored != replayed:
            names = "state, generation, recoveries, ended, record"
            self._violate("job_row", "job", f"{names} are {stored}, by the journal {replayed}")
        if ended and job["served"] not in (None, told := (run.id, str(run.state), run.generation, run.seq)):
            self._violate("served", "job", f"id, state, generation, seq are {job['served']}, by the journal {told}")
        rows = {
            (node["generation"], node["index"]): (node["project"], *(node[name] for name in _COUNTED)) for node in nodes
        }
        for place in sorted(rows.keys() | self._node_rows.keys()):
            if rows.get(place) != self._node_rows.get(place):
                where = f"generation {place[0]} node {place[1]}"
                self._violate("node_rows", where, f"{rows.get(place)}, by the journal {self._node_rows.get(place)}")
        for node in nodes:
            self._check_served(node)

    def _check_served(self, node: Mapping[str, Any]) -> None:
        place = (node["generation"], node["index"])
        row = self._node_rows.get(place)
        if row is None:
            return  # that there is such a row is wrong already
        _, state, _, ok, filtered, rejected = row
        told = (self.run.nodes[place[1]].plan.id, state, ok, filtered, rejected)
        where = f"generation {place[0]} node {place[1]}"
        if node["id"] != told[0]:
            self._violate("node_rows", where, f"its id is {node['id']}, by the plan {told[0]}")
        if node["served"] != told:
            names = "id, state, ok, filtered, rejected"
            self._violate("served", where, f"{names} are {node['served']}, by the journal {told}")

    # -- One row ----------------------------------------------------------------------------------------------------

    def _feed(self, row: Mapping[str, Any]) -> None:
        run = self.run
        where = f"row {row['seq']}"
        if row["seq"] != run.seq + 1:
            raise self._break("numbered", where, f"the row before it has number {run.seq}")
        try:
            change = decode(row)
        except Exception as error:
            raise self._break("readable", where, repr(error)[:300]) from error
        if row["project"] != self._project:
            self._violate("project", where, f"it is of {row['project']}, its job of {self._project}")
        if isinstance(change, JobAccepted) != (run.seq == 0):
            raise self._break("replayable", where, f"{type(change).__name__} is row {row['seq']} of the job")
        if run.state.is_terminal and isinstance(change, _AFTER_THE_END):
            raise self._break("terminal", where, f"{type(change).__name__} after the job was {run.state}")
        match change:
            case AttemptEnded():
                self._check_attempt(change, where)
            case NodeEnded():
                self._check_node_end(change, where)
            case JobEnded():
                self._check_job_end(change, where)
            case JobAccepted():
                self._takes_over = bool(change.made_of)
            case GenerationOpened():
                check_opening(run, change, takes_over=self._takes_over, violate=partial(self._violate, where=where))
            case _:
                pass
        self._apply(change, where)
        if row["generation"] != run.generation:
            self._violate("generation", where, f"it names {row['generation']}, the job is in {run.generation}")
        if isinstance(change, NodeEnded):
            self._note_node(change, where)

    def _apply(self, change: Durable, where: str) -> None:
        try:
            apply(self.run, [change])
        except Exception as error:
            raise self._break("replayable", where, f"{type(change).__name__}: {error!r}"[:300]) from error

    def _check_attempt(self, change: AttemptEnded, where: str) -> None:
        run = self.run
        where = f"{where}, task {change.stage}.{change.shard} attempt {change.attempt}"
        if not 0 <= change.stage < len(run.stages):
            raise self._break("replayable", where, f"the job has {len(run.stages)} stages")
        stage = run.stages[change.stage]
        if stage.ended:
            raise self._break("terminal", where, "the nodes of its stage had ended")
        self._check_release(stage, where)
        known = max(len(stage.shards), 0 if stage.plan.kind is StageKind.MAPPED else 1)
        if not 0 <= change.shard < known:
            raise self._break("released", where, f"the stage has {known} tasks so far")
        if change.shard < len(stage.shards) and stage.shards.ended[change.shard]:
            raise self._break("once", where, f"the task had ended; this outcome is {change.outcome}")
        task = stage.tasks.get(change.shard, _FRESH)
        if change.attempt != task.attempt:
            raise self._break("attempts", where, f"attempt {task.attempt} was to come")
        self._check_policy(stage, task, change, where)
        cuts = tuple(sorted((cut.stage, cut.edge, cut.items) for cut in change.cuts))
        wanted = expected_cuts(run, stage, change)
        if cuts != wanted:
            raise self._break("cuts", where, f"its cuts (stage, edge, items) are {cuts}, not {wanted}")

    def _check_release(self, stage: StageRun, where: str) -> None:
        run = self.run
        if run.state is JobState.PENDING:
            raise self._break("released", where, "the job had not been started")
        open_nodes = [run.nodes[node].plan.id for node in stage.plan.after if not run.nodes[node].state.is_terminal]
        if stage.plan.kind is StageKind.WHOLE:
            open_nodes += [
                run.nodes[run.stages[edge.producer].plan.nodes[-1]].plan.id
                for edge in stage.plan.inputs
                if not run.stages[edge.producer].ended
            ]
        if open_nodes:
            raise self._break("released", where, f"not ended: {', '.join(sorted(set(open_nodes)))}")
        asks = any(run.nodes[node].plan.when or run.nodes[node].plan.dynamic for node in stage.plan.nodes)
        if asks and not stage.released:
            raise self._break("released", where, "its condition had not been decided")

    def _check_policy(self, stage: StageRun, task: TaskRun, change: AttemptEnded, where: str) -> None:
        most = stage.plan.retry.max_attempts
        if change.outcome is Outcome.LOST:
            if task.lost + 1 > LOST_BEFORE_REJECT:
                self._violate("policy", where, f"lost {task.lost + 1} times, {LOST_BEFORE_REJECT} are allowed")
        elif change.outcome is Outcome.FAILED and task.failures + 1 > most:
            self._violate("policy", where, f"failed {task.failures + 1} times, {most} are allowed")

    def _check_node_end(self, change: NodeEnded, where: str) -> None:
        run = self.run
        if not 0 <= change.node < len(run.nodes):
            raise self._break("replayable", where, f"the job has {len(run.nodes)} nodes")
        node = run.nodes[change.node]
        where = f"{where}, node {node.plan.id}"
        if node.state.is_terminal:
            raise self._break("terminal", where, f"it had ended {node.state}")
        stage = run.stages[node.plan.stage]
        if change.state is not NodeState.COMPLETED:
            return
        if stage.open:
            raise self._break("ends", where, f"{stage.open} of its tasks had not ended")
        if stage.plan.kind is StageKind.MAPPED:
            if not all(run.stages[edge.producer].ended for edge in stage.plan.inputs):
                raise self._break("ends", where, "what gives it items had not ended")
        elif not stage.sealed:
            raise self._break("ends", where, "not all of its tasks are there")

    def _note_node(self, change: NodeEnded, where: str) -> None:
        run = self.run
        node = run.nodes[change.node]
        self._node_rows[run.generation, change.node] = (
            self._project,
            str(node.state),
            change.reason,
            node.ok,
            node.filtered,
            node.rejected,
        )
        stage = run.stages[node.plan.stage]
        if stage.ended:
            for problem in check_flow(run, stage, self._counted):
                self._violate("flow", where, problem)

    def _check_job_end(self, change: JobEnded, where: str) -> None:
        run = self.run
        if run.ended_nodes != len(run.nodes):
            left = len(run.nodes) - run.ended_nodes
            raise self._break("all_nodes", where, f"{left} of {len(run.nodes)} nodes had not ended")
        failed = [node.plan.id for node in run.nodes if node.state is NodeState.FAILED]
        if change.state is JobState.COMPLETED and failed:
            self._violate("all_nodes", where, f"it COMPLETED, and {', '.join(failed)} FAILED")

    # -- Saying it --------------------------------------------------------------------------------------------------

    def _violate(self, rule: str, where: str, detail: str) -> None:
        self._report(Violation(RULES[rule], self.run.id, where, detail))

    def _break(self, rule: str, where: str, detail: str) -> _BrokenError:
        self._violate(rule, where, detail)
        return _BrokenError()
