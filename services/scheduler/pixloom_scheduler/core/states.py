"""The states of jobs and nodes, and who moves them.

A job is PENDING from the moment its row is committed. Starting it makes it RUNNING; from then on every node moves by
itself as results arrive, and the job ends when its last node has. PAUSED only stops dispatching. RECOVERING is the
short time in which the next generation is planned.

A node is PENDING until what it waits for allows its stage to run. It is QUEUED once released, RUNNING once a task of it
was granted, RETRYING while nothing but back-offs is left, and ends COMPLETED, FAILED, SKIPPED or CANCELLED. The nodes
of a fused stage share its tasks and so move together.

Transitions are data. `docs/reference/states.md` is drawn from these tables, and a transition that is not in them
raises `IllegalTransitionError` and changes nothing.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

__all__ = [
    "JOB_TRANSITIONS",
    "NODE_TRANSITIONS",
    "IllegalTransitionError",
    "JobState",
    "NodeState",
    "Outcome",
    "check_job_transition",
    "check_node_transition",
]


class JobState(StrEnum):
    """State of a job."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    RECOVERING = "RECOVERING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended in its generation."""
        return self in _JOB_ENDS


class NodeState(StrEnum):
    """State of a node."""

    PENDING = "PENDING"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    RETRYING = "RETRYING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"

    @property
    def is_terminal(self) -> bool:
        """Whether the node has ended in its generation."""
        return self in _NODE_ENDS


class Outcome(StrEnum):
    """How an attempt ended."""

    OK = "OK"
    PARTIAL = "PARTIAL"
    FAILED = "FAILED"
    LOST = "LOST"
    CANCELLED = "CANCELLED"


_JOB_ENDS: Final = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})
_NODE_ENDS: Final = frozenset({NodeState.COMPLETED, NodeState.FAILED, NodeState.SKIPPED, NodeState.CANCELLED})

JOB_TRANSITIONS: Final[dict[JobState, frozenset[JobState]]] = {
    JobState.PENDING: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.FAILED}),
    JobState.RUNNING: frozenset({JobState.PAUSED, JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}),
    JobState.PAUSED: frozenset({JobState.RUNNING, JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}),
    JobState.RECOVERING: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELLED}),
    JobState.COMPLETED: frozenset({JobState.RECOVERING}),
    JobState.FAILED: frozenset({JobState.RECOVERING}),
    JobState.CANCELLED: frozenset({JobState.RECOVERING}),
}

_ENDINGS: Final = frozenset(_NODE_ENDS)

NODE_TRANSITIONS: Final[dict[NodeState, frozenset[NodeState]]] = {
    NodeState.PENDING: frozenset({NodeState.QUEUED}) | _ENDINGS,
    NodeState.QUEUED: frozenset({NodeState.RUNNING, NodeState.RETRYING}) | _ENDINGS,
    NodeState.RUNNING: frozenset({NodeState.QUEUED, NodeState.RETRYING}) | _ENDINGS,
    NodeState.RETRYING: frozenset({NodeState.QUEUED, NodeState.RUNNING}) | _ENDINGS,
    NodeState.COMPLETED: frozenset(),
    NodeState.FAILED: frozenset(),
    NodeState.SKIPPED: frozenset(),
    NodeState.CANCELLED: frozenset(),
}


class IllegalTransitionError(Exception):
    """An event does not fit the state.

    Attributes:
        state: The state that did not allow it.
        wanted: What was asked for.
        because: What else keeps it from happening, for people; empty if the state alone does.
    """

    def __init__(self, state: str, wanted: str, because: str = "") -> None:
        super().__init__(f"{wanted} is not possible in state {state}" + (f": {because}" if because else ""))
        self.state = state
        self.wanted = wanted
        self.because = because


def check_job_transition(before: JobState, after: JobState) -> None:
    """Raise `IllegalTransitionError` unless a job may go from one state to the other."""
    if after not in JOB_TRANSITIONS[before]:
        raise IllegalTransitionError(before, after)


def check_node_transition(before: NodeState, after: NodeState) -> None:
    """Raise `IllegalTransitionError` unless a node may go from one state to the other."""
    if after not in NODE_TRANSITIONS[before]:
        raise IllegalTransitionError(before, after)
