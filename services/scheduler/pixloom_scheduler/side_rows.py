"""The rows beside the journal: what is written once when a job starts or a node or job ends, and only read by people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixloom_scheduler.core.changes import (
    Durable,
    GenerationOpened,
    JobEnded,
    JobStarted,
    JobUpdated,
    NodeEnded,
    PauseAccepted,
    RecoveryAccepted,
    ResumeAccepted,
)
from pixloom_scheduler.journal.batch import Batch, JobEnding, NodeEnding
from pixloom_scheduler.journal.revisions import Replan, Revision
from pixloom_scheduler.views import aware, job_view, node_view

if TYPE_CHECKING:
    from pixloom_scheduler.live import LiveJob

__all__ = ["add_rows"]


def add_rows(batch: Batch, live: LiveJob, change: Durable, now: float) -> None:
    """Add to a batch the rows of jobs and nodes that a change, just applied, alters, and alter the job's header alike.

    Args:
        batch: What is committed together.
        live: The job, with the change applied.
        change: What happened.
        now: Seconds on the database's clock.
    """
    run, header = live.run, live.header
    match change:
        case NodeEnded():
            node = run.nodes[change.node]
            record = live.node_records[change.node] = node_view(run, change.node, now=now).SerializeToString()
            batch.nodes.append(
                NodeEnding(
                    job_id=header.id,
                    generation=run.generation,
                    index=change.node,
                    project=header.project,
                    id=node.plan.id,
                    state=change.state,
                    reason=change.reason,
                    ok=node.ok,
                    filtered=node.filtered,
                    rejected=node.rejected,
                    record=record,
                )
            )
        case JobEnded():
            batch.endings[header.id] = _ending(live, now)
        case GenerationOpened():
            live.node_records.clear()
        case RecoveryAccepted():
            header.recovery_attempts = run.recoveries
            batch.endings[header.id] = _unfinished(live)
        case JobStarted() | PauseAccepted() | ResumeAccepted():
            if header.id not in {new.header.id for new in batch.jobs[-1:]}:
                batch.endings[header.id] = _unfinished(live)
            if isinstance(change, JobStarted) and change.new_plan is not None:
                header.params_json = change.new_plan.params_json
                batch.replans[header.id] = Replan(change.new_plan.plan_json, change.new_plan.params_json)
        case JobUpdated():
            if change.tags is not None:
                header.tags = change.tags
            if change.priority is not None:
                header.priority = change.priority
            batch.revisions[header.id] = Revision(header.tags, header.priority)
            if run.state.is_terminal:
                batch.endings[header.id] = _ending(live, now)
        case _:
            pass


def _unfinished(live: LiveJob) -> JobEnding:
    return JobEnding(live.header.id, live.run.state, live.run.generation, live.run.recoveries, None, None)


def _ending(live: LiveJob, now: float) -> JobEnding:
    run = live.run
    view = job_view(live, now)
    view.seq = run.seq
    return JobEnding(
        live.header.id, run.state, run.generation, run.recoveries, aware(run.end), view.SerializeToString()
    )
