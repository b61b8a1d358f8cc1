"""Resources as they are served, made from the state in memory."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import orjson
from google.protobuf.timestamp_pb2 import Timestamp

from pixloom.graph.catalogue import OpKind
from pixloom.graph.plan import StageKind
from pixloom.v1 import job_pb2
from pixloom_scheduler.core.changes import (
    CancelAccepted,
    Durable,
    GenerationOpened,
    JobAccepted,
    JobEnded,
    JobStarted,
    JobUpdated,
    NodeEnded,
    NodeReleased,
    PauseAccepted,
    RecoveryAccepted,
    ResumeAccepted,
)
from pixloom_scheduler.core.states import JobState, NodeState
from pixloom_scheduler.core.view import current_step, node_state, progress_percent

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

    from pixloom_scheduler.core.model import JobRun, StageRun
    from pixloom_scheduler.live import LiveJob

__all__ = ["aware", "event_view", "job_view", "node_view", "output_view", "timestamp"]

_NODE_STATES: Final = {state: job_pb2.NodeState.Value(f"NODE_STATE_{state}") for state in NodeState}
LONGEST_S: Final = 100 * 365 * 86_400.0
"""Longest time that is told, a century: what authors estimate may add up to anything."""

_SKIPPED_BY_CONDITION: Final = frozenset({"WHEN_FALSE", "UPSTREAM_SKIPPED"})
_EVENT_TYPES: dict[type[object], tuple[str, str]] = {
    JobAccepted: ("job_created", "PENDING"),
    JobStarted: ("job_started", "RUNNING"),
    PauseAccepted: ("job_paused", "PAUSED"),
    ResumeAccepted: ("job_resumed", "RUNNING"),
    CancelAccepted: ("job_cancelling", ""),
    JobUpdated: ("job_updated", ""),
    RecoveryAccepted: ("job_recovering", "RECOVERING"),
    GenerationOpened: ("generation_opened", ""),
    NodeReleased: ("node_released", ""),
    NodeEnded: ("node_ended", ""),
    JobEnded: ("job_ended", ""),
}


def timestamp(seconds: float) -> Timestamp | None:
    """Return a protobuf timestamp, or None for 0."""
    if not seconds:
        return None
    time = Timestamp()
    _set_time(time, seconds)
    return time


def _set_time(time: Timestamp, seconds: float) -> None:
    time.seconds, micros = divmod(round(seconds * 1e6), 1_000_000)
    time.nanos = micros * 1000


def _set_duration(duration: Duration, seconds: float) -> None:
    duration.seconds, micros = divmod(round(min(max(seconds, 0.0), LONGEST_S) * 1e6), 1_000_000)
    duration.nanos = micros * 1000


def _trace_id(context: dict[str, str]) -> str:
    parts = context.get("traceparent", "").split("-")
    return parts[1] if len(parts) == 4 else ""


def _items(job: JobRun) -> job_pb2.ItemCounts:
    """Count what reached the ends of the item flow, and what was dropped anywhere on the way."""
    counts = job_pb2.ItemCounts()
    for stage in job.stages:
        if not any(_takes_over(job, consumer) for consumer, _ in stage.consumers):
            counts.ok += stage.items_out
        for index in stage.plan.nodes:
            counts.filtered += job.nodes[index].filtered
            counts.rejected += job.nodes[index].rejected
    return counts


def _takes_over(job: JobRun, index: int) -> bool:
    """Return whether the items that enter a stage are to come out of it, so that they are not at their end before it.

    They are at their end where a value is made of them, and before item ops that the workflow's own condition skips;
    not before item ops that failed, were cancelled or have not begun.
    """
    stage = job.stages[index]
    if stage.plan.kind is not StageKind.MAPPED:
        return bool(stage.items_out)
    return job.nodes[stage.plan.nodes[0]].error[0] not in _SKIPPED_BY_CONDITION


def _tasks(stages: list[StageRun]) -> job_pb2.TaskCounts:
    return job_pb2.TaskCounts(
        total=sum(len(stage.shards) for stage in stages),
        done=sum(stage.done for stage in stages),
        failed=sum(stage.failed for stage in stages),
    )


def output_view(job: JobRun, index: int) -> job_pb2.Output | None:
    """Return what a node gave, or None while it has not ended well."""
    node = job.nodes[index]
    if node.state != "COMPLETED":
        return None
    stage = job.stages[node.plan.stage]
    output = job_pb2.Output(node=node.plan.id)
    if node.has_value:
        facts = node.value if isinstance(node.value, dict) else None
        if facts is not None and "$artifact" in facts:
            artifact = facts["$artifact"]
            output.kind = job_pb2.OUTPUT_KIND_ARTIFACT
            output.artifact.sha256 = artifact["sha256"]
            output.artifact.size_bytes = artifact["size_bytes"]
            output.artifact.media_type = artifact["media_type"]
            if "facts" in facts:
                output.value_json = orjson.dumps(facts["facts"])
        else:
            output.kind = job_pb2.OUTPUT_KIND_VALUE
            output.value_json = orjson.dumps(node.value)
    elif node.plan.kind is OpKind.VALUE or (node.plan.kind is OpKind.ITEM and not stage.plan.inputs):
        output.kind = job_pb2.OUTPUT_KIND_VALUE
        output.value_json = b"null"
    else:
        output.kind = job_pb2.OUTPUT_KIND_COLLECTION
        output.count = node.ok
    return output


def job_view(live: LiveJob, now: float, *, left_s: float | None = None) -> job_pb2.Job:
    """Return a job as it is served.

    Args:
        live: The job.
        now: Seconds on the database's clock.
        left_s: Seconds until its expected end; None if that is not known.
    """
    header, run = live.header, live.run
    job = job_pb2.Job(
        id=header.id,
        name=header.name,
        workflow=header.workflow,
        version=header.version,
        sha256=header.sha256,
        generation=run.generation,
        state=job_pb2.JobState.Value(f"JOB_STATE_{run.state}"),
        progress=progress_percent(run),
        current_step=current_step(run),
        total_steps=len(run.nodes),
        tasks=_tasks(run.stages),
        items=_items(run),
        params_json=header.params_json,
        tags=header.tags,
        metadata_json=header.metadata_json,
        priority=header.priority,
        project=header.project,
        external_id=header.external_id,
        recovery_attempts=header.recovery_attempts,
        max_recovery_attempts=header.max_recovery_attempts,
        create_time=timestamp(header.create_time.timestamp()),
        start_time=timestamp(run.start),
        end_time=timestamp(run.end),
        last_checkpoint_time=timestamp(run.checkpoint),
        trace_id=_trace_id(header.trace_context),
        seq=live.committed_seq,
    )
    job.update_time.CopyFrom(timestamp(run.updated) or timestamp(header.create_time.timestamp()) or Timestamp())
    if run.start:
        elapsed = (run.end or now) - run.start
        _set_duration(job.actual_duration, elapsed)
        if not run.end and left_s is not None:
            _set_duration(job.estimated_duration, elapsed + left_s)
            job.estimated_end_time.CopyFrom(timestamp(now + min(left_s, LONGEST_S)) or Timestamp())
    if run.state is JobState.FAILED and run.failure is not None:
        job.reason, job.error.detail, job.error.node = run.failure
        job.error.reason = job.reason
    elif run.state is JobState.CANCELLED:
        job.reason = "CANCELLED"
    for stage in run.stages:
        job.warnings.extend(stage.warnings)
        if stage.ended and stage.plan.kind == "source" and not stage.items_out:
            job.warnings.append(f"{run.plan.nodes[stage.plan.nodes[0]].id} gave no items")
    if run.state.is_terminal:
        for name, index in run.plan.outputs.items():
            output = output_view(run, index)
            if output is not None:
                job.outputs[name].CopyFrom(output)
    return job


def node_view(
    run: JobRun, index: int, *, now: float, waiting_reason: str = "", expected_s: float | None = None
) -> job_pb2.Node:
    """Return a node as it is served.

    Args:
        run: Its job.
        index: Its place in the document.
        now: Seconds on the database's clock.
        waiting_reason: Why it waits; empty if it does not.
        expected_s: Seconds it is expected to take, unless its author said so; None if that is not known.
    """
    state = run.nodes[index]
    plan = state.plan
    stage = run.stages[plan.stage]
    # Fields are set one by one: for a job of thousands of nodes it is what a snapshot costs.
    node = job_pb2.Node(
        id=plan.id,
        op=plan.op,
        step_index=index,
        state=_NODE_STATES[node_state(run, index)],
        waiting_reason=waiting_reason,
        dependencies=[run.plan.nodes[need].id for need in plan.needs],
        retry_count=state.retry_count,
        max_attempts=stage.plan.retry.max_attempts,
        generation=state.generation,
    )
    items, tasks = node.items, node.tasks
    items.ok, items.filtered, items.rejected = state.ok, state.filtered, state.rejected
    tasks.total, tasks.done, tasks.failed = len(stage.shards), stage.done, stage.failed
    if state.reasons:
        node.reasons.update(state.reasons)
    if state.begun:
        _set_time(node.start_time, state.begun)
        _set_duration(node.actual_duration, (state.end or now) - state.begun)
    if state.end:
        _set_time(node.end_time, state.end)
    if plan.estimated_duration_s is not None:
        expected_s = plan.estimated_duration_s
    if expected_s is not None:
        _set_duration(node.estimated_duration, expected_s)
    reason, detail = state.error
    if reason:
        node.error.reason, node.error.detail, node.error.node = reason, detail, plan.id
    output = output_view(run, index)
    if output is not None:
        node.result.CopyFrom(output)
    return node


def event_view(run: JobRun, change: Durable, *, seq: int, time: float) -> job_pb2.JobEvent:
    """Return a durable change as watchers see it."""
    kind, state = _EVENT_TYPES[type(change)]
    event = job_pb2.JobEvent(seq=seq, type=kind, state=state, generation=run.generation, time=timestamp(time))
    match change:
        case NodeEnded():
            event.node = run.plan.nodes[change.node].id
            event.state, event.reason, event.detail = change.state, change.reason, change.detail
        case JobEnded():
            event.state, event.reason, event.detail, event.node = (
                change.state,
                change.reason,
                change.detail,
                change.node,
            )
        case CancelAccepted():
            event.detail = change.detail
        case JobAccepted() if change.made_of:
            event.detail = f"made of job {change.made_of} from node {change.from_node} on"
        case RecoveryAccepted():
            event.detail = "recovered" if change.is_recovery else "retried"
        case GenerationOpened():
            event.detail = f"{len(change.reset)} stages start again, {len(change.reopened)} go on"
        case PauseAccepted():
            event.detail = "running tasks were taken back" if change.now else ""
        case JobUpdated():
            event.detail = "tags were changed" if change.priority is None else f"its priority is {change.priority}"
        case NodeReleased():
            event.node = run.plan.nodes[run.plan.stages[change.stage].nodes[0]].id
        case _:
            pass
    return event


def aware(seconds: float) -> datetime:
    """Return an aware UTC time."""
    return datetime.fromtimestamp(seconds, UTC)
