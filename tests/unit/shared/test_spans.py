from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from pixloom.errors import InvalidError
from pixloom.telemetry import names
from pixloom.telemetry.propagation import (
    extract,
    extract_traceparent,
    inject,
    remote_context,
    traceparent,
)
from pixloom.telemetry.setup import configure_tracing, exports_traces, shutdown_tracing
from pixloom.telemetry.spans import PinnedIdGenerator, emit_span, span_with_ids

TRACE = 0x0AF7651916CD43DD8448EB211C80319C
SPAN = 0xB7AD6B7169203331
PARENT = f"00-{TRACE:032x}-{SPAN:016x}-01"
SECOND = 1_000_000_000


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> trace.Tracer:
    provider = TracerProvider(id_generator=PinnedIdGenerator(), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("test")


def test_job_and_node_spans_are_written_at_their_end_with_ids_fixed_at_their_beginning(
    tracer: trace.Tracer, exporter: InMemorySpanExporter
) -> None:
    job = remote_context(trace_id=TRACE, span_id=1)
    task = tracer.start_span(names.SPAN_TASK, context=remote_context(trace_id=TRACE, span_id=2))
    task.end()
    emit_span(
        names.SPAN_NODE,
        context=job,
        trace_id=TRACE,
        span_id=2,
        start_time_ns=10 * SECOND,
        end_time_ns=20 * SECOND,
        attributes={names.ATTR_NODE_ID: "thumbs"},
        error="TOO_MANY_REJECTS",
        tracer=tracer,
    )
    emit_span(
        names.SPAN_JOB,
        context=extract_traceparent(PARENT),
        trace_id=TRACE,
        span_id=1,
        start_time_ns=9 * SECOND,
        end_time_ns=21 * SECOND,
        tracer=tracer,
    )
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert {span.context.trace_id for span in spans.values()} == {TRACE}
    parents = {name: span.parent.span_id for name, span in spans.items() if span.parent is not None}
    assert parents == {names.SPAN_TASK: 2, names.SPAN_NODE: 1, names.SPAN_JOB: SPAN}
    assert [spans[name].context.span_id for name in (names.SPAN_NODE, names.SPAN_JOB)] == [2, 1]
    node = spans[names.SPAN_NODE]
    assert (node.start_time, node.end_time) == (10 * SECOND, 20 * SECOND)
    assert dict(node.attributes or {}) == {"pixloom.node.id": "thumbs"}
    assert (node.status.status_code, node.status.description) == (trace.StatusCode.ERROR, "TOO_MANY_REJECTS")
    assert spans[names.SPAN_JOB].status.status_code is trace.StatusCode.UNSET


def test_span_without_parent_takes_the_trace_id_given(tracer: trace.Tracer, exporter: InMemorySpanExporter) -> None:
    with tracer.start_as_current_span("unrelated"):
        span_with_ids(names.SPAN_JOB, trace_id=TRACE, span_id=SPAN, tracer=tracer).end()
    job = exporter.get_finished_spans()[0]
    assert (job.context.trace_id, job.context.span_id, job.parent) == (TRACE, SPAN, None)


def test_ids_are_random_again_afterwards(tracer: trace.Tracer) -> None:
    span_with_ids(names.SPAN_JOB, trace_id=TRACE, span_id=SPAN, tracer=tracer).end()
    contexts = [tracer.start_span("other").get_span_context() for _ in range(3)]
    assert len({context.trace_id for context in contexts} | {TRACE}) == 4
    assert len({context.span_id for context in contexts} | {SPAN}) == 4


def test_context_travels_through_headers(tracer: trace.Tracer) -> None:
    with tracer.start_as_current_span("here") as span:
        headers = inject({"other": "kept"})
    assert headers == {"other": "kept", "traceparent": traceparent(trace.set_span_in_context(span))}
    there = trace.get_current_span(extract(headers)).get_span_context()
    assert (there.trace_id, there.span_id) == (span.get_span_context().trace_id, span.get_span_context().span_id)
    assert there.is_remote


def test_state_of_vendors_is_passed_on() -> None:
    context = extract({"traceparent": PARENT, "tracestate": "vendor=1"})
    assert inject(context=context) == {"traceparent": PARENT, "tracestate": "vendor=1"}


@pytest.mark.parametrize("value", ["", "nonsense", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", PARENT.upper() + "-x"])
def test_malformed_context_is_none(value: str) -> None:
    assert not trace.get_current_span(extract_traceparent(value)).get_span_context().is_valid


def test_no_span_is_no_header() -> None:
    assert (inject(), traceparent()) == ({}, "")


def test_sampling_decision_travels() -> None:
    assert traceparent(remote_context(trace_id=TRACE, span_id=SPAN, sampled=False)).endswith("-00")
    assert traceparent(remote_context(trace_id=TRACE, span_id=SPAN)) == PARENT


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "x", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "x", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_spans_are_exported_only_to_an_endpoint(environ: dict[str, str], *, expected: bool) -> None:
    assert exports_traces(environ) is expected


def test_without_an_endpoint_spans_have_valid_ids_but_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    provider = configure_tracing("pixloom-test", install=False)
    tracer = provider.get_tracer("t")
    assert provider.sampler is ALWAYS_OFF
    span = tracer.start_span("s")
    assert (span.get_span_context().is_valid, span.is_recording()) == (True, False)
    pinned = span_with_ids("job", trace_id=TRACE, span_id=SPAN, tracer=tracer).get_span_context()
    assert (pinned.trace_id, pinned.span_id) == (TRACE, SPAN)
    child = tracer.start_span("c", context=extract_traceparent(PARENT)).get_span_context()
    assert child.trace_id == TRACE
    assert shutdown_tracing(provider)
    shutdown_tracing(provider)


def test_other_protocols_than_grpc_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    with pytest.raises(InvalidError, match="OTEL_EXPORTER_OTLP_PROTOCOL"):
        configure_tracing("pixloom-test", install=False)
