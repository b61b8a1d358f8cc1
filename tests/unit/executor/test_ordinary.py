"""Tasks that come in columns and results that go in columns are those of the messages they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pixloom.sdk.op import Context, Filtered, Item, Reject, Retry, definition_of, op
from pixloom.v1 import executor_pb2 as pb
from pixloom.v1 import item_pb2, job_pb2, op_pb2
from pixloom_executor.item_chain import Verdict
from pixloom_executor.ordinary import OrdinaryColumns, OrdinaryTask, rows_of, tasks_of, without_columns
from tests.unit.executor.tasks import batch_of, call, inline, item, sliced

if TYPE_CHECKING:
    from tests.unit.executor.tasks import Bench

OK, FAILED = job_pb2.ATTEMPT_OUTCOME_OK, job_pb2.ATTEMPT_OUTCOME_FAILED


@op("test.decide")
def decide(item: Item) -> None:
    match item.ordinal[-1] % 5:
        case 1:
            raise Filtered("ODD", "not wanted")
        case 2:
            raise Reject("BAD", "not usable")
        case 3:
            raise Retry("BUSY", "come back")


@op("test.split")
def split(item: Item) -> list[Item]:
    return [item.with_attributes({"part": part}) for part in range(item.ordinal[-1])]


@op("test.warn")
def warn(item: Item, *, ctx: Context) -> None:
    ctx.warnings.append(f"saw {item.key}")


@op("test.where")
def where(item: Item, *, ctx: Context) -> dict[str, Any]:
    return {"seen": [list(item.ordinal), ctx.attempt, ctx.last_attempt, ctx.index]}


@op("test.fat")
def fat(item: Item) -> dict[str, Any]:
    return {"text": f"{item.key} " * 700}


@pytest.fixture
def bench(bench: Bench) -> Bench:
    for function in (decide, split, warn, where, fat):
        bench.registry.add(definition_of(function))
    return bench


def columns_of(*rows: tuple[int, int, int, int, int], sources: list[item_pb2.InputSlice]) -> pb.OrdinaryTasks:
    """Return tasks by shard, attempt, place, offset and count."""
    shards, attempts, places, offsets, counts = zip(*rows, strict=True)
    return pb.OrdinaryTasks(
        shards=shards, attempts=attempts, places=places, offsets=offsets, counts=counts, sources=sources
    )


def taken(columns: OrdinaryColumns) -> pb.OrdinaryResults:
    return pb.OrdinaryResults.FromString(columns.take())


def timeless(bench: Bench, manifest: item_pb2.Manifest) -> list[item_pb2.Item]:
    """Return items without the time that they took."""
    items = bench.items(manifest)
    for each in items:
        each.ClearField("duration_ms")
    return items


# -- Tasks ------------------------------------------------------------------------------------------------------------


def test_a_batch_of_messages_has_these_as_its_tasks() -> None:
    batch = batch_of([call("debug.noop")], [pb.Task(shard=4, attempt=2), pb.Task(shard=1, attempt=1)])
    assert list(tasks_of(batch)) == list(batch.tasks)


def test_tasks_in_columns_come_in_their_order_and_share_what_they_read() -> None:
    sources = [sliced(inline(item(0), item(1))), sliced(inline(item(2)), port="b")]
    batch = batch_of([call("debug.noop")], [])
    batch.ordinary.CopyFrom(columns_of((7, 1, 1, 0, 1), (3, 2, 0, 1, 1), (4, 1, 0, 0, 1), sources=sources))
    tasks = tasks_of(batch)
    assert tasks == [
        OrdinaryTask(7, 1, sources[1], 0, 1),
        OrdinaryTask(3, 2, sources[0], 1, 1),
        OrdinaryTask(4, 1, sources[0], 0, 1),
    ]
    first, second = tasks[1], tasks[2]
    assert isinstance(first, OrdinaryTask)
    assert isinstance(second, OrdinaryTask)
    assert first.source is second.source


@pytest.mark.parametrize("size", [5, 300])
@pytest.mark.parametrize("prefix", [[], [4]])
def test_a_task_in_a_column_reads_the_items_of_the_slice_it_stands_for(
    bench: Bench, size: int, prefix: list[int]
) -> None:
    manifest = bench.manifest(*map(item, range(size)))
    assert manifest.WhichOneof("content") == ("inline" if size == 5 else "artifact")
    source = item_pb2.InputSlice(manifest=manifest, ordinal_prefix=prefix)
    batch = batch_of([call("test.where")], [])
    runs = [(0, size), (1, 3), (size - 2, 2), (2, 1)]
    batch.ordinary.CopyFrom(columns_of(*((shard, 1, 0, *run) for shard, run in enumerate(runs)), sources=[source]))
    for task, (offset, count) in zip(tasks_of(batch), runs, strict=True):
        part = item_pb2.InputSlice(manifest=manifest, offset=offset, count=count, ordinal_prefix=prefix)
        expected = bench.run([call("test.where")], inputs=[part])
        result = bench.runner.run_task(batch, task)
        assert result.outcome == OK
        assert timeless(bench, result.output) == timeless(bench, expected.output)
        assert [list(entry.ordinal) for entry in bench.items(result.output)] == [
            [*prefix, number] for number in range(offset, offset + count)
        ]


def test_a_run_outside_of_its_manifest_fails_its_task_alone(bench: Bench) -> None:
    batch = batch_of([call("debug.noop")], [])
    source = sliced(inline(item(0), item(1)))
    batch.ordinary.CopyFrom(columns_of((0, 1, 0, 1, 2), (1, 1, 0, 1, 1), sources=[source]))
    results = [bench.runner.run_task(batch, task) for task in tasks_of(batch)]
    assert [(result.outcome, result.output.count) for result in results] == [(FAILED, 0), (OK, 1)]


def test_what_could_not_be_read_is_not_taken_for_what_was_read_before(bench: Bench) -> None:
    gone = item_pb2.InputSlice(
        manifest=item_pb2.Manifest(count=2, artifact=item_pb2.ArtifactRef(sha256="0" * 64, size_bytes=1))
    )
    batch = batch_of([call("debug.noop")], [])
    batch.ordinary.CopyFrom(
        columns_of((0, 1, 0, 0, 1), (1, 1, 1, 0, 1), (2, 1, 1, 1, 1), sources=[sliced(inline(item(0), item(1))), gone])
    )
    results = [bench.runner.run_task(batch, task) for task in tasks_of(batch)]
    assert [(result.outcome, result.reason) for result in results] == [
        (OK, ""), (FAILED, "NOT_FOUND"), (FAILED, "NOT_FOUND"),
    ]  # fmt: skip


# -- Results ----------------------------------------------------------------------------------------------------------


ORDINARY = {
    "one op": ([call("debug.noop", "a")], [0, 1]),
    "a chain": ([call("debug.noop", "a"), call("test.where", "b"), call("debug.noop", "c")], [0, 1, 2]),
    "several of one": ([call("test.split", "a"), call("debug.noop", "b")], [0, 2, 3]),
    "some that pass": ([call("test.decide", "a")], [0, 4, 5]),
}
OTHERS = {
    "filtered": ([call("test.decide", "a")], [0, 1]),
    "rejected": ([call("debug.noop", "a"), call("test.decide", "b")], [0, 2]),
    "skipped": ([call("test.decide", "a", on_error=pb.ON_ERROR_SKIP)], [0, 2]),
    "failed": ([call("test.decide", "a", on_error=pb.ON_ERROR_FAIL)], [0, 2]),
    "to be tried again": ([call("test.decide", "a")], [0, 3]),
    "all to be tried again": ([call("test.decide", "a")], [3]),
    "more behind than before": ([call("debug.noop", "a"), call("test.split", "b")], [2, 3]),
    "nothing": ([call("test.split", "a")], [0]),
    "warned": ([call("debug.noop", "a"), call("test.warn", "b")], [0, 1]),
    "too large to travel inside": ([call("test.fat", "a")], [0, 1]),
    "an op that nobody knows": ([call("nobody.knows", "a")], [0]),
}


@pytest.mark.parametrize(("calls", "numbers"), ORDINARY.values(), ids=ORDINARY)
def test_an_ordinary_result_is_taken_and_says_what_the_message_says(
    bench: Bench, calls: list[pb.OpCall], numbers: list[int]
) -> None:
    task = pb.Task(shard=7, attempt=2, inputs=[sliced(inline(*map(item, numbers)))])
    batch = batch_of(calls, [task])
    message = bench.runner.run_task(batch, task)
    columns = OrdinaryColumns()
    assert bench.runner.run_task(batch, task, ordinary=columns) is None
    assert len(columns) == 1
    row = taken(columns)
    assert (list(row.shards), list(row.attempts)) == ([7], [2])
    assert message.outcome == OK
    assert [counts.ok for counts in message.counts] == [row.items[0]] * len(calls)
    output = item_pb2.Manifest(count=row.items[0], inline=row.outputs[0])
    assert timeless(bench, output) == timeless(bench, message.output)
    assert len(row.elapsed_ns) == len(calls)
    assert row.ended_us[0] >= row.started_us[0] >= message.start_time.ToMicroseconds()


@pytest.mark.parametrize(("calls", "numbers"), OTHERS.values(), ids=OTHERS)
def test_any_other_result_is_left_to_a_message(bench: Bench, calls: list[pb.OpCall], numbers: list[int]) -> None:
    task = pb.Task(shard=7, attempt=2, inputs=[sliced(inline(*map(item, numbers)))])
    batch = batch_of(calls, [task])
    expected = bench.runner.run_task(batch, task)
    stored = len(bench.runner.take_digests())
    columns = OrdinaryColumns()
    result = bench.runner.run_task(batch, task, ordinary=columns)
    assert result is not None
    assert (len(columns), columns.take()) == (0, b"")
    assert len(bench.runner.take_digests()) == stored
    assert timeless(bench, result.output) == timeless(bench, expected.output)
    assert timeless(bench, result.rejects) == timeless(bench, expected.rejects)
    for each in (expected, result):
        each.ClearField("output")
        each.ClearField("rejects")
        each.ClearField("start_time")
        each.ClearField("end_time")
        for counts in each.counts:
            counts.ClearField("elapsed")
    assert result == expected


def test_a_task_with_items_to_reject_unseen_is_not_ordinary(bench: Bench) -> None:
    task = pb.Task(shard=1, attempt=1, inputs=[sliced(inline(item(0), item(1)))])
    batch = batch_of([call("debug.noop")], [task])
    columns = OrdinaryColumns()
    result = bench.runner.run_task(batch, task, verdicts={1: Verdict(0, "CRASHED", "died")}, ordinary=columns)
    assert result is not None
    assert (result.rejects.count, len(columns)) == (1, 0)
    assert bench.runner.run_task(batch, task, alone=[1], ordinary=columns) is None
    assert [entry.key for entry in item_pb2.ItemBatch.FromString(taken(columns).outputs[0]).items] == [
        "item-0", "item-1",
    ]  # fmt: skip


def test_a_run_over_the_whole_is_never_ordinary(bench: Bench) -> None:
    task = pb.Task(shard=0, attempt=1)
    batch = batch_of([call("debug.range", count=3)], [task], op_pb2.OP_KIND_SOURCE)
    columns = OrdinaryColumns()
    result = bench.runner.run_task(batch, task, ordinary=columns)
    assert result is not None
    assert (result.output.count, len(columns)) == (3, 0)


def test_results_are_taken_once_and_times_are_added_up() -> None:
    columns = OrdinaryColumns()
    for shard in (5, 2):
        columns.add(
            pb.Task(shard=shard, attempt=1),
            started_ns=1_500, ended_ns=2_999, output=item_pb2.Manifest(count=2, inline=b"%d" % shard),
            spent_ns=[10 * shard, 1],
        )  # fmt: skip
    assert len(columns) == 2
    assert taken(columns) == pb.OrdinaryResults(
        shards=[5, 2], attempts=[1, 1], started_us=[1, 1], ended_us=[2, 2], items=[2, 2], outputs=[b"5", b"2"],
        elapsed_ns=[70, 2],
    )  # fmt: skip
    assert (len(columns), columns.take()) == (0, b"")
    columns.add(
        OrdinaryTask(9, 3, item_pb2.InputSlice(), 0, 1),
        started_ns=0, ended_ns=0, output=item_pb2.Manifest(count=1, inline=b"9"), spent_ns=[4, 4],
    )  # fmt: skip
    later = taken(columns)
    assert (list(later.shards), list(later.attempts), list(later.elapsed_ns)) == ([9], [3], [4, 4])


def test_rows_are_cut_out_with_their_share_of_the_time() -> None:
    results = pb.OrdinaryResults(
        shards=[5, 2, 8, 1], attempts=[1, 2, 3, 4], started_us=[10, 20, 30, 40], ended_us=[11, 21, 31, 41],
        items=[1, 2, 3, 4], outputs=[b"a", b"b", b"c", b"d"], elapsed_ns=[100, 40],
    )  # fmt: skip
    assert rows_of(results, [1, 3]) == pb.OrdinaryResults(
        shards=[2, 1], attempts=[2, 4], started_us=[20, 40], ended_us=[21, 41], items=[2, 4], outputs=[b"b", b"d"],
        elapsed_ns=[50, 20],
    )  # fmt: skip


def test_an_output_that_is_too_large_is_stored_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[str] = []
    put = bench.store.put

    def counted(data: bytes, media_type: str) -> item_pb2.ArtifactRef:
        ref = put(data, media_type)
        stored.append(ref.sha256)
        return ref

    monkeypatch.setattr(bench.store, "put", counted)
    task = pb.Task(shard=0, attempt=1, inputs=[sliced(inline(item(0), item(1)))])
    result = bench.runner.run_task(batch_of([call("test.fat")], [task]), task, ordinary=OrdinaryColumns())
    assert result is not None
    assert [result.output.artifact.sha256] == stored


def test_a_report_without_columns_says_the_same() -> None:
    batch = batch_of([call("debug.noop", "a"), call("debug.noop", "b")], [])
    report = pb.Report(
        report_id=3, lease_token=b"t", job_id="j", generation=2, stage=1,
        results=[pb.TaskResult(shard=4, attempt=1, outcome=FAILED)],
        ordinary=pb.OrdinaryResults(
            shards=[5, 2], attempts=[1, 2], started_us=[10, 2_000_020], ended_us=[11, 2_000_021], items=[1, 2],
            outputs=[b"a", b"b"], elapsed_ns=[100, 40],
        ),
    )  # fmt: skip
    plain = without_columns(report, batch)
    assert not plain.HasField("ordinary")
    assert [entry.shard for entry in plain.results] == [4, 5, 2]
    last = plain.results[-1]
    assert (last.attempt, last.outcome, last.output) == (2, OK, item_pb2.Manifest(count=2, inline=b"b"))
    assert [(counts.node, counts.ok, counts.elapsed.ToNanoseconds()) for counts in last.counts] == [
        ("a", 2, 50), ("b", 2, 20),
    ]  # fmt: skip
    assert (last.start_time.ToMicroseconds(), last.end_time.ToMicroseconds()) == (2_000_020, 2_000_021)
    del plain.results[1:]
    plain.ordinary.CopyFrom(report.ordinary)
    assert plain == report
