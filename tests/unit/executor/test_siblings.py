"""Siblings in an executor: one call stands for the nodes of all of them, one after another."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pixloom.batches import keep_tasks, node_of, task_count, task_keys
from pixloom.sdk.op import Context, Reject, definition_of, op
from pixloom.telemetry import names
from pixloom.v1 import executor_pb2 as pb
from pixloom.v1 import job_pb2, op_pb2
from pixloom_executor import spans
from pixloom_executor.children.batch_run import BatchRun
from pixloom_executor.leases import HeldLease, LeaseBook
from pixloom_executor.marker import Position
from pixloom_executor.ordinary import tasks_of
from tests.unit.executor.tasks import call

if TYPE_CHECKING:
    from tests.unit.executor.tasks import Bench

OK, FAILED = job_pb2.ATTEMPT_OUTCOME_OK, job_pb2.ATTEMPT_OUTCOME_FAILED
TRACE = "0af7651916cd43dd8448eb211c80319c"


@op("test.tell")
def tell(*, number: int, ctx: Context) -> dict[str, Any]:
    if number == 13:
        raise Reject("UNLUCKY", "no such luck")
    if number == 7:
        ctx.warnings.append("seven")
    return {"node": ctx.node, "number": number, "attempt": ctx.attempt}


def siblings_of(*params: Any, common: Any = None, op_name: str = "test.tell") -> pb.LeaseBatch:
    """Return a batch of siblings from stage 4 on; params that are None are those of the call."""
    made = call(op_name, "n4")
    made.params_json = orjson.dumps(common)
    batch = pb.LeaseBatch(job_id="job", generation=1, stage=4, kind=op_pb2.OP_KIND_VALUE, calls=[made])
    for stage, each in enumerate(params, 4):
        batch.siblings.add(
            stage=stage,
            node=f"n{stage}",
            params_json=b"" if each is None else orjson.dumps(each),
            traceparent=f"00-{TRACE}-{stage:016x}-01",
        )
    return batch


def run_all(bench: Bench, batch: pb.LeaseBatch) -> list[pb.TaskResult]:
    return [bench.runner.run_task(batch, task) for task in tasks_of(batch)]


@pytest.fixture
def bench(bench: Bench) -> Bench:
    bench.registry.add(definition_of(tell))
    return bench


def test_each_runs_with_its_own_params_under_its_own_node(bench: Bench) -> None:
    batch = siblings_of(None, {"number": 2}, {"number": 2}, None, {"number": 3}, common={"number": 1})
    results = run_all(bench, batch)
    assert [(result.shard, result.attempt, result.outcome) for result in results] == [
        (stage, 1, OK) for stage in range(4, 9)
    ]
    assert [orjson.loads(result.value_json) for result in results] == [
        {"node": f"n{stage}", "number": number, "attempt": 1}
        for stage, number in zip(range(4, 9), (1, 2, 2, 1, 3), strict=True)
    ]
    assert [[counts.node for counts in result.counts] for result in results] == [[f"n{stage}"] for stage in range(4, 9)]


def test_one_that_is_refused_fails_by_its_own_name_and_the_others_go_on(bench: Bench) -> None:
    batch = siblings_of({"number": 1}, {"number": 13}, {"number": "x"}, {"number": 4}, common={})
    good, unlucky, invalid, last = run_all(bench, batch)
    assert (good.outcome, last.outcome) == (OK, OK)
    assert (unlucky.outcome, unlucky.reason, unlucky.detail) == (FAILED, "UNLUCKY", "node n5: no such luck")
    assert (invalid.shard, invalid.outcome, invalid.reason) == (6, FAILED, "INVALID_PARAMS")
    assert not invalid.retryable
    assert orjson.loads(last.value_json)["node"] == "n7"


def test_params_that_are_refused_are_refused_of_each_that_has_them(bench: Bench) -> None:
    first, second, third = run_all(bench, siblings_of(None, None, {"number": 2}, common={"number": "x"}))
    assert (first.reason, second.reason) == ("INVALID_PARAMS", "INVALID_PARAMS")
    assert (first.outcome, second.outcome, third.outcome) == (FAILED, FAILED, OK)


def test_what_one_warns_of_is_not_said_of_the_next(bench: Bench) -> None:
    results = run_all(bench, siblings_of(None, None, {"number": 2}, common={"number": 7}))
    assert [list(result.warnings) for result in results] == [["seven"], ["seven"], []]


def test_an_ordinary_batch_before_or_behind_them_runs_as_itself(bench: Bench) -> None:
    alone = pb.LeaseBatch(kind=op_pb2.OP_KIND_VALUE, calls=[call("test.tell", "alone", number=9)])
    alone.tasks.add(shard=0, attempt=2)
    for batch, nodes in (
        (alone, ["alone"]),
        (siblings_of(None, None, common={"number": 9}), ["n4", "n5"]),
        (alone, ["alone"]),
    ):
        assert [orjson.loads(result.value_json)["node"] for result in run_all(bench, batch)] == nodes


def test_a_stage_stands_in_for_the_shard_of_a_first_attempt() -> None:
    batch = siblings_of(None, None, None, common={})
    assert task_count(batch) == 3
    assert task_keys(batch) == ((4, 1), (5, 1), (6, 1))
    assert [(task.shard, task.attempt) for task in tasks_of(batch)] == [(4, 1), (5, 1), (6, 1)]
    keep_tasks(batch, {6: 1, 4: 1, 0: 1})
    assert task_keys(batch) == ((4, 1), (6, 1))
    assert [node_of(batch, 6, 0), node_of(batch, 5, 0)] == ["n6", "n4"]


@pytest.mark.parametrize("in_op", [True, False])
async def test_who_loses_the_child_is_blamed_and_the_others_run_again(*, in_op: bool) -> None:
    delivered: list[pb.TaskResult] = []
    batch = siblings_of(None, None, None, None, common={})
    run = BatchRun(batch=batch, deliver=delivered.append, done=asyncio.get_running_loop().create_future())
    run.frame(1)
    run.take([pb.TaskResult(shard=4, attempt=1, outcome=OK)])
    position = Position(batch=1, task=2, in_op=in_op, item=None, call=0, deadline_ns=0, task_start_ns=0, done=0)
    run.blame(position, "CRASHED", "died")
    if not in_op:
        assert task_keys(run.frame(2).batch) == ((5, 1), (6, 1), (7, 1))
        run.blame(Position(2, 1, in_op, None, 0, 0, 0, 0), "CRASHED", "died")
    failed = delivered[-1]
    assert (failed.shard, failed.reason) == (6, "CRASHED")
    if in_op:
        assert failed.detail == "node n6: the process died"
    assert task_keys(run.frame(3).batch) == ((5, 1), (7, 1))
    assert [node_of(run.frame(4).batch, stage, 0) for stage in (5, 7)] == ["n5", "n7"]


def test_a_lease_of_siblings_is_announced_as_it_was_granted_with_those_that_are_left() -> None:
    batch = siblings_of(None, None, None, common={})
    granted = task_keys(batch)
    book = LeaseBook()
    lease = HeldLease(b"token", batch, granted, {4, 5, 6})
    book.hold(lease)
    report = book.report(lease, [pb.TaskResult(shard=5, attempt=1)])
    assert book.give_back(lease, [6]).shards == [6]
    (said,) = book.announced()
    assert (said.siblings, list(said.held), said.stage) == (True, [4, 5], 4)
    assert [(task.shard, task.attempt) for task in said.tasks] == [(4, 1), (5, 1), (6, 1)]
    book.acknowledge(report.report_id)
    assert list(book.announced()[0].held) == [4]
    assert not HeldLease(b"other", pb.LeaseBatch(), ((0, 1),), {0}).as_message().siblings


def test_the_spans_of_each_are_below_the_dispatch_of_its_own_node(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    batch = siblings_of(None, None, common={})
    batch.trace_tasks = True
    batch.trace_context["traceparent"] = f"00-{TRACE}-00000000000000ff-01"
    lease = HeldLease(b"token", batch, task_keys(batch), {4, 5})
    for stage in (4, 5):
        result = pb.TaskResult(shard=stage, attempt=1, outcome=OK)
        result.counts.add(node=f"n{stage}")
        spans.write_task_spans(batch, result, "x", sibling=lease.siblings.get(stage))
    tasks = [span for span in exporter.get_finished_spans() if span.name == names.SPAN_TASK]
    told = [
        (
            span.parent.span_id if span.parent else 0,
            span.attributes[names.ATTR_NODE_ID],
            span.attributes[names.ATTR_TASK_ID],
        )
        for span in tasks
        if span.attributes
    ]
    assert told == [(4, "n4", "job.1.4.0"), (5, "n5", "job.1.5.0")]
    ops = [span for span in exporter.get_finished_spans() if span.name == names.SPAN_OP]
    assert [span.attributes and span.attributes[names.ATTR_NODE_ID] for span in ops] == ["n4", "n5"]
