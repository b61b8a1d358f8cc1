"""Spans that live longer than a process: their ids are fixed when they begin, they are written when they end.

A job may run for a day and see several schedulers. Its span and those of its nodes are therefore nothing but ids in
the journal until the end; tasks name them as parents meanwhile, and `emit_span` writes them with the real times.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator

if TYPE_CHECKING:
    from opentelemetry.util.types import Attributes

__all__ = ["PinnedIdGenerator", "emit_span", "span_with_ids"]


@dataclass(frozen=True, slots=True)
class _Pin:
    """Ids of the next span started in this context."""

    trace_id: int
    span_id: int


_PINNED: Final[ContextVar[_Pin | None]] = ContextVar("pixloom_pinned_ids", default=None)


class PinnedIdGenerator(IdGenerator):
    """Random ids, except for a span that `span_with_ids` starts."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()

    def generate_span_id(self) -> int:
        """Return the pinned span id or a random one."""
        pin = _PINNED.get()
        return pin.span_id if pin is not None else self._random.generate_span_id()

    def generate_trace_id(self) -> int:
        """Return the pinned trace id or a random one."""
        pin = _PINNED.get()
        return pin.trace_id if pin is not None else self._random.generate_trace_id()


def span_with_ids(
    name: str,
    *,
    trace_id: int,
    span_id: int,
    context: Context | None = None,
    start_time_ns: int | None = None,
    attributes: Attributes = None,
    kind: trace.SpanKind = trace.SpanKind.INTERNAL,
    tracer: trace.Tracer | None = None,
) -> trace.Span:
    """Start a span whose ids were fixed before; the caller ends it.

    Args:
        name: Name from `pixloom.telemetry.names`.
        trace_id: Its trace; ignored if the parent has one.
        span_id: Its id.
        context: Where its parent is the current span; None means it has none.
        start_time_ns: When it began, nanoseconds since the epoch; now if not given.
        attributes: Its attributes.
        kind: Its kind.
        tracer: Who makes it; the process's own if not given. Its provider must use `PinnedIdGenerator`.
    """
    made_by = tracer if tracer is not None else trace.get_tracer("pixloom")
    token = _PINNED.set(_Pin(trace_id, span_id))
    try:
        return made_by.start_span(
            name,
            context=context if context is not None else Context(),
            kind=kind,
            attributes=attributes,
            start_time=start_time_ns,
        )
    finally:
        _PINNED.reset(token)


def emit_span(
    name: str,
    *,
    context: Context | None,
    trace_id: int,
    span_id: int,
    start_time_ns: int,
    end_time_ns: int,
    attributes: Attributes = None,
    error: str | None = None,
    tracer: trace.Tracer | None = None,
) -> None:
    """Write a span that has ended.

    Args:
        name: Name from `pixloom.telemetry.names`.
        context: Where its parent is the current span; None means it has none.
        trace_id: Its trace; ignored if the parent has one.
        span_id: Its id.
        start_time_ns: When it began, nanoseconds since the epoch.
        end_time_ns: When it ended.
        attributes: Its attributes.
        error: Why it failed; None if it did not.
        tracer: Who makes it; the process's own if not given.
    """
    span = span_with_ids(
        name,
        trace_id=trace_id,
        span_id=span_id,
        context=context,
        start_time_ns=start_time_ns,
        attributes=attributes,
        tracer=tracer,
    )
    if error is not None:
        span.set_status(trace.Status(trace.StatusCode.ERROR, error))
    span.end(end_time_ns)
