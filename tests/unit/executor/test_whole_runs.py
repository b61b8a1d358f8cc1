from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from pixloom.errors import UnavailableError
from pixloom.sdk.op import Context, Dropped, File, Item, Items, Page, Reject, Retry, definition_of, op, source
from pixloom.v1 import item_pb2, job_pb2, op_pb2
from tests.unit.executor.tasks import call, item, sliced

if TYPE_CHECKING:
    from tests.unit.executor.tasks import Bench

OK, FAILED = job_pb2.ATTEMPT_OUTCOME_OK, job_pb2.ATTEMPT_OUTCOME_FAILED
COLLECTION, VALUE, SOURCE = op_pb2.OP_KIND_COLLECTION, op_pb2.OP_KIND_VALUE, op_pb2.OP_KIND_SOURCE


def add(bench: Bench, function: Any) -> None:
    bench.registry.add(definition_of(function))


def test_a_source_gives_pages_until_its_end(bench: Bench) -> None:
    cursor, counts = "", []
    items: list[item_pb2.Item] = []
    while True:
        page = bench.run([call("debug.range", count=5_500)], kind=SOURCE, cursor=cursor, first_ordinal=len(items))
        assert page.outcome == OK
        counts.append(page.output.count)
        items += bench.items(page.output)
        cursor = page.next_cursor
        if page.end:
            break
    assert (counts, cursor) == ([1_000, 1_000, 2_000, 1_500], "")
    assert [item.key for item in items] == [str(number) for number in range(5_500)]
    assert [list(item.ordinal) for item in items] == [[number] for number in range(5_500)]


@pytest.mark.parametrize(("cursor", "following"), [("", ""), ("7", "7"), ("7", "")])
def test_a_source_that_gets_nowhere_fails(bench: Bench, cursor: str, following: str) -> None:
    @source("source.stuck")
    def stuck(*, following: str, cursor: str | None = None) -> Page:
        return Page([Item(key=f"behind {cursor}")], next_cursor=following)

    add(bench, stuck)
    result = bench.run([call("source.stuck", following=following)], kind=SOURCE, cursor=cursor)
    assert (result.outcome, result.retryable) == (FAILED, False)
    assert "the last page has None there" in result.detail


def test_an_empty_source_ends_at_once(bench: Bench) -> None:
    result = bench.run([call("debug.range", count=0)], kind=SOURCE)
    assert (result.outcome, result.output.count, result.end) == (OK, 0, True)


def test_an_item_op_without_input_gives_a_value(bench: Bench) -> None:
    result = bench.run([call("debug.noop")])
    assert (result.outcome, result.value_json, result.counts[0].ok) == (OK, b"null", 1)


def test_an_item_op_that_needs_items_cannot_run_without(bench: Bench) -> None:
    result = bench.run([call("flow.filter", condition="item.width > 1")])
    assert (result.outcome, result.retryable) == (FAILED, False)
    assert "needs items" in result.detail


def test_a_collection_op_gives_items_and_says_why_others_are_dropped(bench: Bench) -> None:
    @op("agg.pick")
    def pick(items: list[Item]) -> Items:
        return Items(
            kept=[entry for entry in items if entry.ordinal[0] % 2],
            filtered=[Dropped(items[0], "EVEN")],
            rejected=[Dropped(items[2], "BROKEN", "no good")],
        )

    add(bench, pick)
    result = bench.run([call("agg.pick", "p")], *map(item, range(5)), kind=COLLECTION)
    assert (result.outcome, result.counts[0].ok) == (OK, 2)
    assert (dict(result.counts[0].filtered), dict(result.counts[0].rejected)) == ({"EVEN": 1}, {"BROKEN": 1})
    assert [list(entry.ordinal) for entry in bench.items(result.output)] == [[1], [3]]
    assert [(entry.node, entry.reason) for entry in bench.items(result.rejects)] == [("p", "EVEN"), ("p", "BROKEN")]


def test_ports_keep_apart(bench: Bench) -> None:
    @op("agg.count_both")
    def count_both(left: list[Item], right: list[Item]) -> dict[str, int]:
        return {"left": len(left), "right": len(right)}

    add(bench, count_both)
    inputs = [sliced(bench.manifest(item(0), item(1)), "right"), sliced(bench.manifest(item(2)), "left")]
    result = bench.run([call("agg.count_both")], inputs=inputs, kind=COLLECTION)
    assert orjson.loads(result.value_json) == {"left": 1, "right": 2}


def test_the_only_port_is_meant_by_either_name(bench: Bench) -> None:
    @op("agg.count")
    def count(items: list[Item]) -> int:
        return len(items)

    add(bench, count)
    result = bench.run([call("agg.count")], inputs=[sliced(bench.manifest(item(0)), "images")], kind=COLLECTION)
    assert result.value_json == b"1"


def test_a_file_becomes_an_artifact_with_facts(bench: Bench) -> None:
    @op("agg.write")
    def write(items: list[Item], *, ctx: Context) -> File:
        path = ctx.scratch_dir / "out.txt"
        path.write_text("hello")
        return File(path, "text/plain", {"lines": len(items)})

    add(bench, write)
    result = bench.run([call("agg.write")], item(0), kind=COLLECTION)
    assert bench.store.get(result.artifact.sha256) == b"hello"
    assert (result.artifact.media_type, orjson.loads(result.value_json)) == ("text/plain", {"lines": 1})
    assert bench.runner.take_digests() == {result.artifact.sha256}


def test_a_large_value_is_an_artifact(bench: Bench) -> None:
    @op("value.large")
    def large(*, size: int) -> str:
        return "x" * size

    add(bench, large)
    small = bench.run([call("value.large", size=65_534)], kind=VALUE)
    assert (len(small.value_json), small.HasField("artifact")) == (65_536, False)
    result = bench.run([call("value.large", size=65_535)], kind=VALUE)
    assert (result.value_json, result.artifact.media_type) == (b"", "application/json")
    assert len(bench.store.get(result.artifact.sha256)) == 65_537


def test_a_large_value_reaches_the_next_op_whole(bench: Bench) -> None:
    @op("value.large")
    def large(*, size: int) -> str:
        return "x" * size

    @op("value.length")
    def length(value: Any) -> int:
        return len(value)

    add(bench, large)
    add(bench, length)
    artifact = bench.run([call("value.large", size=100_000)], kind=VALUE).artifact
    # As the scheduler hands on what has an artifact; facts are there if it is a file.
    sent = {"sha256": artifact.sha256, "size_bytes": artifact.size_bytes, "media_type": artifact.media_type}
    for value, expected in [({"$artifact": sent}, b"100000"), ({"$artifact": sent, "facts": {}}, b"2")]:
        inputs = [item_pb2.InputSlice(port="value", value_json=orjson.dumps(value))]
        assert bench.run([call("value.length")], inputs=inputs, kind=VALUE).value_json == expected


def test_value_ops_take_their_inputs_from_the_params_and_follow_one_another(bench: Bench) -> None:
    @op("value.scale")
    def scale(value: float, *, by: float) -> float:
        return value * by

    add(bench, scale)
    calls = [call("value.scale", "a", value=3, by=2), call("value.scale", "b", by=10)]
    result = bench.run(calls, kind=VALUE)
    assert (result.outcome, orjson.loads(result.value_json)) == (OK, 60.0)


@pytest.mark.parametrize(
    ("error", "reason", "retryable"),
    [
        (Reject("BAD", "no"), "BAD", False),
        (Retry("BUSY", "later", 3), "BUSY", True),
        (ValueError("odd"), "OP_ERROR", False),
        (OSError(errno.ESTALE, "the network drive is away"), "READ_ERROR", True),
        (FileNotFoundError("it"), "READ_ERROR", False),
        (UnavailableError("store"), "UNAVAILABLE", True),
    ],
)
def test_an_error_of_a_whole_run_fails_the_task(bench: Bench, error: Any, reason: Any, retryable: Any) -> None:
    @op("agg.break")
    def breaks(items: list[Item]) -> int:
        raise error

    add(bench, breaks)
    result = bench.run([call("agg.break", "n")], item(0), kind=COLLECTION)
    assert (result.outcome, result.reason, result.retryable) == (FAILED, reason, retryable)


def test_no_input_is_an_empty_collection(bench: Bench) -> None:
    @op("agg.count")
    def count(items: list[Item]) -> int:
        return len(items)

    add(bench, count)
    result = bench.run([call("agg.count")], inputs=[sliced(item_pb2.Manifest())], kind=COLLECTION)
    assert result.value_json == b"0"
    assert bench.run([call("agg.count")], kind=COLLECTION).value_json == b"0"
