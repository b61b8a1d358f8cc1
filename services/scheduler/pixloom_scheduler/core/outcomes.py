"""What an attempt's outcome means for its shard: ended, tried again, or split.

FAILED and PARTIAL count against the retry policy, LOST does not. A task that was lost twice goes out item by item, so
that one poisonous item is found; an item that is lost twice more is rejected without ever having been executed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pixloom.graph.plan import OnError, StageKind
from pixloom_scheduler.core.changes import AttemptEnded, Cut, NodeTally, Split
from pixloom_scheduler.core.model import TaskRun
from pixloom_scheduler.core.policy import LOST_BEFORE_REJECT, LOST_BEFORE_SPLIT, Costs, backoff_s, shard_size
from pixloom_scheduler.core.states import Outcome

if TYPE_CHECKING:
    from pixloom_scheduler.core.events import Result
    from pixloom_scheduler.core.model import JobRun, LeaseRun, StageRun

__all__ = ["end_attempt", "lose_task"]

_FRESH = TaskRun()


def end_attempt(
    job: JobRun, stage: StageRun, result: Result, *, lease: LeaseRun, now: float, costs: Costs
) -> AttemptEnded:
    """Return how a reported result ends its attempt."""
    if max(result.start, result.end) > now or 0.0 < result.start < job.start:
        # Its times are by the executor's clock: it did not work on the job before that began, nor after it told of it.
        end = min(result.end, now)
        result = replace(result, start=min(max(result.start, job.start), end), end=end)
    match result.outcome:
        case Outcome.OK:
            return _succeed(job, stage, result, lease, costs)
        case Outcome.PARTIAL:
            return _succeed(job, stage, result, lease, costs, split=_retry_items(job, stage, result, now))
        case Outcome.LOST:
            return lose_task(
                job,
                stage,
                result.shard,
                result.attempt,
                lease=lease,
                reason=result.reason or "CHILD_LOST",
                detail=result.detail,
                now=now,
            )
        case Outcome.CANCELLED:
            return _cancel(stage, result, lease)
        case _:
            return _fail(job, stage, result, lease, now)


def _succeed(
    job: JobRun, stage: StageRun, result: Result, lease: LeaseRun, costs: Costs, *, split: Split | None = None
) -> AttemptEnded:
    cuts: tuple[Cut, ...] = ()
    if result.items_out and stage.consumers:
        cuts = tuple(
            Cut(
                stage=index,
                edge=edge,
                items=result.items_out,
                size=shard_size(job, job.stages[index], costs, result.items_out),
            )
            for index, edge in stage.consumers
            if job.stages[index].plan.kind is StageKind.MAPPED
        )
    is_source = stage.plan.kind is StageKind.SOURCE
    return AttemptEnded(
        stage=stage.plan.index,
        shard=result.shard,
        attempt=result.attempt,
        outcome=result.outcome,
        executor=lease.executor,
        reason=result.reason,
        detail=result.detail,
        start=result.start,
        end=result.end,
        items_out=result.items_out,
        tallies=result.tallies,
        cuts=cuts,
        split=split,
        cursor=result.cursor if is_source and not result.end_of_source else None,
        seals=stage.plan.kind is StageKind.WHOLE or (is_source and result.end_of_source),
        value=result.value,
        has_value=result.has_value,
        payload=result.payload,
        warnings=result.warnings,
    )


def _retry_items(job: JobRun, stage: StageRun, result: Result, now: float) -> Split:
    failures = stage.tasks.get(result.shard, _FRESH).failures + 1
    place = f"{job.id}.{stage.plan.index}.{result.shard}"
    delay = max(result.retry_after_s, backoff_s(stage.plan.retry, failures, place=place))
    parent = stage.shards.subsets.get(result.shard)
    indexes = result.retry_indexes if parent is None else tuple(parent[index] for index in result.retry_indexes)
    return Split(subsets=(indexes,), attempt=result.attempt + 1, failures=failures, lost=0, due=now + delay)


def _fail(job: JobRun, stage: StageRun, result: Result, lease: LeaseRun, now: float) -> AttemptEnded:
    failures = stage.tasks.get(result.shard, _FRESH).failures + 1
    retries = result.retryable and failures < stage.plan.retry.max_attempts
    place = f"{job.id}.{stage.plan.index}.{result.shard}"
    delay = max(result.retry_after_s, backoff_s(stage.plan.retry, failures, place=place)) if retries else 0.0
    carried = not retries and result.retryable and _may_reject(job, stage)
    return AttemptEnded(
        stage=stage.plan.index,
        shard=result.shard,
        attempt=result.attempt,
        outcome=result.outcome,
        executor=lease.executor,
        reason=result.reason,
        detail=result.detail,
        start=result.start,
        end=result.end,
        ends_shard=not retries,
        failed=not retries and not carried,
        tallies=_all_rejected(stage, result.shard, result.reason) if carried else (() if retries else result.tallies),
        due=now + delay if retries else 0.0,
        payload=result.payload if not carried and not retries else None,
        carried=carried,
        warnings=result.warnings,
    )


def _cancel(stage: StageRun, result: Result, lease: LeaseRun) -> AttemptEnded:
    """Return the end of an attempt in a job that is being cancelled: nothing failed, and the task is still to be done."""
    return AttemptEnded(
        stage=stage.plan.index,
        shard=result.shard,
        attempt=result.attempt,
        outcome=result.outcome,
        executor=lease.executor,
        reason=result.reason,
        detail=result.detail,
        start=result.start,
        end=result.end,
        ends_shard=False,
        warnings=result.warnings,
    )


def _may_reject(job: JobRun, stage: StageRun) -> bool:
    """Return whether items of a stage may be rejected without failing its first node."""
    first = job.plan.nodes[stage.plan.nodes[0]]
    return stage.plan.kind is StageKind.MAPPED and first.on_error is not OnError.FAIL


def _all_rejected(stage: StageRun, shard: int, reason: str) -> tuple[NodeTally, ...]:
    items = stage.shards.items_of(shard)
    first = NodeTally(rejected=items, reasons={reason: items})
    return (first, *(NodeTally() for _ in stage.plan.nodes[1:]))


def lose_task(
    job: JobRun,
    stage: StageRun,
    shard: int,
    attempt: int,
    *,
    lease: LeaseRun,
    reason: str,
    detail: str,
    now: float,
) -> AttemptEnded:
    """Return how a lost attempt goes on: at once, item by item, or not at all."""
    task = stage.tasks.get(shard, _FRESH)
    lost = task.lost + 1
    mapped = stage.plan.kind is StageKind.MAPPED
    items = stage.shards.items_of(shard) if mapped else 1
    split: Split | None = None
    gone = False
    if lost >= LOST_BEFORE_SPLIT and items > 1:
        whole = stage.shards.subsets.get(shard) or range(items)
        split = Split(
            subsets=tuple((index,) for index in whole),
            attempt=attempt + 1,
            failures=task.failures,
            lost=lost,
            due=0.0,
        )
    elif lost >= LOST_BEFORE_REJECT:
        gone = True
    carried = gone and _may_reject(job, stage)
    return AttemptEnded(
        stage=stage.plan.index,
        shard=shard,
        attempt=attempt,
        outcome=Outcome.LOST,
        executor=lease.executor,
        reason=reason,
        detail=detail,
        start=lease.start,
        end=now,
        ends_shard=gone or split is not None,
        failed=gone and not carried,
        tallies=_all_rejected(stage, shard, reason) if carried else (),
        split=split,
        carried=carried,
    )
