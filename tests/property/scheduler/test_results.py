"""Reports are read the same on the short way, which most results take, and on the long one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pixloom.graph.plan import StageKind
from pixloom.v1 import executor_pb2 as pb
from pixloom.v1 import job_pb2
from pixloom_scheduler.core.model import ShardTable
from pixloom_scheduler.rpc import results

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
