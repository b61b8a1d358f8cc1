"""W3C trace context in string headers: gRPC metadata, NATS headers, a column of the job row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["extract", "extract_traceparent", "inject", "remote_context", "traceparent"]

_PROPAGATOR = TraceContextTextMapPropagator()


def inject(carrier: dict[str, str] | None = None, *, context: Context | None = None) -> dict[str, str]:
    """Put the current (or a given) span into headers `traceparent` and `tracestate`; return the headers."""
    headers = carrier if carrier is not None else {}
    _PROPAGATOR.inject(headers, context=context)
    return headers


def extract(carrier: Mapping[str, str]) -> Context:
    """Return the context that headers carry; an empty one if they carry none or a malformed one."""
    return _PROPAGATOR.extract(carrier, context=Context())


def traceparent(context: Context | None = None) -> str:
    """Return the current (or a given) span as `traceparent`; empty if there is none."""
    return inject(context=context).get("traceparent", "")


def extract_traceparent(value: str) -> Context:
    """Return the context that a `traceparent` names; an empty one if it is empty or malformed."""
    return extract({"traceparent": value})


def remote_context(*, trace_id: int, span_id: int, sampled: bool = True) -> Context:
    """Return a context whose current span is one of another time or process, to be the parent of new ones."""
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if sampled else trace.TraceFlags.DEFAULT)
    span = trace.SpanContext(trace_id=trace_id, span_id=span_id, is_remote=True, trace_flags=flags)
    return trace.set_span_in_context(trace.NonRecordingSpan(span), Context())
