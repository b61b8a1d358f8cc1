from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from pixloom.errors import InvalidError
from pixloom.graph import OpKind, OpSpec, PortType, digest_of, plan_workflow, validate

if TYPE_CHECKING:
    from pixloom.graph import Catalogue

SOURCE = {"id": "photos", "op": "source.folder", "params": {"path": "p"}}


def workflow(*nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "w", "nodes": [SOURCE, *nodes], **more}


def found(document: Any, catalogue: Catalogue) -> list[tuple[str, str]]:
    result = validate(document, catalogue)
    assert (result.spec is None) == bool(result.problems)
    return [(problem.pointer, problem.reason) for problem in result.problems]


def detail(document: Any, catalogue: Catalogue) -> str:
    (problem,) = validate(document, catalogue).problems
    return problem.detail


def test_valid_document_gives_spec_and_digest(catalogue: Catalogue, photo_catalog: dict[str, Any]) -> None:
    result = validate(photo_catalog, catalogue)
    assert result.problems == ()
    assert result.notes == ()
    assert result.sha256 == digest_of(photo_catalog)
    assert result.document is photo_catalog
    assert [node.id for node in result.require().nodes] == ["photos", "valid", "thumbs", "sheet"]


def test_all_problems_are_reported_at_once_in_document_order(catalogue: Catalogue) -> None:
    document = {
        "name": "b ad",
        "nodez": 1,
        "params": {"w": {"type": "integer", "default": "x"}, "u": {"type": "strin"}},
        "nodes": [
            {"id": "a", "op": "source.foldr", "params": {"path": 1}},
            {
                "id": "b",
                "op": "image.thumbnail",
                "inputs": {"images": "aa"},
                "params": {"widht": 3, "crop": "x", "height": "${params.q}"},
                "onerror": 1,
            },
            {"id": "b", "op": "agg.contact_sheet", "inputs": {"imgs": "b"}, "when": "nodes.c.okk > 0"},
            {"id": "c", "op": "image.sharpen@3", "inputs": {"images": "d"}, "timeout_s": "x"},
            {"id": "d", "op": "image.sharpen@1", "inputs": {"images": "c"}, "params": {"sigma": "${params.w}x"}},
            {"id": "e", "op": "image.thumbnail", "inputs": {"images": "s"}, "params": {"width": 1}},
            {"id": "s", "op": "agg.contact_sheet", "inputs": {"images": ["r", "t"]}},
            {"id": "r", "op": "debug.range", "params": {"count": -1}, "priority": 11},
            {"op": "x"},
            3,
        ],
        "outputs": {"o": "nope", "p": "s.items"},
    }
    expected = [
        ("/name", "INVALID_FIELD"),
        ("/nodez", "UNKNOWN_FIELD"),
        ("/params/w/default", "INVALID_DEFAULT"),
        ("/params/u/type", "INVALID_FIELD"),
        ("/nodes/0/op", "UNKNOWN_OP"),
        ("/nodes/1/inputs/images", "UNKNOWN_NODE"),
        ("/nodes/1/params", "MISSING_PARAM"),
        ("/nodes/1/params/widht", "UNKNOWN_PARAM"),
        ("/nodes/1/params/crop", "INVALID_PARAM"),
        ("/nodes/1/params/height", "UNKNOWN_PARAM_REFERENCE"),
        ("/nodes/1/onerror", "UNKNOWN_FIELD"),
        ("/nodes/2/id", "DUPLICATE_ID"),
        ("/nodes/2/inputs/imgs", "UNKNOWN_PORT"),
        ("/nodes/2/when", "INVALID_CONDITION"),
        ("/nodes/3", "CYCLE"),
        ("/nodes/3/op", "UNKNOWN_OP"),
        ("/nodes/3/timeout_s", "INVALID_FIELD"),
        ("/nodes/4/params/sigma", "TYPE_MISMATCH"),
        ("/nodes/5/inputs/images", "TYPE_MISMATCH"),
        ("/nodes/6/inputs/images/0", "TYPE_MISMATCH"),
        ("/nodes/6/inputs/images/1", "UNKNOWN_NODE"),
        ("/nodes/7/params/count", "INVALID_PARAM"),
        ("/nodes/7/priority", "INVALID_FIELD"),
        ("/nodes/8", "MISSING_FIELD"),
        ("/nodes/8/op", "UNKNOWN_OP"),
        ("/nodes/9", "INVALID_FIELD"),
        ("/outputs/o", "UNKNOWN_NODE"),
        ("/outputs/p", "UNKNOWN_PORT"),
    ]
    assert expected == found(document, catalogue)


@pytest.mark.parametrize(
    ("node", "sentence"),
    [
        ({"op": "image.thumbnial", "params": {"width": 1}}, "did you mean `image.thumbnail`?"),
        ({"op": "thumbnail", "params": {"width": 1}}, "did you mean `image.thumbnail`?"),
        ({"op": "image.sharpen@9"}, "has no version 9; it has 1, 2"),
        ({"op": "check.decode", "params": {"levle": "full"}}, "did you mean `level`?"),
        ({"op": "check.decode", "params": {"level": "some"}}, '"some" is not one of "header", "full"'),
        ({"op": "image.thumbnail", "params": {"width": "${params.widht}"}}, "did you mean `width`?"),
        ({"op": "check.decode", "on_eror": "skip"}, "did you mean `on_error`?"),
        ({"op": "check.decode", "retry": {"max_atempts": 3}}, "did you mean `max_attempts`?"),
    ],
)
def test_misspelt_name_is_suggested(catalogue: Catalogue, node: dict[str, Any], sentence: str) -> None:
    document = workflow(
        {"id": "n", "inputs": {"images": "photos"}, **node}, params={"width": {"type": "integer", "default": 1}}
    )
    assert sentence in detail(document, catalogue)


def test_dangling_names_are_suggested(catalogue: Catalogue) -> None:
    document = workflow(
        {
            "id": "valid",
            "op": "check.decode",
            "inputs": {"images": "photo"},
            "dependencies": ["phots"],
            "when": "nodes.potos.ok > 0",
        },
        outputs={"o": "vali"},
    )
    problems = validate(document, catalogue).problems
    assert [problem.reason for problem in problems] == ["UNKNOWN_NODE"] * 4
    assert all("did you mean" in problem.detail for problem in problems)


@pytest.mark.parametrize("written", ["images", "items"])
@pytest.mark.parametrize("op", ["check.decode", "dedupe.exact"])
def test_images_and_items_both_name_the_single_data_port(catalogue: Catalogue, op: str, written: str) -> None:
    assert found(workflow({"id": "n", "op": op, "inputs": {written: "photos"}}), catalogue) == []


def test_same_port_under_two_names_is_refused(catalogue: Catalogue) -> None:
    node = {"id": "n", "op": "check.decode", "inputs": {"images": "photos", "items": "photos"}}
    assert found(workflow(node), catalogue) == [("/nodes/1/inputs/items", "DUPLICATE_PORT")]


@pytest.mark.parametrize("inputs", [{}, {"images": []}])
def test_missing_input_is_refused(catalogue: Catalogue, inputs: dict[str, Any]) -> None:
    problems = validate(workflow({"id": "n", "op": "check.decode", "inputs": inputs}), catalogue).problems
    assert [problem.reason for problem in problems] == ["MISSING_INPUT"]


def test_source_takes_no_inputs(catalogue: Catalogue) -> None:
    node = {"id": "n", "op": "debug.range", "params": {"count": 1}, "inputs": {"items": "photos"}}
    assert "it takes none" in detail(workflow(node), catalogue)


def test_images_stay_images_through_ops_over_records(catalogue: Catalogue) -> None:
    document = workflow(
        {"id": "unique", "op": "dedupe.exact", "inputs": {"items": "photos"}},
        {"id": "some", "op": "flow.filter", "inputs": {"items": "unique"}, "params": {"where": "item.width > 10"}},
        {"id": "valid", "op": "check.decode", "inputs": {"images": "some"}},
    )
    assert found(document, catalogue) == []


def test_records_without_images_do_not_become_images(catalogue: Catalogue) -> None:
    document = {
        "name": "w",
        "nodes": [
            {"id": "numbers", "op": "debug.range", "params": {"count": 3}},
            {"id": "same", "op": "debug.noop", "inputs": {"items": "numbers"}},
            {"id": "valid", "op": "check.decode", "inputs": {"images": "same"}},
        ],
    }
    assert found(document, catalogue) == [("/nodes/2/inputs/images", "TYPE_MISMATCH")]


def test_item_op_without_inputs_gives_a_value(catalogue: Catalogue) -> None:
    document = {
        "name": "w",
        "nodes": [
            {"id": "once", "op": "debug.noop"},
            {"id": "text", "op": "value.template", "inputs": {"value": "once.value"}},
            {"id": "bad", "op": "debug.noop", "inputs": {"items": "once"}},
        ],
    }
    assert found(document, catalogue) == [("/nodes/2/inputs/items", "TYPE_MISMATCH")]


def test_only_items_can_be_concatenated(catalogue: Catalogue) -> None:
    document = {
        "name": "w",
        "nodes": [
            {"id": "a", "op": "debug.noop"},
            {"id": "b", "op": "debug.noop"},
            {"id": "t", "op": "value.template", "inputs": {"value": ["a", "b"]}},
        ],
    }
    assert found(document, catalogue) == [("/nodes/2/inputs/value", "TYPE_MISMATCH")]


@pytest.mark.parametrize(
    ("edges", "cycle"),
    [
        ([("b", {"inputs": {"images": "c"}}), ("c", {"inputs": {"images": "b"}})], "b → c → b"),
        (
            [
                ("b", {"inputs": {"images": "photos"}, "dependencies": ["d"]}),
                ("c", {"inputs": {"images": "b"}}),
                ("d", {"inputs": {"images": "photos"}, "when": "nodes.c.ok > 0"}),
            ],
            "b → c → d → b",
        ),
        ([("b", {"inputs": {"images": "photos"}, "dependencies": ["b"]})], "b → b"),
    ],
)
def test_cycle_is_named_along_its_edges(
    catalogue: Catalogue, edges: list[tuple[str, dict[str, Any]]], cycle: str
) -> None:
    document = workflow(*({"id": node, "op": "check.decode", **more} for node, more in edges))
    assert f": {cycle};" in detail(document, catalogue)


def test_long_cycle_is_shown_by_its_ends(catalogue: Catalogue) -> None:
    nodes = [{"id": f"n{i}", "op": "check.decode", "inputs": {"images": f"n{(i + 1) % 100}"}} for i in range(100)]
    assert "n0 → n99 → n98" in detail({"name": "w", "nodes": nodes}, catalogue)
    assert len(detail({"name": "w", "nodes": nodes}, catalogue)) < 400


def test_every_cycle_is_reported(catalogue: Catalogue) -> None:
    pairs = [("a", "b"), ("b", "a"), ("c", "d"), ("d", "c")]
    document = workflow(*({"id": n, "op": "check.decode", "inputs": {"images": other}} for n, other in pairs))
    assert found(document, catalogue) == [("/nodes/1", "CYCLE"), ("/nodes/3", "CYCLE")]


def test_reference_to_items_is_refused_where_a_value_is_needed(catalogue: Catalogue) -> None:
    node = {"id": "t", "op": "value.template", "params": {"text": "${nodes.photos.value.count}"}}
    assert "gives items, not a value" in detail(workflow(node), catalogue)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("${params.number}", None),
        ("${params.text}", "TYPE_MISMATCH"),
        ("${params.number}0", "TYPE_MISMATCH"),
        ("${params.shape.width}", None),
        ("${params.shape.name}", "TYPE_MISMATCH"),
        ("${params.anything}", None),
        ("${nonsense}", "INVALID_REFERENCE"),
        ("${nodes.sheet.value.width}", None),
        ("${nodes.shet.value.width}", "UNKNOWN_NODE"),
    ],
)
def test_reference_is_checked_for_existence_and_type(catalogue: Catalogue, written: str, reason: str | None) -> None:
    document = workflow(
        {"id": "sheet", "op": "agg.contact_sheet", "inputs": {"images": "photos"}},
        {"id": "n", "op": "image.thumbnail", "inputs": {"images": "photos"}, "params": {"width": written}},
        params={
            "number": {"type": "integer"},
            "text": {"type": "string"},
            "shape": {"type": "object", "properties": {"width": {"type": "integer"}, "name": {"type": "string"}}},
            "anything": {},
        },
    )
    assert found(document, catalogue) == ([("/nodes/2/params/width", reason)] if reason else [])


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("x", '"x" is not of type integer'),
        (0, "0 is below the minimum of 1"),
        ("${params.text}", "${params.text} is of type string, but debug.limit@1 takes integer or null here"),
    ],
)
def test_optional_param_is_complained_about_by_its_type(catalogue: Catalogue, value: Any, sentence: str) -> None:
    schema = {"properties": {"most": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}}}
    limit = OpSpec("debug.limit", 1, OpKind.VALUE, PortType.VALUE, (), schema)
    document = workflow(
        {"id": "n", "op": "debug.limit", "params": {"most": value}}, params={"text": {"type": "string"}}
    )
    assert detail(document, catalogue.merged([limit])) == sentence


def test_item_predicate_is_compiled_at_submit(catalogue: Catalogue) -> None:
    node = {"id": "n", "op": "flow.filter", "inputs": {"items": "photos"}, "params": {"where": "item.width >"}}
    assert found(workflow(node), catalogue) == [("/nodes/1/params/where", "INVALID_CONDITION")]


def test_condition_shows_the_place_of_what_is_unknown(catalogue: Catalogue) -> None:
    node = {
        "id": "n",
        "op": "check.decode",
        "inputs": {"images": "photos"},
        "when": "params.x > 1 && nodes.photos.okay > 0",
    }
    problems = validate(workflow(node), catalogue).problems
    assert [problem.reason for problem in problems] == ["UNKNOWN_PARAM_REFERENCE", "INVALID_CONDITION"]
    assert problems[1].detail.endswith(f"{node['when']}\n{' ' * 16}^")


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({"type": "integer", "minimum": "x"}, ("/params/p/minimum", "INVALID_FIELD")),
        ({"type": "string", "pattern": "(?=x)"}, ("/params/p/pattern", "INVALID_SCHEMA")),
        ({"type": "array", "items": {"$ref": "#"}}, ("/params/p/items/$ref", "INVALID_SCHEMA")),
        ({"type": "array", "items": {"type": "nope"}}, ("/params/p/items/type", "INVALID_SCHEMA")),
        ({"type": "integer", "default": 1, "minimum": 2}, ("/params/p/default", "INVALID_DEFAULT")),
        ({"typ": "integer"}, ("/params/p/typ", "UNKNOWN_FIELD")),
    ],
)
def test_param_declaration_is_checked(
    catalogue: Catalogue, declared: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert found(workflow(params={"p": declared}), catalogue) == [expected]


@pytest.mark.parametrize(
    "field",
    [
        {"priority": 10},
        {"max_failed_ratio": 1.5},
        {"shard_size": 0},
        {"timeout_s": 0},
        {"keep": 1},
        {"on_error": "ignore"},
        {"retry": {"max_attempts": 0}},
        {"limits": {"max_pixels": 0}},
        {"pool": "GPU!"},
    ],
)
def test_value_out_of_range_is_refused(catalogue: Catalogue, field: dict[str, Any]) -> None:
    node = {"id": "n", "op": "check.decode", "inputs": {"images": "photos"}, **field}
    (problem,) = validate(workflow(node), catalogue).problems
    assert problem.pointer.startswith(f"/nodes/1/{next(iter(field))}")
    assert problem.reason == "INVALID_FIELD"


def test_hints_are_accepted(catalogue: Catalogue) -> None:
    node = {"id": "n", "op": "check.decode", "inputs": {"images": "photos"}, "priority": 9, "memo": False}
    assert found(workflow(node), catalogue) == []


def test_secret_reference_is_not_supported_yet(catalogue: Catalogue) -> None:
    node = {"id": "n", "op": "source.folder", "params": {"path": {"secret_ref": "x"}}}
    with pytest.raises(InvalidError) as caught:
        validate(workflow(node), catalogue).require()
    assert caught.value.reason == "NOT_SUPPORTED"


@pytest.mark.parametrize("document", [[], None, 3, "x"])
def test_anything_but_an_object_is_refused(catalogue: Catalogue, document: Any) -> None:
    assert found(document, catalogue) == [("", "NOT_AN_OBJECT")]


def test_values_that_json_does_not_have_are_refused(catalogue: Catalogue) -> None:
    document = workflow(metadata={"a": float("nan"), "b": {1, 2}, "c": 2**64, "d": "\0"})
    expected = [
        ("/metadata/a", "NOT_A_NUMBER"),
        ("/metadata/b", "NOT_JSON"),
        ("/metadata/c", "NUMBER_OUT_OF_RANGE"),
        ("/metadata/d", "INVALID_TEXT"),
    ]
    assert expected == found(document, catalogue)


def test_too_many_nodes_are_refused(catalogue: Catalogue) -> None:
    document = {"name": "w", "nodes": [{"id": f"n{i}", "op": "debug.noop"} for i in range(20_001)]}
    assert found(document, catalogue) == [("/nodes", "TOO_MANY_NODES")]


def test_too_large_document_is_refused(catalogue: Catalogue) -> None:
    document = workflow(metadata={str(i): "x" * 60_000 for i in range(70)})
    with pytest.raises(InvalidError) as caught:
        validate(document, catalogue).require()
    assert caught.value.reason == "TOO_LARGE"


def test_problems_beyond_a_thousand_are_counted(catalogue: Catalogue) -> None:
    document = {"name": "w", "nodes": [{"id": f"n{i}", "op": f"unknown.op{i}"} for i in range(1_500)]}
    problems = validate(document, catalogue).problems
    assert len(problems) == 1_000
    assert problems[-1].detail.startswith("501 further problems")


def test_thousands_of_problems_in_one_object_take_no_time(catalogue: Catalogue) -> None:
    document = workflow(tags={f"t{number}": 1 for number in range(20_000)})
    start = time.process_time()
    problems = validate(document, catalogue).problems
    assert time.process_time() - start < 2.0
    assert [problem.pointer for problem in problems[:2]] == ["/tags/t0", "/tags/t1"]


def test_document_is_not_changed(catalogue: Catalogue, photo_catalog: dict[str, Any]) -> None:
    before = digest_of(photo_catalog)
    plan_workflow(validate(photo_catalog, catalogue).require(), {"source": "x"}, catalogue)
    assert before == digest_of(photo_catalog)


def test_five_thousand_nodes_are_validated_and_planned_within_a_second(catalogue: Catalogue) -> None:
    nodes: list[dict[str, Any]] = [SOURCE]
    for number in range(4_999):
        node: dict[str, Any] = {
            "id": f"n{number}",
            "op": "image.thumbnail",
            "inputs": {"images": "photos" if number % 10 == 0 else f"n{number - 1}"},
            "params": {"width": number + 1, "crop": "none"},
        }
        if number % 10 == 5:
            node["when"] = f"nodes.n{number - 1}.ok > {number}"
        nodes.append(node)
    document = {"name": "big", "nodes": nodes}
    seconds = []
    for _ in range(3):  # the best of three: other processes on the same core slow one run or another
        start = time.process_time()
        plan_workflow(validate(document, catalogue).require(), {}, catalogue)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 1.0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("limits", {"max_frames": 2**31}),
        ("limits", {"memory_mb": 2**40}),
        ("estimated_duration_s", 1e300),
    ],
)
def test_numbers_that_no_message_can_carry_are_refused_with_their_place(
    field: str, value: Any, catalogue: Catalogue
) -> None:
    node = {**SOURCE, field: value}
    place = f"/nodes/0/{field}" + "".join(f"/{name}" for name in (value if isinstance(value, dict) else ()))
    assert [pointer for pointer, _ in found({"name": "w", "nodes": [node]}, catalogue)] == [place]
