"""What can be read off the state: node states, progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pixloom.graph.plan import StageKind
from pixloom_scheduler.core.states import JobState, NodeState

if TYPE_CHECKING:
    from pixloom_scheduler.core.model import JobRun, StageRun

__all__ = ["current_step", "halt_of", "items_seen", "node_state", "progress_percent"]

MOST_UNFINISHED: Final = 99.9
"""Progress in percent that a job which is not COMPLETED never exceeds."""

SHARE_OF_UNKNOWN: Final = 0.05
"""Share that a stage of unknown size gets at most."""

SEEN_HALF: Final = 256
"""Items after which it has half of that."""


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
    return NodeState.RUNNING if node.begun else NodeState.QUEUED


def halt_of(job: JobRun) -> bool | None:
    """Return what executors are to end of a job: None for nothing, False for what has not started, True for all."""
    if job.state is JobState.PAUSED:
        return job.gives_back
    return None if job.cancelling is None else False


def progress_percent(job: JobRun) -> float:
    """Return how far the job is, 0 to 100; it never falls within a generation, and a replay gives the same.

    Every node weighs the same. One that has ended well counts whole; the others count the share of their stage's input
    that has been through it once all of that is known, and next to nothing before: a share of a growing whole would
    fall. Only a COMPLETED job is at 100.
    """
    if job.state is JobState.COMPLETED:
        return 100.0
    if not job.nodes:
        return 0.0
    total = 0.0
    for stage in job.stages:
        share = -1.0
        for index in stage.plan.nodes:
            node = job.nodes[index]
            if node.state is NodeState.COMPLETED or (
                node.state is NodeState.SKIPPED and node.error[0] != "UPSTREAM_FAILED"
            ):
                total += 1.0
            else:
                if share < 0:
                    share = _share_seen(job, stage)
                total += share
    return min(MOST_UNFINISHED, 100.0 * total / len(job.nodes))


def items_seen(job: JobRun, stage: StageRun) -> int:
    """Return the number of items that went through a stage: into it, or out of a source."""
    if stage.plan.kind is StageKind.SOURCE:
        return stage.items_out
    first = job.nodes[stage.plan.nodes[0]]
    return first.ok + first.filtered + first.rejected


def _share_seen(job: JobRun, stage: StageRun) -> float:
    if stage.plan.kind is StageKind.WHOLE:
        return 0.0
    seen = items_seen(job, stage)
    begun = SHARE_OF_UNKNOWN * seen / (seen + SEEN_HALF)
    producers = [job.stages[edge.producer] for edge in stage.plan.inputs]
    if stage.plan.kind is StageKind.SOURCE or not all(producer.ended for producer in producers):
        return begun
    given = sum(producer.items_out for producer in producers)
    return max(begun, min(1.0, seen / given)) if given else begun


def current_step(job: JobRun) -> int:
    """Return the index of the first node that has not ended; the number of nodes when all have."""
    for index, node in enumerate(job.nodes):
        if not node.state.is_terminal:
            return index
    return len(job.nodes)
