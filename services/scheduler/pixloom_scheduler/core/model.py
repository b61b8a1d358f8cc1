"""What the scheduler holds in memory of an unfinished job.

A stage with a million shards costs a few bytes for each: where its input lies (four small integers) and whether it
ended (one byte). Task objects exist only while a task is offered, leased, backing off or has a history. Output
manifests stay in Postgres.
"""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pixloom_scheduler.core.stage_queue import StageQueue
from pixloom_scheduler.core.states import JobState, NodeState

if TYPE_CHECKING:
    from pixloom.graph.plan import NodePlan, Plan, StagePlan
    from pixloom_scheduler.core.changes import RecoveryAccepted

__all__ = ["JobRun", "LeaseRun", "NodeRun", "ShardTable", "StageRun", "TaskRun"]


@dataclass(slots=True)
class TaskRun:
    """A task with a history or under way.

    Attributes:
        attempt: Number of the current or next attempt: journaled outcomes + 1.
        failures: FAILED and PARTIAL outcomes so far, which the retry policy counts.
        lost: LOST outcomes since the shard was cut, which it does not count.
        lease: Id of the lease that holds it; 0 if none does.
        offered: Whether a dispatch of it is on NATS.
        due: When its back-off ends, seconds by the database's clock; 0 when it is ready.
        cursor: Where a source goes on.
    """

    attempt: int = 1
    failures: int = 0
    lost: int = 0
    lease: int = 0
    offered: bool = False
    due: float = 0.0
    cursor: str = ""


@dataclass(slots=True)
class ShardTable:
    """Where the shards of a stage read, column by column.

    Shard `i` reads `count[i]` items from `offset[i]` of the output of shard `source[i]` of the producer on edge
    `edge[i]`. A shard that reads only some of them has their indexes in `subsets`.
    """

    edge: array[int] = field(default_factory=lambda: array("H"))
    source: array[int] = field(default_factory=lambda: array("I"))
    offset: array[int] = field(default_factory=lambda: array("I"))
    count: array[int] = field(default_factory=lambda: array("I"))
    ended: bytearray = field(default_factory=bytearray)
    subsets: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ended)

    def append(self, edge: int, source: int, offset: int, count: int) -> None:
        """Add one shard."""
        self.edge.append(edge)
        self.source.append(source)
        self.offset.append(offset)
        self.count.append(count)
        self.ended.append(0)

    def extend(self, edge: int, source: int, items: int, size: int) -> None:
        """Add the shards that `items` outputs of `source` make, `size` items each."""
        shards = -(-items // size)
        self.edge.extend(array("H", [edge]) * shards)
        self.source.extend(array("I", [source]) * shards)
        self.offset.extend(range(0, items, size))
        self.count.extend(array("I", [size]) * (shards - 1))
        self.count.append(items - size * (shards - 1))
        self.ended.extend(bytes(shards))

    def items_of(self, shard: int) -> int:
        """Return the number of items that a shard reads."""
        subset = self.subsets.get(shard)
        return self.count[shard] if subset is None else len(subset)


@dataclass(slots=True)
class NodeRun:
    """A node in its current generation.

    Attributes:
        plan: What the planner made of it.
        state: Its state.
        ok: Items that passed.
        filtered: Items dropped on purpose.
        rejected: Items that could not be processed.
        reasons: Items filtered and rejected by reason.
        retry_count: Attempts beyond the first, over all its tasks.
        value: Its value, once it has one, for `when` and `${nodes…}`; None if it has none.
        has_value: Whether `value` is set.
        error: Reason and sentence of FAILED or SKIPPED.
        params: Params with all references resolved; None while they are those of the plan.
        start: When the earliest of its attempts that have ended began, seconds; 0 before one has.
        granted: When its first task was granted, seconds; 0 before, when all that was granted came back before anything
            had run, and after a restart until an executor says that it holds one.
        end: When it ended, seconds; 0 before.
        generation: Generation in which it last ran, or is to.
    """

    plan: NodePlan
    state: NodeState = NodeState.PENDING
    ok: int = 0
    filtered: int = 0
    rejected: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    retry_count: int = 0
    value: Any = None
    has_value: bool = False
    error: tuple[str, str] = ("", "")
    params: dict[str, Any] | None = None
    start: float = 0.0
    granted: float = 0.0
    end: float = 0.0
    generation: int = 1

    @property
    def begun(self) -> float:
        """When it began, seconds; 0 before."""
        return self.start or self.granted


@dataclass(slots=True)
class StageRun:
    """A stage in its current generation.

    Attributes:
        plan: What the planner made of it.
        consumers: Stages that read from it, with the index of the edge in each.
        shards: Its shards; for a source its pages, for a whole stage at most one.
        tasks: Tasks with a history or under way, by shard.
        cursor: First shard that was never offered.
        ready: Shards below the cursor that are ready again.
        active: Shards that are offered or leased.
        backing_off: Shards whose back-off has not ended.
        done: Shards that ended.
        failed: Shards that ended in failure.
        failed_shards: Which they are.
        failure: Reason and sentence of the first of them, and the place in the stage of the node that refused.
        open: Shards that have not ended.
        awaited: Nodes that must end before it starts and have not.
        may_be_blocked: Whether a node that it needs has failed, was skipped or cancelled.
        sealed: Whether no shard will be added.
        released: Whether its tasks may be dispatched.
        resolving: Whether its condition or references are being worked out.
        ended: Whether its nodes have ended.
        items_out: Items its last node gave.
        next_ordinal: First ordinal of a source's next page.
        page_cursor: Where a source's latest page begins.
        retried: By shard, places in the list of what it rejected of items that were tried again since.
        since: Generation from which on what it gave is valid.
        warnings: Things worth knowing that are no failure.
    """

    plan: StagePlan
    consumers: tuple[tuple[int, int], ...] = ()
    shards: ShardTable = field(default_factory=ShardTable)
    tasks: dict[int, TaskRun] = field(default_factory=dict)
    cursor: int = 0
    ready: deque[int] = field(default_factory=deque)
    active: int = 0
    backing_off: int = 0
    done: int = 0
    failed: int = 0
    failed_shards: list[int] = field(default_factory=list)
    failure: tuple[str, str, int] = ("", "", 0)
    open: int = 0
    awaited: int = 0
    may_be_blocked: bool = False
    sealed: bool = False
    released: bool = False
    resolving: bool = False
    ended: bool = False
    items_out: int = 0
    next_ordinal: int = 0
    page_cursor: str = ""
    retried: dict[int, frozenset[int]] = field(default_factory=dict)
    since: int = 1
    warnings: list[str] = field(default_factory=list)

    @property
    def is_untouched(self) -> bool:
        """Whether it has one task, of which nothing was offered yet."""
        return len(self.shards) == 1 and self.cursor == 0 and not self.tasks and not self.shards.ended[0]

    @property
    def has_ready(self) -> bool:
        """Whether a task could be offered now."""
        return self.released and not self.ended and (bool(self.ready) or self.cursor < len(self.shards))


@dataclass(slots=True)
class LeaseRun:
    """Tasks granted to one executor by one claim.

    Attributes:
        executor: The executor.
        stage: The stage.
        token: What the executor must show.
        tasks: Attempt by shard, of those not yet reported.
        deadline: When the tasks are taken for lost, seconds.
        start: When it was granted, seconds.
    """

    executor: str
    stage: int
    token: bytes
    tasks: dict[int, int]
    deadline: float
    start: float

    def copy(self) -> LeaseRun:
        """Return what stays the same while tasks of this one are reported."""
        return LeaseRun(self.executor, self.stage, self.token, dict(self.tasks), self.deadline, self.start)


@dataclass(slots=True, weakref_slot=True)
class JobRun:
    """An unfinished job.

    Attributes:
        id: Id of the job.
        partition: Its partition.
        plan: Its plan.
        state: Its state.
        seq: Number of its latest journal row.
        generation: Its generation.
        nodes: Its nodes in the order of the document.
        stages: Its stages in topological order.
        leases: Leases by id.
        next_lease: Id of the next lease.
        cancelling: Why it is being cancelled; None if it is not.
        gives_back: Whether it is PAUSED and executors are to hand back what they run of it.
        failure: Reason, sentence and node id of what failed it; None if nothing did.
        priority: 0 to 9, 9 first.
        deadline: When its time is over, seconds; 0 means never.
        start: When it started, seconds; 0 before.
        end: When it ended, seconds; 0 before.
        checkpoint: When the outcome of its latest attempt became durable, seconds; 0 before.
        updated: When its latest journal row was written, seconds; 0 before the first.
        unsettled: Stages whose consequences have not been worked out.
        ended_nodes: Nodes that have ended.
        recovery: What its next generation is to do again, while that has not been opened; None otherwise.
        asks_rejects: Whether the rejected items that are to be tried again are being looked up.
        recoveries: Times it was recovered.
        is_taken_up: Whether it was ever recovered or retried; one that was made of another may begin in a generation
            beyond the first without.
        requests: How it was recovered and retried, by the ids of the calls that had one.
        waiters: For each node, the stages that care how it ends, and whether they start only behind that.
    """

    id: str
    partition: int
    plan: Plan
    state: JobState = JobState.PENDING
    seq: int = 0
    generation: int = 1
    nodes: list[NodeRun] = field(default_factory=list)
    stages: list[StageRun] = field(default_factory=list)
    leases: dict[int, LeaseRun] = field(default_factory=dict)
    next_lease: int = 1
    cancelling: str | None = None
    gives_back: bool = False
    failure: tuple[str, str, str] | None = None
    priority: int = 5
    deadline: float = 0.0
    start: float = 0.0
    end: float = 0.0
    checkpoint: float = 0.0
    updated: float = 0.0
    unsettled: StageQueue = field(default_factory=StageQueue)
    ended_nodes: int = 0
    recovery: RecoveryAccepted | None = None
    asks_rejects: bool = False
    recoveries: int = 0
    is_taken_up: bool = False
    requests: dict[str, RecoveryAccepted] = field(default_factory=dict)
    waiters: tuple[tuple[tuple[int, bool], ...], ...] = ()

    @classmethod
    def of(cls, job_id: str, partition: int, plan: Plan, *, priority: int = 5) -> JobRun:
        """Return the job as it is when it has just been accepted."""
        job = cls(id=job_id, partition=partition, plan=plan, priority=priority)
        job.take_plan(plan)
        return job

    def take_plan(self, plan: Plan) -> None:
        """Run by a plan from the beginning; nothing of the job may have been dispatched yet."""
        consumers: list[list[tuple[int, int]]] = [[] for _ in plan.stages]
        for stage in plan.stages:
            for edge_index, edge in enumerate(stage.inputs):
                consumers[edge.producer].append((stage.index, edge_index))
        waiters: list[list[tuple[int, bool]]] = [[] for _ in plan.nodes]
        for stage in plan.stages:
            after = set(stage.after)
            for node in sorted(after.union(plan.nodes[stage.nodes[0]].needs)):
                waiters[node].append((stage.index, node in after))
        self.plan = plan
        self.nodes = [NodeRun(node) for node in plan.nodes]
        self.waiters = tuple(tuple(stages) for stages in waiters)
        self.stages = [
            StageRun(stage, tuple(consumers[stage.index]), awaited=len(set(stage.after))) for stage in plan.stages
        ]
