"""Spans of jobs, nodes and dispatches.

The ids of job and node spans follow from the job's id, so every replica names the same parents before and after a
restart, and the spans themselves are written when the job or node has ended, with their real times.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from opentelemetry import trace

from pixloom.telemetry import names
from pixloom.telemetry.propagation import extract, inject, remote_context
from pixloom.telemetry.spans import emit_span

if TYPE_CHECKING:
    from pixloom_scheduler.job import JobHeader
    from pixloom_scheduler.live import LiveJob

__all__ = ["MAX_TRACED_TASKS", "Traces", "is_sampled", "trace_context_of"]

MAX_TRACED_TASKS = 1000
"""Tasks up to which every one has spans."""


def _span_id(*place: object) -> int:
    digest = hashlib.sha256(".".join(map(str, place)).encode()).digest()
    return int.from_bytes(digest[:8], "big") or 1


def is_sampled(context: dict[str, str]) -> bool:
    """Return whether a trace is recorded by anybody (W3C Trace Context, flag `sampled`)."""
    flags = context.get("traceparent", "")[-2:]
    return flags not in ("", "00")


def trace_context_of(job_id: str, current: dict[str, str]) -> dict[str, str]:
    """Return the trace context of a new job: the caller's, or one that follows from the job's id."""
    if "traceparent" in current:
        return current
    trace_id = hashlib.sha256(job_id.encode()).hexdigest()[:32]
    return {"traceparent": f"00-{trace_id}-{_span_id(job_id, 'root'):016x}-01"}


class Traces:
    """Writes the spans that the scheduler is responsible for."""

    def job_ended(self, live: LiveJob) -> None:
        """Write the span of a job."""
        if not is_sampled(live.header.trace_context):
            return
        header, run = live.header, live.run
        context = extract(header.trace_context)
        parent = trace.get_current_span(context).get_span_context()
        emit_span(
            names.SPAN_JOB,
            context=context,
            trace_id=parent.trace_id,
            span_id=_span_id(header.id, run.generation),
            start_time_ns=_ns(header.create_time.timestamp()),
            end_time_ns=_ns(run.end),
            attributes={
                names.ATTR_JOB_ID: header.id,
                names.ATTR_WORKFLOW: header.workflow,
                names.ATTR_STATE: str(run.state),
                names.ATTR_GENERATION: run.generation,
            },
            error=run.failure[1] if run.failure is not None else None,
        )

    def node_ended(self, live: LiveJob, index: int) -> None:
        """Write the span of a node."""
        if not is_sampled(live.header.trace_context):
            return
        header, run = live.header, live.run
        node = run.nodes[index]
        trace_id, parent = self._job_parent(header, run.generation)
        emit_span(
            names.SPAN_NODE,
            context=remote_context(trace_id=trace_id, span_id=parent),
            trace_id=trace_id,
            span_id=_span_id(header.id, run.generation, index),
            start_time_ns=_ns(node.begun or node.end),
            end_time_ns=_ns(node.end),
            attributes={
                names.ATTR_JOB_ID: header.id,
                names.ATTR_NODE_ID: node.plan.id,
                names.ATTR_OP: node.plan.op,
                names.ATTR_STATE: str(node.state),
                names.ATTR_ITEMS: node.ok + node.filtered + node.rejected,
            },
            error=node.error[1] if node.state == "FAILED" else None,
        )

    def dispatched(
        self, live: LiveJob, stage_index: int, *, dispatch_id: str, tasks: int, start: float, end: float
    ) -> dict[str, str]:
        """Write the span of a dispatch and return its context for the message."""
        header, run = live.header, live.run
        stage = run.stages[stage_index].plan
        trace_id, _ = self._job_parent(header, run.generation)
        span_id = _span_id(dispatch_id)
        emit_span(
            names.SPAN_DISPATCH,
            context=remote_context(trace_id=trace_id, span_id=_span_id(header.id, run.generation, stage.nodes[0])),
            trace_id=trace_id,
            span_id=span_id,
            start_time_ns=_ns(start),
            end_time_ns=_ns(end),
            attributes={
                names.ATTR_JOB_ID: header.id,
                names.ATTR_NODE_ID: run.plan.nodes[stage.nodes[0]].id,
                names.ATTR_POOL: stage.pool,
                names.ATTR_TASKS: tasks,
                names.ATTR_DISPATCH_ID: dispatch_id,
            },
        )
        return inject(context=remote_context(trace_id=trace_id, span_id=span_id))

    def of_job(self, live: LiveJob) -> dict[str, str]:
        """Return the context of a job, for spans that belong to several of its nodes."""
        trace_id, span_id = self._job_parent(live.header, live.run.generation)
        return inject(context=remote_context(trace_id=trace_id, span_id=span_id))

    @staticmethod
    def _job_parent(header: JobHeader, generation: int) -> tuple[int, int]:
        parent = trace.get_current_span(extract(header.trace_context)).get_span_context()
        return parent.trace_id, _span_id(header.id, generation)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
