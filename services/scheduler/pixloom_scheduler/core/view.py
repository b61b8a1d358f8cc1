"""What can be read off the state: node states, why a node waits, progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixloom_scheduler.core.states import JobState, NodeState

if TYPE_CHECKING:
    from pixloom_scheduler.core.model import JobRun

__all__ = ["current_step", "halt_of", "node_state", "progress_percent", "waiting_reason"]


def node_state(job: JobRun, index: int) -> NodeState:
    """Return the state of a node; while it has not ended it follows from the tasks of its stage."""
    node = job.nodes[index]
    if node.state.is_terminal:
        return node.state
    stage = job.stages[node.plan.stage]
    if not stage.released:
        return NodeState.PENDING
    if stage.backing_off and not stage.active and not stage.has_ready:
        return NodeState.RETRYING
    return NodeState.RUNNING if node.start else NodeState.QUEUED


def waiting_reason(job: JobRun, index: int, *, served_pools: frozenset[str], now: float) -> str:
    """Return why a node waits, for people; empty if it does not."""
    node = job.nodes[index]
    if node.state.is_terminal or job.state.is_terminal:
        return ""
    if job.state is JobState.PENDING:
        return "the job has not been started"
    if job.state is JobState.PAUSED:
        return "the job is paused"
    stage = job.stages[node.plan.stage]
    if not stage.released:
        first = job.plan.nodes[stage.plan.nodes[0]]
        ended = sum(job.nodes[need].state.is_terminal for need in first.needs)
        if stage.resolving:
            return "its condition is being worked out"
        return f"{ended} of {len(first.needs)} dependencies have ended"
    match node_state(job, index):
        case NodeState.RETRYING:
            dues = [(task.due, task) for task in stage.tasks.values() if task.due]
            due, task = min(dues, key=lambda pair: pair[0])
            left = max(0.0, due - now)
            return f"retry {task.failures} of {stage.plan.retry.max_attempts - 1} in {left:.0f} s"
        case NodeState.QUEUED:
            if stage.plan.pool not in served_pools:
                return f"no executor serves pool {stage.plan.pool}"
            return "waits for a free executor" if stage.has_ready or stage.active else "waits for input"
    return ""


def halt_of(job: JobRun) -> bool | None:
    """Return what executors are to end of a job: None for nothing, False for what has not started, True for all."""
    if job.state is JobState.PAUSED:
        return job.gives_back
    return None if job.cancelling is None else False


def progress_percent(job: JobRun) -> float:
    """Return how far the job is, 0 to 100: nodes that ended, and for the others the share of their known tasks."""
    if job.state is JobState.COMPLETED:
        return 100.0
    if not job.nodes:
        return 0.0
    total = 0.0
    for stage in job.stages:
        for index in stage.plan.nodes:
            if job.nodes[index].state.is_terminal:
                total += 1.0
            elif len(stage.shards):
                # A stage that may still grow counts at most nine tenths, so that progress does not jump back far.
                total += stage.done / len(stage.shards) * (1.0 if stage.sealed else 0.9)
    return min(100.0, 100.0 * total / len(job.nodes))


def current_step(job: JobRun) -> int:
    """Return the index of the first node that has not ended; the number of nodes when all have."""
    for index, node in enumerate(job.nodes):
        if not node.state.is_terminal:
            return index
    return len(job.nodes)
