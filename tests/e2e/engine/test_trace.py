"""One trace from a REST call to the report of the last task, as a collector receives it."""

from __future__ import annotations

import secrets
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.support.engine import Engine, node_of, running_engine
from tests.support.otlp_receiver import OtlpReceiver, ReceivedSpan, otlp_receiver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("engine-trace")]

GATEWAY, SCHEDULER, EXECUTOR = "pixloom-gateway", "pixloom-scheduler", "pixloom-executor"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def receiver() -> AsyncIterator[OtlpReceiver]:
    async with otlp_receiver() as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory, receiver: OtlpReceiver) -> AsyncIterator[Engine]:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "20"}
    async with running_engine(tmp_path_factory.mktemp("engine"), environment=environment) as made:
        yield made


class Call:
    """A call from somewhere else that is traced there already."""

    def __init__(self) -> None:
        self.trace_id = secrets.token_hex(16)
        self.span_id = secrets.token_hex(8)

    @property
    def headers(self) -> dict[str, str]:
        return {"traceparent": f"00-{self.trace_id}-{self.span_id}-01"}


async def submit(engine: Engine, call: Call, count: int, step: dict[str, Any]) -> str:
    """Create a job by REST and return its id."""
    nodes = [
        {"id": "numbers", "op": "debug.range", "params": {"count": count}},
        {"id": "step", "inputs": {"items": "numbers"}, "shard_size": 1, **step},
        {"id": "also", "op": "debug.noop", "inputs": {"items": "step"}},
    ]
    answer = await engine.http.post(
        "/api/v1/jobs", json={"spec": {"name": "traced", "nodes": nodes}}, headers=call.headers
    )
    assert answer.status_code == 201, answer.text
    assert answer.headers["x-trace-id"] == call.trace_id
    assert answer.json()["trace_id"] == call.trace_id
    return str(answer.json()["id"])


def open_ends(spans: list[ReceivedSpan], call: Call) -> list[ReceivedSpan]:
    """Return spans whose parent is neither in the trace nor the caller's."""
    known = {span.id for span in spans} | {call.span_id}
    return [span for span in spans if span.parent_id not in known]


def named(spans: list[ReceivedSpan], name: str) -> list[ReceivedSpan]:
    return [span for span in spans if span.name == name]


async def test_a_call_with_a_traceparent_yields_one_trace_through_every_part(
    engine: Engine, receiver: OtlpReceiver
) -> None:
    call = Call()
    job_id = await submit(engine, call, 3, {"op": "debug.noop"})
    job = await engine.finish(job_id)
    assert (job.state, job.trace_id) == ("COMPLETED", call.trace_id)

    def complete(spans: list[ReceivedSpan]) -> bool:
        kinds = Counter(span.name for span in spans)
        return (
            kinds["pixloom.job"] == 1
            and kinds["pixloom.node"] == 3
            and kinds["pixloom.task"] == 1 + 3
            and kinds["pixloom.op"] == 1 + 3 * 2
            and bool(named(spans, "POST /api/v1/jobs"))
            and sum(int(span.attributes["pixloom.tasks"]) for span in named(spans, "pixloom.report")) == 1 + 3
            and not open_ends(spans, call)
        )

    spans = await receiver.wait_for(call.trace_id, complete)
    assert open_ends(spans, call) == []
    by_id = {span.id: span for span in spans}
    root, *more = [span for span in spans if span.parent_id == call.span_id]
    assert (root.service, root.name, root.kind, more) == (GATEWAY, "POST /api/v1/jobs", "server", [])
    assert Counter((span.service, span.name) for span in spans if span.name.startswith("pixloom.")) == {
        (GATEWAY, "pixloom.v1.JobService/CreateJob"): 1,
        (SCHEDULER, "pixloom.v1.JobService/CreateJob"): 1,
        (SCHEDULER, "pixloom.job"): 1,
        (SCHEDULER, "pixloom.node"): 3,
        (SCHEDULER, "pixloom.dispatch"): len(named(spans, "pixloom.dispatch")),
        (EXECUTOR, "pixloom.task"): 1 + 3,
        (EXECUTOR, "pixloom.op"): 1 + 3 * 2,
        (EXECUTOR, "pixloom.report"): len(named(spans, "pixloom.report")),
    }

    def path(span: ReceivedSpan) -> list[str]:
        """Return the names from a span up to the call."""
        names = [span.name]
        while span.parent_id in by_id:
            span = by_id[span.parent_id]
            names.append(span.name)
        return names

    create = "pixloom.v1.JobService/CreateJob"
    above_job = [create, create, "POST /api/v1/jobs"]
    for span in named(spans, "pixloom.op"):
        assert path(span) == [
            "pixloom.op",
            "pixloom.task",
            "pixloom.dispatch",
            "pixloom.node",
            "pixloom.job",
            *above_job,
        ]
    assert {tuple(path(span)) for span in named(spans, "pixloom.report")} == {
        ("pixloom.report", "pixloom.dispatch", "pixloom.node", "pixloom.job", *above_job)
    }
    assert {tuple(path(span)) for span in named(spans, "pixloom.node")} == {("pixloom.node", "pixloom.job", *above_job)}
    (job_span,) = named(spans, "pixloom.job")
    assert job_span.attributes["pixloom.job.id"] == job_id
    assert sorted(span.attributes["pixloom.node.id"] for span in named(spans, "pixloom.node")) == [
        "also",
        "numbers",
        "step",
    ]
    tasks = named(spans, "pixloom.task")
    assert len({span.attributes["pixloom.task.id"] for span in tasks}) == 4
    assert {span.attributes["pixloom.job.id"] for span in tasks} == {job_id}
    assert all(span.start_ns <= span.end_ns for span in spans)
    # The job's times are the database's, those of tasks the executor's.
    skew_ns = 1_000_000_000
    for span in tasks:
        assert job_span.start_ns - skew_ns <= span.start_ns <= span.end_ns <= job_span.end_ns + skew_ns
    # The logs name the trace as well.
    assert call.trace_id in engine.stack.log("scheduler").read_text()


async def test_the_trace_stays_one_when_the_scheduler_is_killed(engine: Engine, receiver: OtlpReceiver) -> None:
    call = Call()
    count = 100
    job_id = await submit(engine, call, count, {"op": "debug.sleep", "params": {"seconds": 0.02}})
    await engine.until(job_id, lambda snapshot: node_of(snapshot, "step").items.ok >= 10)
    await engine.stack.wait_replaced("scheduler", engine.stack.kill("scheduler"))
    job = await engine.finish(job_id)
    assert (job.state, job.trace_id) == ("COMPLETED", call.trace_id)
    await engine.require_each_once(job_id, "step", count)

    def complete(spans: list[ReceivedSpan]) -> bool:
        return (
            len(named(spans, "pixloom.job")) == 1
            and len(named(spans, "pixloom.node")) == 3
            and len({span.attributes["pixloom.task.id"] for span in named(spans, "pixloom.task")}) == 1 + count
        )

    spans = await receiver.wait_for(call.trace_id, complete)
    assert complete(spans)
    # What the killed scheduler had not yet exported is missing, and nothing else.
    dispatches = {span.parent_id for span in open_ends(spans, call)}
    lost = [span for span in spans if span.parent_id in dispatches]
    assert {span.name for span in lost} <= {"pixloom.task", "pixloom.report"}
    assert len(dispatches) < 20
    (job_span,) = named(spans, "pixloom.job")
    for node in named(spans, "pixloom.node"):
        assert node.parent_id == job_span.id
    nodes = {span.id for span in named(spans, "pixloom.node")}
    assert {span.parent_id for span in named(spans, "pixloom.dispatch")} <= nodes


async def test_a_call_without_a_traceparent_begins_a_trace(engine: Engine, receiver: OtlpReceiver) -> None:
    answer = await engine.http.post(
        "/api/v1/jobs",
        json={"spec": {"name": "w", "nodes": [{"id": "numbers", "op": "debug.range", "params": {"count": 1}}]}},
    )
    trace_id = answer.headers["x-trace-id"]
    job = await engine.finish(answer.json()["id"])
    assert job.trace_id == trace_id
    everybody = {GATEWAY, SCHEDULER, EXECUTOR}

    def complete(spans: list[ReceivedSpan]) -> bool:
        # Each sends its own when it comes to it, the gateway's first ones perhaps last.
        ends = named(spans, "pixloom.job") and named(spans, "pixloom.report")
        return bool(ends) and {span.service for span in spans} == everybody

    spans = await receiver.wait_for(trace_id, complete)
    assert {span.service for span in spans} == everybody
