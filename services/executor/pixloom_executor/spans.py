"""Spans of tasks, ops and reports, written by the supervisor from the times in the results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import trace

from pixloom.telemetry import names
from pixloom.telemetry.propagation import extract

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from pixloom.v1 import executor_pb2

__all__ = ["write_report_span", "write_task_spans"]


def _ns(time: Timestamp) -> int:
    return time.seconds * 1_000_000_000 + time.nanos


def write_task_spans(
    batch: executor_pb2.LeaseBatch,
    result: executor_pb2.TaskResult,
    executor: str,
    *,
    sibling: executor_pb2.SiblingTask | None = None,
) -> None:
    """Write the span of a task and those of its ops, below the dispatch it came with.

    Args:
        batch: The batch it came in.
        result: How it ended.
        executor: Id of the executor.
        sibling: The task, if it is a sibling.
    """
    if not batch.trace_tasks:
        return
    context, node = dict(batch.trace_context), batch.calls[0].node
    place = f"{batch.job_id}.{batch.generation}.{batch.stage}.{result.shard}"
    if sibling is not None:
        context["traceparent"], node = sibling.traceparent, sibling.node
        place = f"{batch.job_id}.{batch.generation}.{sibling.stage}.0"
    tracer = trace.get_tracer("pixloom")
    start = _ns(result.start_time)
    span = tracer.start_span(
        names.SPAN_TASK,
        context=extract(context),
        start_time=start,
        attributes={
            names.ATTR_JOB_ID: batch.job_id,
            names.ATTR_NODE_ID: node,
            names.ATTR_TASK_ID: place,
            names.ATTR_ATTEMPT: result.attempt,
            names.ATTR_EXECUTOR_ID: executor,
            names.ATTR_ITEMS: result.output.count + result.rejects.count,
        },
    )
    if result.reason:
        span.set_status(trace.Status(trace.StatusCode.ERROR, result.detail or result.reason))
    inside = trace.set_span_in_context(span)
    counts = {count.node: count for count in result.counts}
    at = start
    for call in batch.calls:
        name = node if sibling is not None else call.node
        count = counts.get(name)
        end = at + (count.elapsed.ToNanoseconds() if count is not None else _ns(result.end_time) - start)
        op = tracer.start_span(
            names.SPAN_OP,
            context=inside,
            start_time=at,
            attributes={names.ATTR_OP: call.op, names.ATTR_NODE_ID: name},
        )
        op.end(end)
        at = end
    span.end(_ns(result.end_time))


def write_report_span(batch: executor_pb2.LeaseBatch, *, results: int, start_ns: int, end_ns: int) -> None:
    """Write the span of a report, from sending it until its acknowledgement."""
    if not batch.trace_tasks:
        return
    span = trace.get_tracer("pixloom").start_span(
        names.SPAN_REPORT,
        context=extract(dict(batch.trace_context)),
        start_time=start_ns,
        attributes={names.ATTR_JOB_ID: batch.job_id, names.ATTR_TASKS: results},
    )
    span.end(end_ns)
