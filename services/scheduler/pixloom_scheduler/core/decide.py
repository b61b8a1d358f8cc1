"""Decides what follows from an event: reads the state, returns changes, alters nothing.

Three kinds of event reach a job. *Commands* move the job itself. *Dispatch* events (a window has room, an executor
claims, gives back, is lost) move tasks between ready, offered and leased; only a LOST attempt is durable among them.
*Reports* end attempts. What an ended attempt entails for nodes and the job is the business of `settle`.

A command that does not fit raises `IllegalTransitionError`. Anything stale (an older generation, a task that is not
leased as claimed, an ended stage) yields no change: late, repeated and forged messages are harmless.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, assert_never

from pixloom.graph.plan import StageKind
from pixloom_scheduler.core.changes import (
    AttemptEnded,
    CancelAccepted,
    Change,
    JobStarted,
    JobUpdated,
    LeaseAdopted,
    LeaseDropped,
    NodeEnded,
    NodeReleased,
    PauseAccepted,
    RecoveryAccepted,
    ResumeAccepted,
    TasksGivenUp,
    TasksGranted,
    TasksOffered,
    TasksReadied,
)
from pixloom_scheduler.core.events import (
    BackoffEnded,
    CancelRequested,
    DispatchFilled,
    DispatchVanished,
    Event,
    LeaseAnnounced,
    LeaseLost,
    NodeResolved,
    PauseRequested,
    RecoverRequested,
    RejectsFound,
    ResumeRequested,
    RetryRequested,
    SiblingsHandedOver,
    SiblingsReported,
    StartRequested,
    TasksClaimed,
    TasksReported,
    TasksReturned,
    TimeRanOut,
    UpdateRequested,
)
from pixloom_scheduler.core.generations import next_generation
from pixloom_scheduler.core.outcomes import end_attempt, lose_task
from pixloom_scheduler.core.policy import Costs, deadline_s
from pixloom_scheduler.core.reasons import bound_reasons, may_have_rejected
from pixloom_scheduler.core.settle import start_of
from pixloom_scheduler.core.states import IllegalTransitionError, JobState, NodeState, Outcome

if TYPE_CHECKING:
    from pixloom_scheduler.core.model import JobRun, StageRun

__all__ = ["decide"]


def decide(job: JobRun, event: Event, now: float, costs: Costs) -> list[Change]:
    """Return the changes that `event` makes to `job`.

    Args:
        job: The job; only read.
        event: What happened.
        now: The time by the database's clock, seconds.
        costs: Seconds an item by op, as measured so far.

    Raises:
        IllegalTransitionError: If a command does not fit the state of the job.
    """
    match event:
        case TasksReported():
            return _report(job, event, now, costs)
        case TasksClaimed():
            return _claim(job, event, now)
        case SiblingsReported():
            return _report_siblings(job, event, now, costs)
        case SiblingsHandedOver():
            return _hand_over(job, event, now)
        case DispatchFilled():
            return _fill(job, event)
        case DispatchVanished():
            return _vanish(job, event)
        case BackoffEnded():
            return _end_backoff(job, event)
        case TasksReturned():
            return _return(job, event)
        case LeaseLost():
            return _lose(job, event, now)
        case LeaseAnnounced():
            return _adopt(job, event, now)
        case NodeResolved():
            return _resolve(job, event, now)
        case StartRequested():
            return _start(job, event, now)
        case PauseRequested():
            if job.state is JobState.PAUSED and (job.gives_back or not event.now):
                return []
            _require(job, JobState.PAUSED if job.state is JobState.PAUSED else JobState.RUNNING, "pause")
            return [PauseAccepted(now=event.now)]
        case ResumeRequested():
            if job.state is JobState.RUNNING and job.cancelling is None:
                return []
            _require(job, JobState.PAUSED, "resume")
            return [ResumeAccepted()]
        case CancelRequested():
            return _cancel(job, event)
        case UpdateRequested():
            return _update(job, event)
        case RecoverRequested():
            return _recover(job, event)
        case RetryRequested():
            return _retry(job, event)
        case RejectsFound():
            return _open_retry(job, event, now)
        case TimeRanOut():
            if job.state.is_terminal or job.cancelling is not None:
                return []
            detail = f"the job did not end within its {job.plan.timeout_s:g} s"
            return [CancelAccepted(detail=detail, now=True, failure=("JOB_TIMEOUT", detail, ""))]
        case _:
            assert_never(event)


def _require(job: JobRun, state: JobState, verb: str) -> None:
    if job.state is not state or job.cancelling is not None:
        raise IllegalTransitionError(job.state, verb, _ending(job))


def _ending(job: JobRun) -> str:
    """Return why nothing but a cancel fits a job that is being cancelled; empty for others."""
    return "it is being cancelled" if job.cancelling is not None and not job.state.is_terminal else ""


def _start(job: JobRun, event: StartRequested, now: float) -> list[Change]:
    if job.state in (JobState.RUNNING, JobState.PAUSED):
        return []
    _require(job, JobState.PENDING, "start")
    timeout_s = (event.new_plan.plan if event.new_plan is not None else job.plan).timeout_s
    deadline = now + timeout_s if timeout_s else 0.0
    return [JobStarted(time=now, deadline=deadline, new_plan=event.new_plan, request=event.request)]


def _recover(job: JobRun, event: RecoverRequested) -> list[Change]:
    accepted = RecoveryAccepted(is_recovery=True, again=event.again, request=event.request)
    if _is_repeated(job, accepted, "recover") or _is_taken_up(job):
        return []
    if job.state not in (JobState.FAILED, JobState.CANCELLED):
        raise IllegalTransitionError(job.state, "recover", _ending(job))
    if job.recoveries >= event.most:
        because = f"it was recovered {job.recoveries} of {event.most} times (max_recovery_attempts); try `rerun`"
        raise IllegalTransitionError(job.state, "recover", because)
    return [accepted]


def _retry(job: JobRun, event: RetryRequested) -> list[Change]:
    asked = RecoveryAccepted(is_recovery=False, nodes=event.nodes, reasons=event.reasons, request=event.request)
    if _is_repeated(job, asked, "retry") or _is_taken_up(job):
        return []
    if not job.state.is_terminal:
        raise IllegalTransitionError(job.state, "retry", _ending(job))
    nodes = [job.nodes[index] for index in event.nodes] or job.nodes
    rejects = any(node.rejected and (not event.reasons or may_have_rejected(node, event.reasons)) for node in nodes)
    if not rejects and job.state is JobState.COMPLETED:
        raise IllegalTransitionError(job.state, "retry", "nothing failed, and no such item was rejected")
    return [replace(asked, retries_rejects=rejects)]


def _is_repeated(job: JobRun, asked: RecoveryAccepted, verb: str) -> bool:
    """Return whether the job was taken up by this very call before, whatever became of it since.

    Raises:
        IllegalTransitionError: If a call that asked for something else had the same id.
    """
    before = job.requests.get(asked.request)
    if before is None:
        return False
    if replace(before, retries_rejects=asked.retries_rejects) != asked:
        because = f"request_id {asked.request} was used for another call; choose a new one"
        raise IllegalTransitionError(job.state, verb, because)
    return True


def _is_taken_up(job: JobRun) -> bool:
    """Return whether somebody recovered or retried the job and it has not ended since: to do so again changes nothing."""
    ending = job.cancelling is not None
    return not ending and (job.state is JobState.RECOVERING or (job.state is JobState.RUNNING and job.is_taken_up))


def _open_retry(job: JobRun, event: RejectsFound, now: float) -> list[Change]:
    if job.recovery is None or event.generation != job.generation or job.cancelling is not None:
        return []
    return [next_generation(job, again=job.recovery.again, retried=event.retried), start_of(job, now)]


def _update(job: JobRun, event: UpdateRequested) -> list[Change]:
    priority = None if event.priority == job.priority else event.priority
    if priority is not None and job.state.is_terminal:
        raise IllegalTransitionError(job.state, "change the priority of")
    return [] if event.tags is None and priority is None else [JobUpdated(tags=event.tags, priority=priority)]


def _cancel(job: JobRun, event: CancelRequested) -> list[Change]:
    if job.state is JobState.CANCELLED:
        return []
    if job.state.is_terminal:
        raise IllegalTransitionError(job.state, "cancel")
    if job.cancelling is not None and not event.now:
        return []
    return [CancelAccepted(detail=event.detail, now=event.now, failure=event.failure)]


def _open_stage(job: JobRun, index: int) -> StageRun | None:
    """Return a stage that still runs, or None."""
    if job.state.is_terminal or not 0 <= index < len(job.stages):
        return None
    stage = job.stages[index]
    return None if stage.ended or not stage.released else stage


def _fill(job: JobRun, event: DispatchFilled) -> list[Change]:
    stage = _open_stage(job, event.stage)
    if stage is None or job.state is not JobState.RUNNING or job.cancelling is not None:
        return []
    shards = [shard for _, shard in zip(range(event.most), stage.ready, strict=False)]
    cursor, end = stage.cursor, len(stage.shards)
    ended, tasks = stage.shards.ended, stage.tasks
    while len(shards) < event.most:
        # After a restart all of a long table may have ended but its last part.
        cursor = ended.find(0, cursor)
        if cursor < 0:
            cursor = end
            break
        task = tasks.get(cursor)
        if task is None or not (task.lease or task.offered or task.due):
            shards.append(cursor)
        cursor += 1
    if cursor == stage.cursor and not shards:
        return []
    return [TasksOffered(stage=event.stage, shards=tuple(shards), cursor=cursor)]


def _vanish(job: JobRun, event: DispatchVanished) -> list[Change]:
    stage = _open_stage(job, event.stage)
    if stage is None:
        return []
    gone = tuple(shard for shard in event.shards if (task := stage.tasks.get(shard)) is not None and task.offered)
    return [TasksReadied(stage=event.stage, shards=gone)] if gone else []


def _end_backoff(job: JobRun, event: BackoffEnded) -> list[Change]:
    stage = _open_stage(job, event.stage)
    if stage is None:
        return []
    due = tuple(shard for shard in event.shards if (task := stage.tasks.get(shard)) is not None and task.due)
    return [TasksReadied(stage=event.stage, shards=due)] if due else []


def _claim(job: JobRun, event: TasksClaimed, now: float) -> list[Change]:
    stage = _open_stage(job, event.stage)
    if (
        stage is None
        or event.generation != job.generation
        or job.state is not JobState.RUNNING
        or job.cancelling is not None
    ):
        return []
    granted: list[tuple[int, int]] = []
    items = 0
    size, ended, tasks = len(stage.shards), stage.shards.ended, stage.tasks
    for shard, attempt in event.tasks:
        if shard >= size or ended[shard]:
            continue
        task = tasks.get(shard)
        if task is None:
            if attempt != 1:
                continue
        elif task.lease or task.due or task.attempt != attempt:
            continue
        granted.append((shard, attempt))
        items += stage.shards.items_of(shard)
    if not granted:
        return []
    tasks_granted = tuple(granted)
    return [
        TasksGranted(
            lease=job.next_lease,
            executor=event.executor,
            stage=event.stage,
            tasks=tasks_granted,
            token=event.mint(tasks_granted),
            time=now,
            deadline=now + deadline_s(job, stage, items),
        )
    ]


def _hand_over(job: JobRun, event: SiblingsHandedOver, now: float) -> list[Change]:
    if job.state is not JobState.RUNNING or job.cancelling is not None:
        return []
    stages: list[int] = []
    for index in event.stages:
        stage = _open_stage(job, index)
        if stage is not None and stage.plan.kind is StageKind.WHOLE and stage.is_untouched:
            stages.append(index)
    if not stages:
        return []
    token = event.mint(tuple(stages))
    # They run one after another.
    deadline = now + max(deadline_s(job, job.stages[index], len(stages)) for index in stages)
    changes: list[Change] = []
    for lease, index in enumerate(stages, job.next_lease):
        changes.append(TasksOffered(stage=index, shards=(0,), cursor=1))
        changes.append(
            TasksGranted(
                lease=lease,
                executor=event.executor,
                stage=index,
                tasks=((0, 1),),
                token=token,
                time=now,
                deadline=deadline,
            )
        )
    return changes


def _adopt(job: JobRun, event: LeaseAnnounced, now: float) -> list[Change]:
    grant = event.grant
    stage = _open_stage(job, grant.stage)
    if stage is None or event.generation != job.generation:
        return []
    held: list[tuple[int, int]] = []
    items = 0
    for shard, attempt in grant.tasks:
        if shard not in event.held or shard >= len(stage.shards) or stage.shards.ended[shard]:
            continue
        task = stage.tasks.get(shard)
        if (task.attempt if task else 1) != attempt or (task is not None and (task.lease or task.due)):
            continue
        held.append((shard, attempt))
        items += stage.shards.items_of(shard)
    if not held:
        return []
    deadline = now + deadline_s(job, stage, max(items, 1) + event.beside)
    adopted = replace(grant, lease=job.next_lease, tasks=tuple(held), time=now, deadline=deadline)
    return [LeaseAdopted(adopted)]


def _return(job: JobRun, event: TasksReturned) -> list[Change]:
    lease = job.leases.get(event.lease)
    if lease is None:
        return []
    shards = tuple(shard for shard in event.shards if shard in lease.tasks)
    return [TasksGivenUp(lease=event.lease, shards=shards)] if shards else []


def _lose(job: JobRun, event: LeaseLost, now: float) -> list[Change]:
    lease = job.leases.get(event.lease)
    if lease is None:
        return []
    stage = job.stages[lease.stage]
    changes: list[Change] = [
        lose_task(job, stage, shard, attempt, lease=lease, reason=event.reason, detail=event.detail, now=now)
        for shard, attempt in lease.tasks.items()
    ]
    changes.append(LeaseDropped(event.lease))
    return changes


def _report(job: JobRun, event: TasksReported, now: float, costs: Costs) -> list[Change]:
    lease = job.leases.get(event.lease)
    if lease is None:
        return []
    stage = _open_stage(job, lease.stage)
    if stage is None:
        return []
    seen: set[int] = set()
    returned: list[int] = []
    ended: list[AttemptEnded] = []
    for result in event.results:
        shard = result.shard
        if shard in seen or lease.tasks.get(shard) != result.attempt:
            continue
        seen.add(shard)
        if result.outcome is Outcome.CANCELLED and job.cancelling is None:
            # The job was paused, not cancelled: the task was taken back and has no outcome.
            returned.append(shard)
            continue
        ended.append(end_attempt(job, stage, result, lease=lease, now=now, costs=costs))
    changes: list[Change] = [*bound_reasons(job, ended)]
    if returned:
        changes.append(TasksGivenUp(lease=event.lease, shards=tuple(returned)))
    return changes


def _report_siblings(job: JobRun, event: SiblingsReported, now: float, costs: Costs) -> list[Change]:
    seen: set[int] = set()
    changes: list[Change] = []
    for lease, result in event.results:
        # One result of each counts; nothing of this is applied yet.
        told = _report(job, TasksReported(lease, (result,)), now, costs) if lease not in seen else []
        if told:
            seen.add(lease)
            changes += told
    return changes


def _resolve(job: JobRun, event: NodeResolved, now: float) -> list[Change]:
    stage = job.stages[event.stage]
    # What an earlier generation asked for may come when this one has asked anew, of nodes that end otherwise now.
    if event.generation != job.generation or stage.released or stage.ended or not stage.resolving:
        return []
    if event.failure is not None:
        reason, detail = event.failure
        first, *rest = stage.plan.nodes
        skipped = f"node {job.plan.nodes[first].id} failed"
        return [
            NodeEnded(node=first, state=NodeState.FAILED, reason=reason, detail=detail, time=now),
            *(
                NodeEnded(node=node, state=NodeState.SKIPPED, reason="UPSTREAM_FAILED", detail=skipped, time=now)
                for node in rest
            ),
        ]
    if not event.run:
        first, *rest = stage.plan.nodes
        plan = job.plan.nodes[first]
        detail = f"its condition `{plan.when}` was false"
        behind = f"node {plan.id} was skipped: {detail}"
        return [
            NodeEnded(node=first, state=NodeState.SKIPPED, reason="WHEN_FALSE", detail=detail, time=now),
            *(
                NodeEnded(node=node, state=NodeState.SKIPPED, reason="UPSTREAM_SKIPPED", detail=behind, time=now)
                for node in rest
            ),
        ]
    return [NodeReleased(stage=event.stage, params=event.params)]
