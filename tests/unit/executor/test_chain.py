from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import orjson
import pytest
import pyvips

from pixloom.sdk.op import Context, Filtered, Image, Item, Reject, Retry, definition_of, op
from pixloom.v1 import executor_pb2 as pb
from pixloom.v1 import item_pb2, job_pb2
from tests.unit.executor.tasks import batch_of, call, file_item, inline, item, sliced

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.executor.tasks import Bench

OK, PARTIAL, FAILED = (
    job_pb2.ATTEMPT_OUTCOME_OK,
    job_pb2.ATTEMPT_OUTCOME_PARTIAL,
    job_pb2.ATTEMPT_OUTCOME_FAILED,
)


def jpeg(seed: int = 1, **options: Any) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    return bytes(pyvips.Image.new_from_array(pixels).write_to_buffer(".jpg", **options))


def add(bench: Bench, function: Any) -> None:
    bench.registry.add(definition_of(function))


@op("test.mirror")
def mirror(image: Image) -> Image:
    return image.with_vips(image.vips.fliphor())


@op("test.same")
def same(image: Image) -> Image:
    return image


@op("test.measure")
async def measure(image: Image) -> tuple[Image, dict[str, Any]]:
    return image.with_vips(image.vips.invert()), {"mean": image.vips.avg()}


@op("test.see")
def see(item: Item) -> dict[str, Any]:
    return {"seen": [item.uri, item.sha256, item.size_bytes, item.width]}


@op("test.decide")
def decide(item: Item, *, ctx: Context) -> None:
    match item.ordinal[-1] % 5:
        case 1:
            raise Filtered("ODD", "not wanted")
        case 2:
            raise Reject("BAD", "not usable")
        case 3:
            raise Retry("BUSY", "come back", after_s=2.5)
        case 4:
            raise KeyError("gone")


@op("test.hasty")
def hasty(item: Item) -> None:
    if item.key == "item-1":
        raise Retry("BUSY", "come back", after_s=cast("float", "6"))


@op("test.split")
def split(item: Item) -> list[Item]:
    return [item.with_attributes({"part": part}) for part in range(item.ordinal[-1])]


@op("test.renumber")
def renumber(item: Item) -> list[Item]:
    item.ordinal = (99,)
    return [replace(item, ordinal=(7,)), Item(key="made", ordinal=(3, 1)), item]


@op("test.spoil")
def spoil(item: Item, *, at: int) -> list[Item]:
    parts = [item.with_attributes({"part": part}) for part in range(3)]
    item.ordinal = (99,)
    if item.key == f"item-{at}":
        parts[1].attributes["lock"] = threading.Lock()
    return parts


@op("test.sly")
def sly(item: Item) -> Item:
    return cast("Item", (item, item))


@pytest.fixture
def bench(bench: Bench) -> Bench:
    for function in (mirror, same, measure, see, decide, hasty, split, renumber, spoil, sly):
        add(bench, function)
    return bench


def test_items_pass_and_are_counted(bench: Bench) -> None:
    result = bench.run([call("debug.noop", "a"), call("debug.noop", "b")], item(0), item(1))
    assert (result.outcome, result.shard, result.attempt) == (OK, 7, 1)
    assert [(counts.node, counts.ok) for counts in result.counts] == [("a", 2), ("b", 2)]
    assert [entry.key for entry in bench.items(result.output)] == ["item-0", "item-1"]
    assert result.end_time.ToNanoseconds() >= result.start_time.ToNanoseconds() > 0


def test_every_item_is_accounted_for_by_state_and_reason(bench: Bench) -> None:
    result = bench.run([call("test.decide", "n")], *map(item, range(10)), last_attempt=True)
    assert result.outcome == OK
    counts = result.counts[0]
    assert (counts.ok, dict(counts.filtered)) == (2, {"ODD": 2})
    assert dict(counts.rejected) == {"BAD": 2, "BUSY": 2, "OP_ERROR": 2}
    rejects = bench.items(result.rejects)
    assert [entry.ordinal[0] for entry in rejects] == [1, 2, 3, 4, 6, 7, 8, 9]
    assert {entry.node for entry in rejects} == {"n"}
    assert rejects[3].detail == "KeyError: 'gone'"


def test_items_to_be_tried_again_make_the_attempt_partial(bench: Bench) -> None:
    result = bench.run([call("debug.noop", "a"), call("test.decide", "n")], *map(item, range(5)))
    assert (result.outcome, list(result.retry_indexes), result.retryable) == (PARTIAL, [3], True)
    assert result.retry_after.ToMilliseconds() == 2500
    # The item that is tried again counts nowhere yet.
    assert result.counts[0].ok == 4
    assert result.counts[1].ok + sum(result.counts[1].filtered.values()) + sum(result.counts[1].rejected.values()) == 4


def test_a_delay_that_is_no_number_is_the_fault_of_one_item_and_not_of_the_task(bench: Bench) -> None:
    result = bench.run([call("test.hasty", "n")], *map(item, range(3)))
    assert (result.outcome, result.counts[0].ok, dict(result.counts[0].rejected)) == (OK, 2, {"OP_ERROR": 1})
    (rejected,) = bench.items(result.rejects)
    assert rejected.detail.startswith("TypeError: after_s of Retry is '6'; give seconds as a number")


def test_an_attempt_in_which_every_item_is_tried_again_has_failed(bench: Bench) -> None:
    result = bench.run([call("debug.fail", times=1, reason="FLAKY")], item(0), item(1))
    assert (result.outcome, result.reason, result.retryable) == (FAILED, "FLAKY", True)
    assert not result.counts
    again = bench.run([call("debug.fail", times=1, reason="FLAKY")], item(0), item(1), attempt=2)
    assert (again.outcome, again.output.count) == (OK, 2)


def test_what_is_not_retryable_is_rejected_at_once(bench: Bench) -> None:
    result = bench.run([call("debug.fail", times=9, reason="FLAKY", retryable=False)], item(0))
    assert (result.outcome, dict(result.counts[0].rejected)) == (OK, {"FLAKY": 1})


def test_skip_makes_a_reject_filtered_and_fail_ends_the_task(bench: Bench) -> None:
    skipped = bench.run([call("test.decide", "n", on_error=pb.ON_ERROR_SKIP)], item(2))
    assert dict(skipped.counts[0].filtered) == {"BAD": 1}
    assert bench.items(skipped.rejects)[0].state == item_pb2.ITEM_STATE_FILTERED
    failed = bench.run([call("test.decide", "n", on_error=pb.ON_ERROR_FAIL)], item(0), item(2))
    assert (failed.outcome, failed.reason, failed.retryable) == (FAILED, "BAD", False)
    assert "item-2" in failed.detail


def test_one_item_may_become_several_or_none(bench: Bench) -> None:
    result = bench.run([call("test.split"), call("debug.noop", "z")], item(0), item(2), item(3))
    assert [counts.ok for counts in result.counts] == [5, 5]
    outputs = bench.items(result.output)
    assert [list(entry.ordinal) for entry in outputs] == [[2, 0], [2, 1], [3, 0], [3, 1], [3, 2]]
    assert [orjson.loads(entry.attributes_json)["part"] for entry in outputs] == [0, 1, 0, 1, 2]


def test_an_op_decides_no_ordinal(bench: Bench) -> None:
    result = bench.run([call("test.renumber")], item(4), item(5))
    outputs = bench.items(result.output)
    assert [list(entry.ordinal) for entry in outputs] == [[4, 0], [4, 1], [4, 2], [5, 0], [5, 1], [5, 2]]


def test_what_is_made_of_an_item_passes_as_a_whole_or_the_item_is_rejected(bench: Bench) -> None:
    for deliver in (False, True):
        result = bench.run(
            [call("debug.noop", "a"), call("test.spoil", "n", at=1, deliver=deliver)], *map(item, range(3))
        )
        assert [list(entry.ordinal) for entry in bench.items(result.output)] == [
            [parent, part] for parent in (0, 2) for part in range(3)
        ]
        rejects = bench.items(result.rejects)
        assert [(list(entry.ordinal), entry.key, entry.reason, entry.node) for entry in rejects] == [
            ([1], "item-1", "BAD_ATTRIBUTES", "n")
        ]
        before, split = result.counts
        assert (before.ok, split.ok, dict(split.rejected)) == (3, 6, {"BAD_ATTRIBUTES": 1})


def test_an_item_of_which_a_part_cannot_be_stored_ends_the_task_where_the_workflow_wants_that(bench: Bench) -> None:
    result = bench.run([call("test.spoil", "n", at=1, on_error=pb.ON_ERROR_FAIL)], *map(item, range(3)))
    assert (result.outcome, result.reason) == (FAILED, "BAD_ATTRIBUTES")
    assert "item-1" in result.detail


def test_a_list_that_the_annotation_does_not_tell_of_is_refused_with_what_to_write(bench: Bench) -> None:
    result = bench.run([call("test.sly", "n")], item(0))
    reject = bench.items(result.rejects)[0]
    assert (list(reject.ordinal), reject.reason, result.counts[0].ok) == ([0], "OP_ERROR", 0)
    assert reject.detail == (
        "test.sly@1 returned a tuple of 2, and its return annotation says that it makes no list; write `-> list[Item]`"
    )


def test_pixels_that_all_made_items_share_are_stored_once(bench: Bench) -> None:
    path = bench.photo("a.jpg", jpeg())
    mirrored = bench.items(bench.run([call("test.mirror")], file_item(3, path)).output)[0]
    bench.runner.take_digests()
    result = bench.run([call("test.mirror"), call("test.split")], file_item(3, path))
    outputs = bench.items(result.output)
    assert [(entry.intermediate, entry.sha256, list(entry.parents)) for entry in outputs] == [
        (True, mirrored.sha256, list(mirrored.parents))
    ] * 3
    assert bench.runner.take_digests() == {mirrored.sha256}


def test_a_made_item_that_names_no_bytes_has_those_of_the_item_it_was_made_of(bench: Bench) -> None:
    path = bench.photo("a.jpg", jpeg())
    seen = bench.items(bench.run([call("test.same")], file_item(0, path)).output)[0]
    made = bench.items(bench.run([call("test.renumber")], seen).output)[1]
    assert (made.key, made.uri, made.sha256, made.size_bytes) == ("made", seen.uri, seen.sha256, seen.size_bytes)
    behind = bench.run([call("test.mirror")], made)
    assert bench.items(behind.output)[0].width == 64


def test_unchanged_pixels_keep_their_place_and_fill_the_record(bench: Bench) -> None:
    data = jpeg()
    path = bench.photo("a.jpg", data)
    result = bench.run([call("test.same")], file_item(0, path))
    output = bench.items(result.output)[0]
    assert output.uri == path.as_uri()
    assert output.sha256 == hashlib.sha256(data).hexdigest()
    assert (output.size_bytes, output.format, output.width, output.height) == (len(data), "jpeg", 64, 48)
    assert bench.runner.take_digests() == set()


def test_changed_pixels_become_a_lossless_intermediate_between_stages(bench: Bench) -> None:
    path = bench.photo("a.jpg", jpeg())
    result = bench.run([call("test.mirror")], file_item(0, path))
    output = bench.items(result.output)[0]
    assert output.intermediate
    assert output.uri == f"cas:{output.sha256}"
    assert list(output.parents) == [hashlib.sha256(path.read_bytes()).hexdigest()]
    assert output.op_digest
    assert bench.runner.take_digests() == {output.sha256}


def test_changed_pixels_are_delivered_in_their_own_format(bench: Bench) -> None:
    path = bench.photo("a.jpg", jpeg())
    result = bench.run([call("test.mirror", deliver=True)], file_item(0, path))
    output = bench.items(result.output)[0]
    assert (output.intermediate, output.format) == (False, "jpeg")
    data = bench.store.get(output.sha256)
    assert (data[:3], len(data)) == (b"\xff\xd8\xff", output.size_bytes)


def test_a_delivery_in_the_middle_of_a_chain_is_a_side_output(bench: Bench) -> None:
    path = bench.photo("a.jpg", jpeg())
    result = bench.run([call("test.mirror", "m", deliver=True), call("test.measure", "n")], file_item(0, path))
    assert [kept.node for kept in result.kept] == ["m"]
    kept = bench.items(result.kept[0].items)[0]
    assert (kept.format, kept.intermediate) == ("jpeg", False)
    plain = bench.run([call("test.mirror", "m"), call("test.measure", "n")], file_item(0, path))
    assert bench.items(plain.output)[0].sha256 == bench.items(result.output)[0].sha256


def test_an_intermediate_is_encoded_where_it_is_delivered(bench: Bench) -> None:
    path = bench.photo("a.jpg", jpeg())
    between = bench.items(bench.run([call("test.mirror")], file_item(0, path)).output)[0]
    result = bench.run([call("debug.noop", deliver=True)], between)
    output = bench.items(result.output)[0]
    assert (output.format, output.intermediate, bench.store.get(output.sha256)[:2]) == ("jpeg", False, b"\xff\xd8")


def test_ops_see_no_bytes_while_pixels_differ_from_any_file(bench: Bench) -> None:
    path = bench.photo("a.jpg", jpeg())
    fused = bench.run([call("test.mirror"), call("test.see")], file_item(0, path))
    between = bench.items(bench.run([call("test.mirror")], file_item(0, path)).output)[0]
    unfused = bench.run([call("test.see")], between)
    for result in (fused, unfused):
        output = bench.items(result.output)[0]
        assert orjson.loads(output.attributes_json)["seen"] == ["", "", 0, 64]
    assert bench.items(unfused.output)[0].uri == between.uri


def test_a_coroutine_function_is_run_to_its_end(bench: Bench) -> None:
    path = bench.photo("a.jpg", jpeg())
    result = bench.run([call("test.measure")], file_item(0, path))
    assert orjson.loads(bench.items(result.output)[0].attributes_json)["mean"] > 0


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("text.jpg", b"this is text, whatever its name says", "NOT_AN_IMAGE"),
        ("empty.jpg", b"", "EMPTY_FILE"),
        ("half.jpg", jpeg()[:1500], "TRUNCATED"),
        ("noise.png", b"\x89PNG\r\n\x1a\n" + bytes(range(200)), "TOO_MANY_PIXELS"),
    ],
)
def test_a_bad_file_is_rejected_with_its_reason(bench: Bench, name: Any, data: Any, reason: Any) -> None:
    path = bench.photo(name, data)
    result = bench.run([call("test.mirror")], file_item(0, path))
    assert result.outcome == OK
    assert dict(result.counts[0].rejected) == {reason: 1}


def test_a_missing_file_is_a_read_error_of_its_item(bench: Bench) -> None:
    result = bench.run([call("test.same")], file_item(0, bench.photos / "gone.jpg"))
    assert dict(result.counts[0].rejected) == {"READ_ERROR": 1}


def test_files_outside_the_source_roots_are_not_opened(bench: Bench, tmp_path: Path) -> None:
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(jpeg())
    (bench.photos / "link.jpg").symlink_to(outside)
    result = bench.run([call("test.same")], file_item(0, outside), file_item(1, bench.photos / "link.jpg"))
    assert dict(result.counts[0].rejected) == {"READ_ERROR": 2}


def test_a_file_that_changed_during_the_job_is_rejected(bench: Bench) -> None:
    path = bench.photo("a.jpg", jpeg(1))
    seen = bench.items(bench.run([call("test.same")], file_item(0, path)).output)[0]
    path.write_bytes(jpeg(2))
    assert dict(bench.run([call("test.same")], seen).counts[0].rejected) == {"SOURCE_CHANGED": 1}


def test_limits_of_the_node_apply_before_anything_is_decoded(bench: Bench) -> None:
    path = bench.photo("a.jpg", jpeg())
    result = bench.run([call("test.same", limits={"max_pixels": 3000})], file_item(0, path))
    assert dict(result.counts[0].rejected) == {"TOO_MANY_PIXELS": 1}


def test_an_empty_task_ends_with_nothing(bench: Bench) -> None:
    result = bench.run([call("debug.noop")], inputs=[sliced(item_pb2.Manifest())])
    assert (result.outcome, result.output.count, result.counts[0].ok) == (OK, 0, 0)


def test_paged_inputs_that_turn_out_empty_are_no_run_without_input(bench: Bench) -> None:
    result = bench.run([call("debug.noop")], inputs=[], inputs_paged=True)
    assert (result.outcome, result.output.count, result.value_json) == (OK, 0, b"")


def test_a_store_that_cannot_be_written_fails_the_task_and_not_its_items(bench: Bench) -> None:
    path = bench.photo("a.jpg", jpeg())
    blocked = bench.folder / "store"
    blocked.write_text("a file where the folder of the store should be")
    result = bench.run([call("test.mirror", "m", deliver=True), call("debug.noop")], file_item(0, path))
    assert (result.outcome, result.reason, result.retryable) == (FAILED, "ENVIRONMENT", True)
    assert (len(result.counts), result.rejects.count) == (0, 0)


def test_slices_indexes_and_prefixes_choose_the_items(bench: Bench) -> None:
    manifest = bench.manifest(*map(item, range(300)))
    assert manifest.WhichOneof("content") == "artifact"
    part = item_pb2.InputSlice(manifest=manifest, offset=100, count=50, indexes=[0, 7, 49], ordinal_prefix=[4])
    result = bench.run([call("debug.noop")], inputs=[part, sliced(inline(item(1)))])
    assert [list(entry.ordinal) for entry in bench.items(result.output)] == [[4, 100], [4, 107], [4, 149], [1]]


@pytest.mark.parametrize(
    ("made", "reason"),
    [(call("nothing.known"), "UNKNOWN_OP"), (call("debug.sleep", seconds="long"), "INVALID_PARAMS")],
)
def test_a_call_that_cannot_be_bound_fails_every_task_and_is_not_retried(bench: Bench, made: Any, reason: Any) -> None:
    result = bench.run([made], item(0))
    assert (result.outcome, result.reason, result.retryable) == (FAILED, reason, False)


def test_a_missing_input_manifest_fails_the_task_and_no_item(bench: Bench) -> None:
    gone = item_pb2.Manifest(count=1, artifact=item_pb2.ArtifactRef(sha256="0" * 64, size_bytes=1))
    result = bench.run([call("debug.noop")], inputs=[sliced(gone)])
    assert (result.outcome, result.reason, len(result.counts)) == (FAILED, "NOT_FOUND", 0)


def test_poisonous_text_stays_with_its_item(bench: Bench) -> None:
    @op("test.poison")
    def poison(item: Item) -> dict[str, Any]:
        if item.ordinal == (0,):
            return {"camera": "a\0b"}
        raise Reject("BAD\0", "\udcff\0" * 2000)

    add(bench, poison)
    result = bench.run([call("test.poison")], item(0), item(1))
    data = result.SerializeToString()
    assert b"\\u0000" not in data
    assert b"\0b" not in bench.items(result.output)[0].attributes_json
    assert "\0" not in bench.items(result.rejects)[0].reason


def test_a_reason_for_each_item_is_counted_as_one(bench: Bench) -> None:
    @op("test.names")
    def names(item: Item) -> None:
        raise Reject(f"bad {item.key}")

    add(bench, names)
    result = bench.run([call("test.names")], item(0), item(1))
    assert dict(result.counts[0].rejected) == {"OTHER": 2}
    assert [(each.reason, each.detail) for each in bench.items(result.rejects)] == [
        ("OTHER", "bad item-0"),
        ("OTHER", "bad item-1"),
    ]


def test_scratch_is_empty_after_the_task_and_warnings_travel(bench: Bench) -> None:
    @op("test.scribble")
    def scribble(item: Item, *, ctx: Context) -> None:
        (ctx.scratch_dir / "note").write_text("x")
        (ctx.scratch_dir / "folder").mkdir()
        ctx.warnings.append(f"saw {item.key} at {ctx.index}")

    add(bench, scribble)
    result = bench.run([call("test.scribble")], item(4))
    assert list(result.warnings) == ["saw item-4 at 0"]
    assert not list(bench.scratch.iterdir())


def test_verdicts_reject_without_running(bench: Bench) -> None:
    from pixloom_executor.item_chain import Verdict

    task = pb.Task(shard=1, attempt=1, inputs=[sliced(inline(item(0), item(1)))])
    batch = batch_of([call("debug.noop", "a"), call("debug.crash", "b", mode="signal", at=[1])], [task])
    result = bench.runner.run_task(batch, task, verdicts={1: Verdict(1, "CRASHED", "died")})
    assert (result.outcome, result.counts[0].ok, result.counts[1].ok) == (OK, 2, 1)
    assert dict(result.counts[1].rejected) == {"CRASHED": 1}
