"""Works out what follows from stages that changed: releases, seals, ends of nodes and of the job.

`settle` is called again and again, with its changes applied in between, until it has nothing more to say. It looks only
at stages in `job.unsettled`, so its cost is what changed and not the size of the job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixloom.graph.plan import StageKind
from pixloom_scheduler.core.changes import (
    Change,
    JobEnded,
    JobStarted,
    NodeEnded,
    RejectsAsked,
    ResolutionAsked,
    StageReleased,
    StageSealed,
)
from pixloom_scheduler.core.generations import next_generation
from pixloom_scheduler.core.states import JobState, NodeState

if TYPE_CHECKING:
    from pixloom_scheduler.core.changes import RecoveryAccepted
    from pixloom_scheduler.core.model import JobRun, NodeRun, StageRun

__all__ = ["settle", "start_of"]

_BAD = (NodeState.FAILED, NodeState.SKIPPED, NodeState.CANCELLED)


def settle(job: JobRun, now: float) -> list[Change]:
    """Return what follows from the stages that changed; empty when nothing does.

    Only reads, except that stages without consequences leave `job.unsettled`.
    """
    if job.state.is_terminal:
        job.unsettled.clear()
        return []
    if job.cancelling is not None:
        return _settle_cancel(job, now)
    if job.state is JobState.PENDING:
        job.unsettled.clear()
        return []
    if job.recovery is not None:
        return _settle_recovery(job, job.recovery, now)
    while job.unsettled:
        changes = _settle_stage(job, job.stages[job.unsettled.first()], now)
        if changes:
            return changes
        job.unsettled.remove_first()
    if job.ended_nodes == len(job.nodes):
        return [_end_job(job, now)]
    return []


def _settle_cancel(job: JobRun, now: float) -> list[Change]:
    if job.leases:
        job.unsettled.clear()
        return []
    detail = job.cancelling or "the job was cancelled"
    changes: list[Change] = [
        NodeEnded(node=index, state=NodeState.CANCELLED, reason="JOB_CANCELLED", detail=detail, time=now)
        for index, node in enumerate(job.nodes)
        if not node.state.is_terminal
    ]
    if job.failure is not None:
        reason, sentence, node = job.failure
        changes.append(JobEnded(state=JobState.FAILED, reason=reason, detail=sentence, node=node, time=now))
    else:
        changes.append(JobEnded(state=JobState.CANCELLED, reason="CANCELLED", detail=detail, node="", time=now))
    return changes


def _settle_recovery(job: JobRun, recovery: RecoveryAccepted, now: float) -> list[Change]:
    if not recovery.retries_rejects:
        return [next_generation(job, again=recovery.again), start_of(job, now)]
    return [] if job.asks_rejects else [RejectsAsked()]


def start_of(job: JobRun, now: float) -> JobStarted:
    """Return the start of a job, or of its next generation, by its own plan."""
    return JobStarted(time=now, deadline=now + job.plan.timeout_s if job.plan.timeout_s else 0.0)


def _settle_stage(job: JobRun, stage: StageRun, now: float) -> list[Change]:
    if stage.ended:
        return []
    blocked = _blocker(job, stage) if stage.may_be_blocked else None
    if blocked is not None:
        reason, detail = blocked
        return [
            NodeEnded(node=node, state=NodeState.SKIPPED, reason=reason, detail=detail, time=now)
            for node in stage.plan.nodes
            if not job.nodes[node].state.is_terminal
        ]
    if not stage.released:
        return _release(job, stage)
    if stage.failed:
        return _fail_stage(job, stage, now)
    if (
        stage.plan.kind is StageKind.MAPPED
        and not stage.sealed
        and all(job.stages[edge.producer].ended for edge in stage.plan.inputs)
    ):
        return [StageSealed(stage.plan.index)]
    if stage.sealed and stage.open == 0:
        return _complete_stage(job, stage, now)
    return []


def _blocker(job: JobRun, stage: StageRun) -> tuple[str, str] | None:
    """Return why a stage will never run to its end, or None."""
    first = job.plan.nodes[stage.plan.nodes[0]]
    data = {node for edge in stage.plan.inputs for node in job.stages[edge.producer].plan.nodes[-1:]}
    for need in first.needs:
        node = job.nodes[need]
        if node.state not in _BAD:
            continue
        if node.state is NodeState.FAILED:
            return "UPSTREAM_FAILED", f"node {node.plan.id} failed"
        if node.error[0] == "UPSTREAM_FAILED" or (node.error[0] == "UPSTREAM_SKIPPED" and need in data):
            # Its own sentence names the node with which it began, however far back that is.
            return node.error
        if need in data:
            return "UPSTREAM_SKIPPED", f"node {node.plan.id} was {node.state.lower()}: {node.error[1]}"
    return None


def _release(job: JobRun, stage: StageRun) -> list[Change]:
    if stage.resolving or stage.awaited:
        return []
    if stage.plan.kind is StageKind.WHOLE and not all(job.stages[edge.producer].ended for edge in stage.plan.inputs):
        return []
    nodes = [job.plan.nodes[node] for node in stage.plan.nodes]
    if any(node.when or node.dynamic for node in nodes):
        return [ResolutionAsked(stage.plan.index)]
    return [StageReleased(stage.plan.index)]


def _complete_stage(job: JobRun, stage: StageRun, now: float) -> list[Change]:
    changes: list[Change] = []
    failed: str | None = None
    for index in stage.plan.nodes:
        node = job.nodes[index]
        if failed is not None:
            changes.append(_skip_behind(index, failed, now))
            continue
        ratio = _failed_ratio(node)
        if ratio > node.plan.max_failed_ratio:
            failed = node.plan.id
            detail = (
                f"{node.rejected} of {node.ok + node.filtered + node.rejected} items were rejected "
                f"({ratio:.0%}), more than max_failed_ratio {node.plan.max_failed_ratio:g} allows"
            )
            changes.append(
                NodeEnded(node=index, state=NodeState.FAILED, reason="MAX_FAILED_RATIO", detail=detail, time=now)
            )
        else:
            changes.append(NodeEnded(node=index, state=NodeState.COMPLETED, reason="", detail="", time=now))
    return changes


def _failed_ratio(node: NodeRun) -> float:
    total = node.ok + node.filtered + node.rejected
    return node.rejected / total if total else 0.0


def _fail_stage(job: JobRun, stage: StageRun, now: float) -> list[Change]:
    """End the nodes of a stage in which a task failed for good.

    The node that refused fails, those behind it are skipped, and those before it, which have not seen all their items,
    are cancelled.
    """
    reason, detail, position = stage.failure
    culprit = job.plan.nodes[stage.plan.nodes[position]].id
    # An attempt's detail names the node, since its stage may have several; here the error stands at the node itself.
    detail = detail.removeprefix(f"node {culprit}: ")
    changes: list[Change] = []
    for place, index in enumerate(stage.plan.nodes):
        if place < position:
            changes.append(
                NodeEnded(
                    node=index,
                    state=NodeState.CANCELLED,
                    reason="STAGE_FAILED",
                    detail=f"node {culprit}, which runs with it, failed",
                    time=now,
                )
            )
        elif place == position:
            changes.append(NodeEnded(node=index, state=NodeState.FAILED, reason=reason, detail=detail, time=now))
        else:
            changes.append(_skip_behind(index, culprit, now))
    return changes


def _skip_behind(index: int, culprit: str, now: float) -> NodeEnded:
    return NodeEnded(
        node=index, state=NodeState.SKIPPED, reason="UPSTREAM_FAILED", detail=f"node {culprit} failed", time=now
    )


def _end_job(job: JobRun, now: float) -> JobEnded:
    for node in job.nodes:
        if node.state is NodeState.FAILED:
            reason, detail = node.error
            return JobEnded(state=JobState.FAILED, reason=reason, detail=detail, node=node.plan.id, time=now)
    return JobEnded(state=JobState.COMPLETED, reason="", detail="", node="", time=now)
