"""What `decide` returns and `apply` puts into the state.

Durable changes become journal rows, one each, in order. Volatile ones are safe to lose: after a restart nothing is
offered or leased until executors announce what they hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixloom.graph.plan import Plan
    from pixloom_scheduler.core.states import JobState, NodeState, Outcome

__all__ = [
    "AttemptEnded",
    "CancelAccepted",
    "Change",
    "Cut",
    "Durable",
    "GenerationOpened",
    "JobAccepted",
    "JobEnded",
    "JobStarted",
    "JobUpdated",
    "LeaseAdopted",
    "LeaseDropped",
    "NewPlan",
    "NodeEnded",
    "NodeReleased",
    "NodeTally",
    "PauseAccepted",
    "RecoveryAccepted",
    "RejectsAsked",
    "ResolutionAsked",
    "ResumeAccepted",
    "RetriedItems",
    "Split",
    "StageReleased",
    "StageSealed",
    "TasksGivenUp",
    "TasksGranted",
    "TasksOffered",
    "TasksReadied",
    "Volatile",
]


@dataclass(frozen=True, slots=True)
class JobAccepted:
    """The job's row was written; first row of its journal.

    Attributes:
        made_of: Id of the job whose results it begins with; empty if it begins with none.
        from_node: Id of the node from which on it runs itself; empty if it runs all.
    """

    made_of: str = ""
    from_node: str = ""


@dataclass(frozen=True, slots=True)
class NewPlan:
    """What takes the place of the plan that a job was accepted with.

    Attributes:
        plan: The plan.
        plan_json: The same as it is stored, opaque here.
        params_json: The params it was made with, opaque here.
    """

    plan: Plan
    plan_json: bytes
    params_json: bytes


@dataclass(frozen=True, slots=True)
class JobStarted:
    """Dispatching may begin.

    Attributes:
        time: When, seconds.
        deadline: When the job's time is over, seconds; 0 means never.
        new_plan: What it runs by if it was started with other params; None if not, and always None at replay, as the
            job's row then has the new plan.
        request: Id of the call that asked for it, which may be empty; None if no call did for itself: the job was to
            start when it was created, or its next generation begins.
    """

    time: float
    deadline: float
    new_plan: NewPlan | None = None
    request: str | None = None


@dataclass(frozen=True, slots=True)
class PauseAccepted:
    """Nothing new is dispatched from here on.

    Attributes:
        now: Whether running tasks are taken back as well.
    """

    now: bool = False


@dataclass(frozen=True, slots=True)
class ResumeAccepted:
    """Dispatching goes on."""


@dataclass(frozen=True, slots=True)
class JobUpdated:
    """Tags or priority are others from here on.

    Attributes:
        tags: All tags; None if they stay.
        priority: 0 to 9, 9 first; None if it stays.
    """

    tags: dict[str, str] | None
    priority: int | None


@dataclass(frozen=True, slots=True)
class RecoveryAccepted:
    """A job that had ended is taken up again; its next generation is about to be opened.

    Attributes:
        is_recovery: Whether it counts against `max_recovery_attempts`; retries do not.
        again: Nodes that run again from the beginning, with all behind them.
        retries_rejects: Whether items that were rejected are tried again.
        nodes: Nodes whose rejected items are; empty means all.
        reasons: Reasons of rejected items that are; empty means all.
        request: Id of the call that asked for it; may be empty.
    """

    is_recovery: bool
    again: tuple[int, ...] = ()
    retries_rejects: bool = False
    nodes: tuple[int, ...] = ()
    reasons: tuple[str, ...] = ()
    request: str = ""


@dataclass(frozen=True, slots=True)
class RetriedItems:
    """Rejected items of one shard that are tried again, as a shard of their own.

    Attributes:
        stage: The stage.
        shard: The shard that they were rejected in.
        indexes: Their places in the slice of input that the shard was cut to, ascending.
        places: Their places in the list of what that shard rejected.
        rejected: For each of them the place in the stage of the node that rejected it, and the reason.
    """

    stage: int
    shard: int
    indexes: tuple[int, ...]
    places: tuple[int, ...]
    rejected: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class GenerationOpened:
    """The next generation of a job begins; see `generations`.

    Attributes:
        reset: Stages that start from the beginning.
        reopened: Stages that go on where they were.
        retried: Items of reopened stages that are tried again.
    """

    reset: tuple[int, ...]
    reopened: tuple[int, ...]
    retried: tuple[RetriedItems, ...] = ()


@dataclass(frozen=True, slots=True)
class CancelAccepted:
    """Nothing new starts; the job ends when what runs has been heard of, or at once.

    Attributes:
        detail: Why, for people.
        now: Whether running tasks are given up as well.
        failure: Reason, sentence and node if the job is to end FAILED (its time is over); None for CANCELLED.
    """

    detail: str
    now: bool
    failure: tuple[str, str, str] | None = None


@dataclass(frozen=True, slots=True)
class NodeReleased:
    """A stage whose start depended on a condition or on values may run.

    Attributes:
        stage: The stage.
        params: Params by node index, for nodes that refer to values of other nodes.
    """

    stage: int
    params: dict[int, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class NodeTally:
    """What one attempt did at one node.

    Attributes:
        ok: Items that passed.
        filtered: Items dropped on purpose.
        rejected: Items that could not be processed.
        reasons: Items filtered and rejected by reason; None if there are none.
    """

    ok: int = 0
    filtered: int = 0
    rejected: int = 0
    reasons: dict[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """How an output was cut into shards of a consumer: `items` items, `size` to a shard.

    Attributes:
        stage: The consumer.
        edge: Which of its edges.
        items: Number of items.
        size: Items in each shard but the last.
    """

    stage: int
    edge: int
    items: int
    size: int


@dataclass(frozen=True, slots=True)
class Split:
    """Items of a shard that become shards of their own in the same stage.

    Attributes:
        subsets: For each new shard, the indexes of its items relative to the offset of the shard it was split from.
        attempt: Number of their first attempt.
        failures: Failures they inherit.
        lost: LOST outcomes they inherit.
        due: When they may run, seconds; 0 means at once.
    """

    subsets: tuple[tuple[int, ...], ...]
    attempt: int
    failures: int
    lost: int
    due: float


@dataclass(slots=True)  # not frozen, which would make each of millions of them twice as dear
class AttemptEnded:
    """An attempt has an outcome.

    Attributes:
        stage: The stage.
        shard: The shard.
        attempt: Its number.
        outcome: How it ended.
        executor: Who ran it.
        reason: Machine reason; empty for OK.
        detail: Sentence for people.
        start: When it started, seconds.
        end: When it ended, seconds.
        ends_shard: Whether the shard has ended with it.
        failed: Whether the shard ended in failure.
        items_out: Items that the last node gave.
        tallies: Counts for each node of the stage; empty means `items_out` passed every one of them.
        cuts: Shards that the output makes in stages that stream from it.
        split: Items that go on as shards of their own.
        due: When the shard may be tried again, seconds; 0 means at once.
        cursor: For a source that goes on: where its next page begins; None otherwise.
        seals: Whether the stage gets no further shard.
        value: Its value for conditions and references.
        has_value: Whether `value` is set.
        payload: Where its outputs and rejects lie, opaque here.
        carried: Whether its input items were rejected unexecuted, so that they are to be read from its inputs.
        warnings: Things worth knowing that are no failure.
    """

    stage: int
    shard: int
    attempt: int
    outcome: Outcome
    executor: str = ""
    reason: str = ""
    detail: str = ""
    start: float = 0.0
    end: float = 0.0
    ends_shard: bool = True
    failed: bool = False
    items_out: int = 0
    tallies: tuple[NodeTally, ...] = ()
    cuts: tuple[Cut, ...] = ()
    split: Split | None = None
    due: float = 0.0
    cursor: str | None = None
    seals: bool = False
    value: Any = None
    has_value: bool = False
    payload: bytes | None = None
    carried: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeEnded:
    """A node is over in this generation.

    Attributes:
        node: Index of the node.
        state: COMPLETED, FAILED, SKIPPED or CANCELLED.
        reason: Machine reason; empty for COMPLETED.
        detail: Sentence for people.
        time: When, seconds.
    """

    node: int
    state: NodeState
    reason: str
    detail: str
    time: float


@dataclass(frozen=True, slots=True)
class JobEnded:
    """The job is over in this generation.

    Attributes:
        state: COMPLETED, FAILED or CANCELLED.
        reason: Machine reason; empty for COMPLETED.
        detail: Sentence for people.
        node: Id of the node that failed it; empty if none did.
        time: When, seconds.
    """

    state: JobState
    reason: str
    detail: str
    node: str
    time: float


@dataclass(frozen=True, slots=True)
class StageReleased:
    """A stage may run; follows from the durable state, so it is worked out again after a restart."""

    stage: int


@dataclass(frozen=True, slots=True)
class StageSealed:
    """A mapped stage gets no further shard; follows from the durable state as well."""

    stage: int


@dataclass(frozen=True, slots=True)
class ResolutionAsked:
    """A condition or references are to be worked out for a stage; the answer comes as an event."""

    stage: int


@dataclass(frozen=True, slots=True)
class RejectsAsked:
    """The rejected items that are to be tried again are to be looked up; the answer comes as an event."""


@dataclass(frozen=True, slots=True)
class TasksOffered:
    """Tasks go out in a dispatch.

    Attributes:
        stage: The stage.
        shards: The tasks; those that were ready again first.
        cursor: Where the search for tasks never offered goes on.
    """

    stage: int
    shards: tuple[int, ...]
    cursor: int


@dataclass(frozen=True, slots=True)
class TasksReadied:
    """Offered tasks whose dispatch is gone, or whose back-off has ended, are ready again."""

    stage: int
    shards: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TasksGranted:
    """Tasks are leased to an executor.

    Attributes:
        lease: Id of the lease.
        executor: The executor.
        stage: The stage.
        tasks: Shard and attempt of each.
        token: What the executor must show.
        time: When, seconds.
        deadline: When they are taken for lost, seconds.
    """

    lease: int
    executor: str
    stage: int
    tasks: tuple[tuple[int, int], ...]
    token: bytes
    time: float
    deadline: float


@dataclass(frozen=True, slots=True)
class LeaseAdopted:
    """A lease granted by an earlier owner goes on; fields as in `TasksGranted`."""

    grant: TasksGranted


@dataclass(frozen=True, slots=True)
class TasksGivenUp:
    """An executor handed tasks back without a result: they are ready again with the same attempt number."""

    lease: int
    shards: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LeaseDropped:
    """A lease is over; what was reported of it is in other changes."""

    lease: int


Durable = (
    JobAccepted
    | JobStarted
    | PauseAccepted
    | ResumeAccepted
    | CancelAccepted
    | JobUpdated
    | RecoveryAccepted
    | GenerationOpened
    | NodeReleased
    | AttemptEnded
    | NodeEnded
    | JobEnded
)
Volatile = (
    StageReleased
    | StageSealed
    | ResolutionAsked
    | RejectsAsked
    | TasksOffered
    | TasksReadied
    | TasksGranted
    | LeaseAdopted
    | TasksGivenUp
    | LeaseDropped
)
Change = Durable | Volatile
