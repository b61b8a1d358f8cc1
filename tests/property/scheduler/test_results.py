"""Reports are read the same on the short way, which most results take, and on the long one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pixloom.graph.plan import StageKind
from pixloom.v1 import executor_pb2 as pb
from pixloom.v1 import item_pb2, job_pb2
from pixloom_scheduler.core.model import ShardTable
from pixloom_scheduler.core.states import Outcome
from pixloom_scheduler.costs import CostModel
from pixloom_scheduler.gathered import GatheredOutputs
from pixloom_scheduler.rpc import results
from tests.support.live_jobs import live_job

OUTCOMES = list(job_pb2.AttemptOutcome.values())
REASONS = st.dictionaries(st.sampled_from(["BLURRED", "NOT_AN_IMAGE"]), st.integers(1, 3), max_size=2)


def stage_of(nodes: int) -> Any:
    shards = ShardTable()
    shards.extend(0, 0, 40, 10)
    return SimpleNamespace(plan=SimpleNamespace(nodes=tuple(range(nodes)), kind=StageKind.MAPPED), shards=shards)


@st.composite
def ordinary(draw: st.DrawFn) -> pb.TaskResult:
    """A result of a task all of whose items passed, or of a run that gave a value."""
    ok = draw(st.integers(1, 5))
    result = pb.TaskResult(shard=draw(st.integers(0, 5)), attempt=draw(st.integers(0, 3)), outcome=OUTCOMES[1])
    for time in (result.start_time, result.end_time):
        time.seconds, time.nanos = draw(st.integers(1, 2**33)), draw(st.integers(0, 999_999_999))
    for node in range(draw(st.integers(1, 3))):
        result.counts.add(node=f"n{node}", ok=ok).elapsed.nanos = draw(st.integers(0, 1000))
    if draw(st.booleans()):
        result.value_json = draw(st.sampled_from([b"null", b"1", b'{"a": [2]}']))
    else:
        result.output.count = ok
        result.output.inline = draw(st.binary(max_size=20))
    return result


@st.composite
def altered(draw: st.DrawFn) -> pb.TaskResult:
    """An ordinary result with anything else about it."""
    result = draw(ordinary())
    left_out: Any = draw(
        st.sets(st.sampled_from(["outcome", "start_time", "end_time", "counts", "output"]), max_size=2)
    )
    for name in left_out:
        result.ClearField(name)
    if draw(st.booleans()):
        result.outcome = draw(st.sampled_from(OUTCOMES))
    for counts in result.counts:
        if draw(st.booleans()):
            counts.ok = draw(st.integers(0, 5))
            counts.filtered.update(draw(REASONS))
            counts.rejected.update(draw(REASONS))
    if draw(st.booleans()):
        result.rejects.count = draw(st.integers(0, 3))
    if draw(st.booleans()):
        result.kept.add(node="n0").items.count = 1
    if draw(st.booleans()):
        result.value_json = draw(st.sampled_from([b"", b"1", b"{", b"null"]))
    if draw(st.booleans()):
        result.warnings.append("odd\0")
    result.retryable = draw(st.booleans())
    result.end = draw(st.booleans())
    result.retry_indexes.extend(draw(st.lists(st.integers(0, 12), max_size=2)))
    result.reason = draw(st.sampled_from(["", "OP_ERROR"]))
    result.next_cursor = draw(st.sampled_from(["", "7"]))
    return result


@given(ordinary())
def test_an_ordinary_result_takes_the_short_way_and_is_read_as_on_the_long_one(message: pb.TaskResult) -> None:
    stage = stage_of(len(message.counts))
    assert results._read_ordinary(stage, message) == results._read_any(stage, message)


@given(altered(), st.integers(1, 3))
def test_no_result_is_read_otherwise_on_the_short_way(message: pb.TaskResult, nodes: int) -> None:
    stage = stage_of(nodes)
    assert results.read_result(stage, message) == results._read_any(stage, message)


def test_a_result_that_is_too_large_for_a_journal_row_is_refused_on_either_way() -> None:
    message = pb.TaskResult(shard=1, attempt=1, outcome=OUTCOMES[1])
    message.start_time.seconds = message.end_time.seconds = 1
    message.counts.add(node="n0", ok=1)
    message.output.count = 1
    message.output.inline = bytes(results.MAX_PAYLOAD_BYTES)
    assert results.read_result(stage_of(1), message).reason == "MALFORMED_REPORT"


# -- Columns ----------------------------------------------------------------------------------------------------------

LATEST_US = int(results.LATEST_S * 1e6)
COLUMNS = ("shards", "attempts", "started_us", "ended_us", "items", "outputs")
Row = tuple[int, int, int, int, int]
"""Shard, attempt, start and end in microseconds, items."""

rows = st.lists(
    st.tuples(
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
        st.integers(0, LATEST_US),
        st.integers(0, LATEST_US),
        st.integers(1, 5),
    ),
    max_size=6,
)


def inline(items: int) -> bytes:
    return item_pb2.ItemBatch(items=[item_pb2.Item(key=f"k{number}") for number in range(items)]).SerializeToString()


def as_columns(chosen: list[Row], nodes: int = 2) -> pb.OrdinaryResults:
    columns = pb.OrdinaryResults(elapsed_ns=[1_000] * nodes)
    for shard, attempt, start, end, items in chosen:
        columns.shards.append(shard)
        columns.attempts.append(attempt)
        columns.started_us.append(start)
        columns.ended_us.append(end)
        columns.items.append(items)
        columns.outputs.append(inline(items))
    return columns


def as_messages(chosen: list[Row], nodes: int = 2) -> list[pb.TaskResult]:
    messages = []
    for shard, attempt, start, end, items in chosen:
        message = pb.TaskResult(shard=shard, attempt=attempt, outcome=OUTCOMES[1])
        message.start_time.FromMicroseconds(start)
        message.end_time.FromMicroseconds(end)
        message.output.count, message.output.inline = items, inline(items)
        for node in range(nodes):
            message.counts.add(node=f"n{node}", ok=items)
        messages.append(message)
    return messages


@given(rows, rows, st.integers(1, 3))
def test_columns_are_read_as_the_results_that_they_stand_for(one: list[Row], other: list[Row], nodes: int) -> None:
    stage = stage_of(nodes)
    mixed = pb.Report(results=as_messages(one, nodes), ordinary=as_columns(other, nodes))
    plain = pb.Report(results=as_messages(one + other, nodes))
    assert results.read_report(stage, mixed) == results.read_report(stage, plain)
    assert list(results.outputs_of(mixed)) == list(results.outputs_of(plain))


@given(rows, st.data())
def test_a_row_that_cannot_be_read_is_refused_and_nothing_else(chosen: list[Row], data: st.DataObject) -> None:
    columns = as_columns(chosen)
    spoilt = set()
    for row in range(len(chosen)):
        match data.draw(st.sampled_from(["", "", "items", "many", "outputs", "nothing", "start", "end"])):
            case "":
                continue
            case "items":
                columns.items[row] = 0
            case "many":
                columns.items[row] = data.draw(st.integers(len(columns.outputs[row]) // 2 + 1, 2**32 - 1))
            case "outputs":
                columns.outputs[row] = bytes(results.MAX_OUTPUT_BYTES + 1)
            case "nothing":
                columns.outputs[row] = b""
            case "start":
                columns.started_us[row] = data.draw(st.integers(LATEST_US + 1_000_000, 2**64 - 1))
            case "end":
                columns.ended_us[row] = data.draw(st.integers(LATEST_US + 1_000_000, 2**64 - 1))
        spoilt.add(row)
    expected = results.read_report(stage_of(2), pb.Report(results=as_messages(chosen)))
    read = results.read_report(stage_of(2), pb.Report(ordinary=columns))
    assert [(result.shard, result.attempt) for result in read] == [(row[0], row[1]) for row in chosen]
    for row, result in enumerate(read):
        if row in spoilt:
            assert (result.outcome, result.reason, result.payload) == (Outcome.FAILED, "MALFORMED_REPORT", None)
            assert (result.items_out, result.tallies) == (0, ())
        else:
            assert result == expected[row]


@given(rows.filter(bool), st.sampled_from([*COLUMNS, "elapsed_ns"]), st.sampled_from(["longer", "shorter"]))
def test_columns_that_differ_in_length_are_refused_and_break_nothing(chosen: list[Row], name: str, how: str) -> None:
    columns = as_columns(chosen)
    column = getattr(columns, name)
    if how == "longer":
        column.append(column[0])
    else:
        del column[-1]
    report = pb.Report(stage=1, generation=1, ordinary=columns)
    for result in results.read_report(stage_of(2), report):
        assert (result.outcome, result.reason) == (Outcome.FAILED, "MALFORMED_REPORT")
    # What is done with a report once it was taken must not raise, whatever is in it: others wait behind it.
    run = live_job(1, [(StageKind.SOURCE, []), (StageKind.MAPPED, [0])]).run
    CostModel({}).learn(run, report)
    if results.is_unambiguous(report):
        list(results.outputs_of(report))
        GatheredOutputs().add(run, report, ended=len(chosen), given=frozenset())
    else:
        assert name not in ("attempts", "started_us", "ended_us", "elapsed_ns") or len(
            {row[0] for row in chosen}
        ) < len(chosen)


@given(rows.filter(bool), st.sampled_from([StageKind.SOURCE, StageKind.WHOLE]))
def test_only_mapped_stages_have_ordinary_results(chosen: list[Row], kind: StageKind) -> None:
    stage = stage_of(2)
    stage.plan.kind = kind
    read = results.read_report(stage, pb.Report(ordinary=as_columns(chosen)))
    assert [result.reason for result in read] == ["MALFORMED_REPORT"] * len(chosen)


def test_a_report_that_names_a_shard_twice_is_not_what_is_remembered() -> None:
    chosen = [(shard, 1, 1, 2, 1) for shard in range(3)]
    report = pb.Report(results=as_messages(chosen[:2]), ordinary=as_columns(chosen[2:]))
    assert results.is_unambiguous(report)
    report.results.extend(as_messages(chosen[2:]))
    assert not results.is_unambiguous(report)
    assert not results.is_unambiguous(pb.Report(ordinary=as_columns([chosen[0], chosen[0]])))
    assert not results.is_unambiguous(pb.Report(results=as_messages([chosen[0], chosen[0]])))
