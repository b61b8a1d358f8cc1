"""What may happen to a job, in the past tense: the input of `decide`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixloom_scheduler.core.changes import NewPlan, NodeTally, RetriedItems, TasksGranted
    from pixloom_scheduler.core.states import Outcome

__all__ = [
    "BackoffEnded",
    "CancelRequested",
    "DispatchFilled",
    "DispatchVanished",
    "Event",
    "LeaseAnnounced",
    "LeaseLost",
    "NodeResolved",
    "PauseRequested",
    "RecoverRequested",
    "RejectsFound",
    "Result",
    "ResumeRequested",
    "RetryRequested",
    "SiblingsHandedOver",
    "SiblingsReported",
    "StartRequested",
    "TasksClaimed",
    "TasksReported",
    "TasksReturned",
    "TimeRanOut",
    "UpdateRequested",
]


@dataclass(frozen=True, slots=True)
class StartRequested:
    """Somebody wants the job to run.

    Attributes:
        new_plan: What to run it by if it is to run with other params than it was accepted with; None if not.
        request: Id of the call that wants it, which may be empty; None if the call that created the job does.
    """

    new_plan: NewPlan | None = None
    request: str | None = None


@dataclass(frozen=True, slots=True)
class RecoverRequested:
    """Somebody wants a job that failed or was cancelled to go on.

    Attributes:
        most: Times that a job may be recovered.
        again: Nodes that run again from the beginning, with all behind them.
        request: Id of the call; may be empty. The same call again changes nothing, whatever became of the job since.
    """

    most: int
    again: tuple[int, ...] = ()
    request: str = ""


@dataclass(frozen=True, slots=True)
class RetryRequested:
    """Somebody wants failed nodes and rejected items of a job that has ended to be tried again.

    Attributes:
        nodes: Nodes whose rejected items are; empty means all.
        reasons: Reasons of rejected items that are; empty means all.
        request: Id of the call; may be empty. The same call again changes nothing, whatever became of the job since.
    """

    nodes: tuple[int, ...] = ()
    reasons: tuple[str, ...] = ()
    request: str = ""


@dataclass(frozen=True, slots=True)
class RejectsFound:
    """The rejected items that are to be tried again were looked up.

    Attributes:
        generation: Generation of the job that they were looked up for.
        retried: The items.
    """

    generation: int
    retried: tuple[RetriedItems, ...]


@dataclass(frozen=True, slots=True)
class PauseRequested:
    """Somebody wants nothing new to start.

    Attributes:
        now: Whether running tasks are taken back as well.
    """

    now: bool = False


@dataclass(frozen=True, slots=True)
class ResumeRequested:
    """Somebody wants a paused job to go on."""


@dataclass(frozen=True, slots=True)
class UpdateRequested:
    """Somebody wants other tags or another priority.

    Attributes:
        tags: All tags from now on; None if they stay.
        priority: 0 to 9, 9 first; None if it stays.
    """

    tags: dict[str, str] | None = None
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody wants the job to end.

    Attributes:
        detail: Why, for people.
        now: Whether running tasks are given up as well.
        failure: Reason, sentence and node if the job is to end FAILED instead of CANCELLED.
    """

    detail: str = ""
    now: bool = False
    failure: tuple[str, str, str] | None = None


@dataclass(frozen=True, slots=True)
class TimeRanOut:
    """The job's own time limit has passed."""


@dataclass(frozen=True, slots=True)
class NodeResolved:
    """The condition and references of a stage were worked out.

    Attributes:
        stage: The stage.
        run: Whether its condition holds.
        params: Params by node index, for nodes that refer to values of other nodes.
        failure: Reason and sentence if that was not possible; None otherwise.
        generation: Generation of the job in which that was asked.
    """

    stage: int
    run: bool
    params: dict[int, dict[str, Any]] = field(default_factory=dict)
    failure: tuple[str, str] | None = None
    generation: int = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class DispatchFilled:
    """There is room for work in a pool.

    Attributes:
        stage: The stage to take from.
        most: Most tasks to take.
    """

    stage: int
    most: int


@dataclass(frozen=True, slots=True)
class DispatchVanished:
    """A dispatch can no longer be claimed.

    Attributes:
        stage: The stage.
        shards: Its tasks.
    """

    stage: int
    shards: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BackoffEnded:
    """The back-off of tasks is over.

    Attributes:
        stage: The stage.
        shards: The tasks.
    """

    stage: int
    shards: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TasksClaimed:
    """An executor asks for tasks of a dispatch.

    Attributes:
        executor: The executor.
        generation: Generation of the dispatch.
        stage: The stage.
        tasks: Shard and attempt of each, as offered.
        mint: Makes the token for the tasks that are granted.
    """

    executor: str
    generation: int
    stage: int
    tasks: tuple[tuple[int, int], ...]
    mint: Callable[[tuple[tuple[int, int], ...]], bytes]


@dataclass(frozen=True, slots=True)
class SiblingsHandedOver:
    """The only tasks of several stages, none of which was offered before, go to an executor together.

    Attributes:
        executor: The executor.
        stages: The stages.
        mint: Makes the token, one for all, for the stages whose tasks are granted.
    """

    executor: str
    stages: tuple[int, ...]
    mint: Callable[[tuple[int, ...]], bytes]


@dataclass(frozen=True, slots=True)
class LeaseAnnounced:
    """An executor shows a lease granted by an earlier owner; its token was found genuine.

    Attributes:
        generation: Generation of the grant.
        grant: The grant; its `lease`, `time` and `deadline` are decided anew.
        held: Shards of it that are still held.
        beside: Tasks of other stages that are held together with it, and may run before it.
    """

    generation: int
    grant: TasksGranted
    held: frozenset[int]
    beside: int = 0


@dataclass(frozen=True, slots=True)
class TasksReturned:
    """An executor hands tasks back that it has not started.

    Attributes:
        lease: The lease.
        shards: The tasks.
    """

    lease: int
    shards: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """Whoever held a lease is gone, or its deadline has passed.

    Attributes:
        lease: The lease.
        reason: Machine reason.
        detail: Sentence for people.
    """

    lease: int
    reason: str = "EXECUTOR_LOST"
    detail: str = "the executor that ran it is gone"


@dataclass(slots=True)  # not frozen, which would make each of millions of them twice as dear
class Result:
    """How an attempt ended, as its executor tells it.

    Attributes:
        shard: The shard.
        attempt: Number of the attempt.
        outcome: How it ended.
        reason: Machine reason; empty for OK.
        detail: Sentence for people.
        start: When it started, seconds.
        end: When it ended, seconds.
        items_out: Items that the last node gave.
        tallies: Counts for each node; empty means `items_out` passed every one of them.
        retry_indexes: For PARTIAL: indexes into its input items to be tried again.
        retry_after_s: Not before this many seconds.
        retryable: Whether trying again can help.
        cursor: For a source: where the next page begins.
        end_of_source: For a source: there is no next page.
        value: Its value for conditions and references.
        has_value: Whether `value` is set.
        payload: Where its outputs and rejects lie, opaque here.
        warnings: Things worth knowing that are no failure.
    """

    shard: int
    attempt: int
    outcome: Outcome
    reason: str = ""
    detail: str = ""
    start: float = 0.0
    end: float = 0.0
    items_out: int = 0
    tallies: tuple[NodeTally, ...] = ()
    retry_indexes: tuple[int, ...] = ()
    retry_after_s: float = 0.0
    retryable: bool = True
    cursor: str = ""
    end_of_source: bool = False
    value: Any = None
    has_value: bool = False
    payload: bytes | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TasksReported:
    """An executor reports attempts of one lease.

    Attributes:
        lease: The lease.
        results: The outcomes.
    """

    lease: int
    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class SiblingsReported:
    """An executor reports attempts at tasks that it was handed together.

    Attributes:
        results: Lease and outcome of each.
    """

    results: tuple[tuple[int, Result], ...]


Event = (
    StartRequested
    | PauseRequested
    | ResumeRequested
    | CancelRequested
    | UpdateRequested
    | RecoverRequested
    | RetryRequested
    | RejectsFound
    | TimeRanOut
    | NodeResolved
    | DispatchFilled
    | DispatchVanished
    | BackoffEnded
    | TasksClaimed
    | SiblingsHandedOver
    | LeaseAnnounced
    | TasksReturned
    | LeaseLost
    | TasksReported
    | SiblingsReported
)
