"""Puts changes into the state, in place, touching only what changed. The live scheduler and the replay both use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixloom.graph.plan import StageKind
from pixloom_scheduler.core.changes import (
    AttemptEnded,
    CancelAccepted,
    Change,
    Durable,
    GenerationOpened,
    JobAccepted,
    JobEnded,
    JobStarted,
    JobUpdated,
    LeaseAdopted,
    LeaseDropped,
    NodeEnded,
    NodeReleased,
    PauseAccepted,
    RecoveryAccepted,
    RejectsAsked,
    ResolutionAsked,
    ResumeAccepted,
    StageReleased,
    StageSealed,
    TasksGivenUp,
    TasksGranted,
    TasksOffered,
    TasksReadied,
)
from pixloom_scheduler.core.generations import open_generation
from pixloom_scheduler.core.model import JobRun, LeaseRun, StageRun, TaskRun
from pixloom_scheduler.core.states import JobState, NodeState, check_job_transition, check_node_transition
from pixloom_scheduler.core.view import node_state

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["apply"]


def apply(job: JobRun, changes: Iterable[Change], *, time: float = 0.0) -> None:
    """Put `changes` into `job` in order; each durable one takes the next journal number.

    Args:
        job: The job.
        changes: What happened.
        time: When the durable ones are written, seconds by the database's clock; it never goes back in a journal.
    """
    for change in changes:
        if isinstance(change, Durable):
            job.seq += 1
            job.updated = max(job.updated, time)
        match change:
            case AttemptEnded():
                _end_attempt(job, change)
            case TasksOffered():
                _offer(job.stages[change.stage], change)
            case TasksGranted():
                _grant(job, change)
            case TasksReadied():
                _ready(job.stages[change.stage], change.shards)
            case LeaseDropped():
                _drop_lease(job, change.lease)
            case TasksGivenUp():
                _give_up(job, change)
            case LeaseAdopted():
                _adopt(job, change.grant)
            case StageSealed():
                job.stages[change.stage].sealed = True
                job.unsettled.add(change.stage)
            case StageReleased():
                _release(job, change.stage)
            case ResolutionAsked():
                job.stages[change.stage].resolving = True
            case NodeReleased():
                for node, params in change.params.items():
                    job.nodes[node].params = params
                job.stages[change.stage].resolving = False
                _release(job, change.stage)
            case NodeEnded():
                _end_node(job, change)
            case JobStarted():
                check_job_transition(job.state, JobState.RUNNING)
                if change.new_plan is not None:
                    job.take_plan(change.new_plan.plan)
                job.state, job.start, job.deadline = JobState.RUNNING, job.start or change.time, change.deadline
                job.unsettled.update(range(len(job.stages)))
            case PauseAccepted():
                if job.state is not JobState.PAUSED:
                    check_job_transition(job.state, JobState.PAUSED)
                job.state, job.gives_back = JobState.PAUSED, change.now
            case ResumeAccepted():
                check_job_transition(job.state, JobState.RUNNING)
                job.state, job.gives_back = JobState.RUNNING, False
            case JobUpdated():
                if change.priority is not None:
                    job.priority = change.priority
            case RecoveryAccepted():
                check_job_transition(job.state, JobState.RECOVERING)
                job.state, job.recovery, job.asks_rejects = JobState.RECOVERING, change, False
                job.cancelling, job.failure, job.end, job.gives_back = None, None, 0.0, False
                job.recoveries += change.is_recovery
                job.is_taken_up = True
                if change.request:
                    job.requests[change.request] = change
            case RejectsAsked():
                job.asks_rejects = True
            case GenerationOpened():
                open_generation(job, change)
            case CancelAccepted():
                job.cancelling, job.failure = change.detail, change.failure
                if change.now:
                    job.leases.clear()
                job.unsettled.update(range(len(job.stages)))
            case JobEnded():
                check_job_transition(job.state, change.state)
                job.state, job.end = change.state, change.time
                if change.state is JobState.FAILED:
                    job.failure = (change.reason, change.detail, change.node)
                job.leases.clear()
                job.unsettled.clear()
            case JobAccepted():
                pass


def _task(stage: StageRun, shard: int) -> TaskRun:
    task = stage.tasks.get(shard)
    if task is None:
        task = stage.tasks[shard] = TaskRun()
    return task


def _release(job: JobRun, index: int) -> None:
    stage = job.stages[index]
    stage.released = True
    if stage.plan.kind is not StageKind.MAPPED:
        _ensure_first_shard(stage)
    job.unsettled.add(index)


def _ensure_first_shard(stage: StageRun) -> None:
    if not len(stage.shards):
        stage.shards.append(0, 0, 0, 0)
        stage.open += 1
        stage.sealed = stage.plan.kind is StageKind.WHOLE


def _offer(stage: StageRun, change: TasksOffered) -> None:
    tasks, ready = stage.tasks, stage.ready
    for shard in change.shards:
        if shard < stage.cursor:
            if ready[0] == shard:
                ready.popleft()
            else:
                ready.remove(shard)
        task = tasks.get(shard)
        if task is None:
            tasks[shard] = TaskRun(offered=True)
        else:
            task.offered = True
    stage.cursor = change.cursor
    stage.active += len(change.shards)


def _make_ready(stage: StageRun, shard: int) -> None:
    """Put a shard where the next dispatch finds it; those at or behind the cursor are found anyway."""
    if shard < stage.cursor:
        stage.ready.append(shard)


def _ready(stage: StageRun, shards: tuple[int, ...]) -> None:
    for shard in shards:
        task = _task(stage, shard)
        if task.offered:
            task.offered = False
            stage.active -= 1
        if task.due:
            task.due = 0.0
            stage.backing_off -= 1
        _make_ready(stage, shard)


def _grant(job: JobRun, grant: TasksGranted) -> None:
    stage = job.stages[grant.stage]
    for shard, _ in grant.tasks:
        task = _task(stage, shard)
        if not task.offered:
            _take(stage, shard, task)
            stage.active += 1
        task.offered = False
        task.lease = grant.lease
    job.leases[grant.lease] = LeaseRun(
        executor=grant.executor,
        stage=grant.stage,
        token=grant.token,
        tasks=dict(grant.tasks),
        deadline=grant.deadline,
        start=grant.time,
    )
    job.next_lease = max(job.next_lease, grant.lease + 1)
    for node in stage.plan.nodes:
        if not job.nodes[node].granted:
            job.nodes[node].granted = grant.time


def _take(stage: StageRun, shard: int, task: TaskRun) -> None:
    """Take a shard out of where it waits."""
    if task.due:
        task.due = 0.0
        stage.backing_off -= 1
        return
    if shard < stage.cursor and shard in stage.ready:
        stage.ready.remove(shard)


def _adopt(job: JobRun, grant: TasksGranted) -> None:
    stage = job.stages[grant.stage]
    for shard, _ in grant.tasks:
        task = _task(stage, shard)
        if task.offered:
            task.offered = False
            stage.active -= 1
            _make_ready(stage, shard)
    _grant(job, grant)


def _give_up(job: JobRun, change: TasksGivenUp) -> None:
    lease = job.leases[change.lease]
    stage = job.stages[lease.stage]
    for shard in change.shards:
        del lease.tasks[shard]
        stage.tasks[shard].lease = 0
        stage.active -= 1
        _make_ready(stage, shard)
    if not lease.tasks:
        del job.leases[change.lease]
        job.unsettled.add(lease.stage)
        _forget_begin(job, stage)


def _forget_begin(job: JobRun, stage: StageRun) -> None:
    """Take nodes for not begun, of which nothing has run: their only leases were handed back."""
    nodes = [job.nodes[index] for index in stage.plan.nodes]
    if nodes[0].start or (stage.active and any(lease.stage == stage.plan.index for lease in job.leases.values())):
        return
    for node in nodes:
        node.granted = 0.0


def _drop_lease(job: JobRun, lease_id: int) -> None:
    lease = job.leases.pop(lease_id, None)
    if lease is not None:
        job.unsettled.add(lease.stage)


def _end_attempt(job: JobRun, change: AttemptEnded) -> None:
    stage = job.stages[change.stage]
    if stage.plan.kind is not StageKind.MAPPED:
        _ensure_first_shard(stage)
    shards = stage.shards
    task = stage.tasks.get(change.shard)
    if task is None:
        # Replay: nothing was offered before.
        task = stage.tasks[change.shard] = TaskRun()
        _take(stage, change.shard, task)
    elif task.lease:
        lease = job.leases.get(task.lease)
        if lease is not None:
            lease.tasks.pop(change.shard, None)
            if not lease.tasks:
                del job.leases[task.lease]
        task.lease = 0
        stage.active -= 1
    elif task.offered:
        task.offered = False
        stage.active -= 1
    else:
        _take(stage, change.shard, task)
    for node_index, node in enumerate(stage.plan.nodes):
        run = job.nodes[node]
        if change.attempt > 1:
            run.retry_count += 1
        if change.tallies:
            tally = change.tallies[node_index]
            run.ok += tally.ok
            run.filtered += tally.filtered
            run.rejected += tally.rejected
            if tally.reasons:
                for reason, count in tally.reasons.items():
                    run.reasons[reason] = run.reasons.get(reason, 0) + count
        else:
            run.ok += change.items_out
        if change.start and (not run.start or change.start < run.start):
            run.start = change.start
    if change.has_value:
        last = job.nodes[stage.plan.nodes[-1]]
        last.value, last.has_value = change.value, True
    stage.items_out += change.items_out
    if change.warnings:
        stage.warnings.extend(change.warnings)
    if change.ends_shard:
        shards.ended[change.shard] = 1
        stage.done += 1
        stage.open -= 1
        if change.failed:
            if not stage.failed:
                stage.failure = (change.reason, change.detail, _refusing_place(change))
            stage.failed += 1
            stage.failed_shards.append(change.shard)
        del stage.tasks[change.shard]
    else:
        task.attempt = change.attempt + 1
        _count_outcome(task, change)
        if change.due:
            task.due = change.due
            stage.backing_off += 1
        else:
            _make_ready(stage, change.shard)
    if change.split is not None:
        _split(stage, change)
    for cut in change.cuts:
        consumer = job.stages[cut.stage]
        before = len(consumer.shards)
        consumer.shards.extend(cut.edge, change.shard, cut.items, cut.size)
        consumer.open += len(consumer.shards) - before
    if change.cursor is not None:
        _add_page(stage, change)
    if change.seals:
        stage.sealed = True
    job.checkpoint = job.updated
    if stage.open == 0 or stage.failed:
        job.unsettled.add(change.stage)


def _refusing_place(change: AttemptEnded) -> int:
    return next((place for place, tally in enumerate(change.tallies) if tally.rejected), 0)


def _count_outcome(task: TaskRun, change: AttemptEnded) -> None:
    if change.outcome == "LOST":
        task.lost += 1
    else:
        task.failures += 1


def _split(stage: StageRun, change: AttemptEnded) -> None:
    split = change.split
    if split is None:
        return
    shards = stage.shards
    parent = change.shard
    for subset in split.subsets:
        new = len(shards)
        shards.append(shards.edge[parent], shards.source[parent], shards.offset[parent], shards.count[parent])
        shards.subsets[new] = subset
        stage.open += 1
        stage.tasks[new] = TaskRun(attempt=split.attempt, failures=split.failures, lost=split.lost, due=split.due)
        if split.due:
            stage.backing_off += 1


def _add_page(stage: StageRun, change: AttemptEnded) -> None:
    page = len(stage.shards)
    stage.shards.append(0, 0, 0, 0)
    stage.open += 1
    stage.next_ordinal += change.items_out
    stage.page_cursor = change.cursor or ""
    stage.tasks[page] = TaskRun(cursor=stage.page_cursor)


def _end_node(job: JobRun, change: NodeEnded) -> None:
    node = job.nodes[change.node]
    stage = job.stages[node.plan.stage]
    check_node_transition(node_state(job, change.node), change.state)
    node.state, node.end = change.state, change.time
    node.error = (change.reason, change.detail)
    job.ended_nodes += 1
    is_bad = change.state is not NodeState.COMPLETED
    for waiter, is_awaited in job.waiters[change.node]:
        waiting = job.stages[waiter]
        waiting.may_be_blocked = waiting.may_be_blocked or is_bad
        waiting.awaited -= is_awaited
        if is_bad or not waiting.awaited:
            job.unsettled.add(waiter)
    # From behind: nodes of a stage end in its order, so all but the last are told apart at the first look.
    if all(job.nodes[index].state.is_terminal for index in reversed(stage.plan.nodes)):
        stage.ended = True
        stage.resolving = False
        # Of a job with thousands of nodes thousands of leases are out; a stage that ended well has none of them.
        if stage.active:
            for lease_id in [lease_id for lease_id, lease in job.leases.items() if lease.stage == stage.plan.index]:
                del job.leases[lease_id]
        stage.tasks.clear()
        stage.ready.clear()
        stage.active = stage.backing_off = 0
        job.unsettled.update(consumer for consumer, _ in stage.consumers)
    if job.ended_nodes == len(job.nodes):
        job.unsettled.add(stage.plan.index)
