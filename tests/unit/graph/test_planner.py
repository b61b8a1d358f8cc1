from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from pixloom.errors import InvalidError
from pixloom.graph import StageKind, plan_from_json, plan_to_json, plan_workflow, stage_summaries, validate
from pixloom.graph.plan import Edge, OnError, RetryPolicy

if TYPE_CHECKING:
    from pixloom.graph import Catalogue, Plan

SOURCE = {"id": "photos", "op": "source.folder", "params": {"path": "p"}}


def planned(catalogue: Catalogue, *nodes: dict[str, Any], **more: Any) -> Plan:
    result = validate({"name": "w", "nodes": [SOURCE, *nodes], **more}, catalogue)
    return plan_workflow(result.require(), {}, catalogue)


def decode(node: str, source: str | list[str], **more: Any) -> dict[str, Any]:
    return {"id": node, "op": "check.decode", "inputs": {"images": source}, **more}


def stages(plan: Plan) -> list[list[str]]:
    return [[plan.nodes[place].id for place in stage.nodes] for stage in plan.stages]


def test_item_ops_in_a_row_share_a_stage(catalogue: Catalogue) -> None:
    plan = planned(catalogue, decode("a", "photos"), decode("b", "a"), decode("c", "b"))
    assert stages(plan) == [["photos"], ["a", "b", "c"]]
    assert [stage.kind for stage in plan.stages] == [StageKind.SOURCE, StageKind.MAPPED]
    assert plan.stages[1].inputs == (Edge(producer=0, port="images"),)


@pytest.mark.parametrize(
    ("first", "second", "boundary"),
    [
        ({}, {"fuse": False}, "fuse: false"),
        ({"fuse": False}, {}, "fuse: false on a"),
        ({}, {"pool": "gpu"}, "pool gpu"),
        ({}, {"retry": {"max_attempts": 5}}, "another retry policy"),
        ({}, {"when": "nodes.photos.ok > 0"}, "when"),
        ({}, {"when": "true"}, "when"),
        ({}, {"dependencies": ["photos"]}, "dependencies"),
        ({}, {"shard_size": 1}, "another shard_size"),
        ({"shard_size": 2}, {"shard_size": 1}, "another shard_size"),
    ],
)
def test_nodes_that_differ_are_not_fused(
    catalogue: Catalogue, first: dict[str, Any], second: dict[str, Any], boundary: str
) -> None:
    plan = planned(catalogue, decode("a", "photos", **first), decode("b", "a", **second))
    assert stages(plan) == [["photos"], ["a"], ["b"]]
    assert plan.stages[2].boundary == boundary


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"retry": {}}, {"retry": {"max_attempts": 4}}),
        ({"pool": "cpu"}, {}),
        ({"shard_size": 2}, {}),
        ({"shard_size": 2}, {"shard_size": 2}),
        ({"when": "nodes.photos.ok > 0"}, {}),
        ({"dependencies": ["photos"]}, {}),
        ({"keep": True}, {"keep": True}),
        ({"max_failed_ratio": 0.1, "on_error": "skip", "timeout_s": 5}, {}),
    ],
)
def test_nodes_that_run_alike_are_fused(catalogue: Catalogue, first: dict[str, Any], second: dict[str, Any]) -> None:
    plan = planned(catalogue, decode("a", "photos", **first), decode("b", "a", **second))
    assert stages(plan) == [["photos"], ["a", "b"]]


def test_node_with_two_readers_ends_its_stage(catalogue: Catalogue) -> None:
    plan = planned(catalogue, decode("a", "photos"), decode("b", "a"), decode("c", "a"))
    assert stages(plan) == [["photos"], ["a"], ["b"], ["c"]]
    assert plan.stages[2].boundary == "a is read by 2 nodes"


def test_concatenation_keeps_the_order_of_the_list(catalogue: Catalogue) -> None:
    plan = planned(catalogue, decode("a", "photos"), decode("b", "photos"), decode("c", ["b", "a", "b"]))
    expected = (Edge(2, "images", 0), Edge(1, "images", 1), Edge(2, "images", 2))
    assert expected == plan.stages[3].inputs
    assert plan.stages[3].boundary == "several inputs"


def test_external_effect_is_never_fused(catalogue: Catalogue) -> None:
    copy = {"id": "copy", "op": "store.copy", "inputs": {"images": "a"}, "params": {"dest": "x"}}
    plan = planned(catalogue, decode("a", "photos"), copy, decode("b", "copy"))
    assert stages(plan) == [["photos"], ["a"], ["copy"], ["b"]]


def test_a_stage_ends_behind_an_op_that_may_make_several_items_of_one(catalogue: Catalogue) -> None:
    cut = {"id": "cut", "op": "tiles.cut", "inputs": {"items": "a"}}
    plan = planned(catalogue, decode("a", "photos"), cut, decode("b", "cut"), decode("c", "b"))
    assert stages(plan) == [["photos"], ["a", "cut"], ["b", "c"]]
    assert plan.stages[2].boundary == "cut may make several items of one"
    assert [node.expands for node in plan.nodes] == [False, False, True, False, False]


def test_a_plan_that_does_not_say_which_ops_expand_can_still_be_read(catalogue: Catalogue) -> None:
    plan = planned(catalogue, decode("a", "photos"), decode("b", "a"))
    stored = orjson.loads(plan_to_json(plan))
    for node in stored["nodes"]:
        del node["expands"]
    read = plan_from_json(orjson.dumps(stored))
    assert read.stages == plan.stages
    assert all(node.expands for node in read.nodes)


def test_kept_and_named_nodes_inside_a_stage_are_delivered(catalogue: Catalogue) -> None:
    plan = planned(
        catalogue,
        decode("a", "photos", keep=True),
        decode("b", "a"),
        decode("c", "b"),
        decode("d", "c"),
        outputs={"x": "c.images"},
    )
    assert stages(plan) == [["photos"], ["a", "b", "c", "d"]]
    assert [node.deliver for node in plan.nodes] == [False, True, False, True, False]
    assert plan.outputs == {"x": 3}


def test_when_dependencies_and_references_are_waited_for(catalogue: Catalogue) -> None:
    plan = planned(
        catalogue,
        decode("a", "photos", when="nodes.photos.ok > 0"),
        {"id": "sheet", "op": "agg.contact_sheet", "inputs": {"images": "photos"}},
        {
            "id": "text",
            "op": "value.template",
            "params": {"text": "${nodes.sheet.value.url}"},
            "dependencies": ["a"],
        },
    )
    by_id = {node.id: node for node in plan.nodes}
    assert plan.stages[by_id["a"].stage].after == (0,)
    assert by_id["a"].dependencies == ()
    assert plan.stages[by_id["text"].stage].after == (1, 2)
    assert by_id["text"].dependencies == ("a", "sheet")
    assert by_id["text"].needs == (1, 2)
    assert by_id["text"].dynamic
    assert not by_id["sheet"].dynamic


def test_collection_op_waits_for_the_end_of_what_may_still_fail(catalogue: Catalogue) -> None:
    plan = planned(
        catalogue,
        decode("a", "photos"),
        decode("b", "a", max_failed_ratio=0.2),
        decode("c", "b", fuse=False),
        {"id": "sheet", "op": "agg.contact_sheet", "inputs": {"images": "c"}},
        {"id": "list", "op": "agg.manifest", "inputs": {"items": "b"}},
        {"id": "copy", "op": "store.copy", "inputs": {"images": "c"}, "params": {"dest": "x"}},
    )
    after = {plan.nodes[stage.nodes[0]].id: stage.after for stage in plan.stages}
    expected = {"photos": (), "a": (), "c": (), "sheet": (1, 2), "list": (1, 2), "copy": (1, 2)}
    assert expected == after


def test_value_that_flows_into_a_mapped_stage_is_waited_for(catalogue: Catalogue) -> None:
    plan = planned(
        catalogue,
        {"id": "limit", "op": "value.template"},
        {"id": "n", "op": "image.compare", "inputs": {"threshold": "limit", "images": "photos"}},
    )
    stage = plan.stages[plan.nodes[2].stage]
    assert stage.kind is StageKind.MAPPED
    assert [(edge.port, edge.producer) for edge in stage.inputs] == [("images", 0), ("threshold", 1)]
    assert stage.after == (1,)


def test_item_op_without_inputs_runs_once(catalogue: Catalogue) -> None:
    plan = planned(catalogue, {"id": "once", "op": "debug.noop"})
    assert plan.stages[1].kind is StageKind.WHOLE


def test_params_are_resolved_with_their_types(catalogue: Catalogue) -> None:
    node = {
        "id": "t",
        "op": "image.thumbnail",
        "inputs": {"images": "photos"},
        "params": {"width": "${params.width}", "height": "${params.shape.h}"},
    }
    declared = {"width": {"type": "integer"}, "shape": {"default": {"h": 480}}}
    result = validate({"name": "w", "params": declared, "nodes": [SOURCE, node]}, catalogue)
    plan = plan_workflow(result.require(), {"width": 640}, catalogue)
    assert plan.nodes[1].params == {"width": 640, "height": 480}


def test_resolved_params_are_checked_against_the_op(catalogue: Catalogue) -> None:
    document = {
        "name": "w",
        "params": {"width": {"type": "integer"}},
        "nodes": [
            SOURCE,
            {
                "id": "t",
                "op": "image.thumbnail",
                "inputs": {"images": "photos"},
                "params": {"width": "${params.width}"},
            },
        ],
    }
    spec = validate(document, catalogue).require()
    with pytest.raises(InvalidError) as caught:
        plan_workflow(spec, {"width": 70_000}, catalogue)
    assert caught.value.reason == "INVALID_PARAMS"
    assert [problem.pointer for problem in caught.value.problems] == ["/nodes/1/params/width"]


def test_node_carries_what_the_workflow_says(catalogue: Catalogue) -> None:
    plan = planned(
        catalogue,
        decode(
            "a",
            "photos",
            on_error="fail",
            max_failed_ratio=0,
            timeout_s=5,
            estimated_duration_s=9,
            limits={"max_pixels": 10, "memory_mb": 64},
            retry={"max_attempts": 2},
            shard_size=7,
        ),
        timeout_s=100,
    )
    node, stage = plan.nodes[1], plan.stages[1]
    assert node.op == "check.decode@1"
    assert node.on_error is OnError.FAIL
    assert (node.max_failed_ratio, node.timeout_s, node.estimated_duration_s) == (0.0, 5.0, 9)
    assert node.limits == {"max_pixels": 10, "memory_mb": 64}
    assert stage.retry == RetryPolicy(max_attempts=2)
    assert stage.shard_size == 7
    assert plan.timeout_s == 100


def test_nodes_may_be_listed_in_any_order(catalogue: Catalogue) -> None:
    document = {"name": "w", "nodes": [decode("b", "a"), decode("a", "photos"), SOURCE]}
    plan = plan_workflow(validate(document, catalogue).require(), {}, catalogue)
    assert stages(plan) == [["photos"], ["a", "b"]]
    assert [node.id for node in plan.nodes] == ["b", "a", "photos"]


def test_plan_survives_json(catalogue: Catalogue, photo_catalog: dict[str, Any]) -> None:
    plan = plan_workflow(validate(photo_catalog, catalogue).require(), {"source": "x"}, catalogue)
    assert plan == plan_from_json(plan_to_json(plan))


def test_counts_are_shown_where_they_are_known(catalogue: Catalogue) -> None:
    document = {
        "name": "w",
        "nodes": [
            {"id": "numbers", "op": "debug.range", "params": {"count": 10}},
            {"id": "a", "op": "debug.noop", "inputs": {"items": "numbers"}, "shard_size": 3, "fuse": False},
            {"id": "b", "op": "debug.noop", "inputs": {"items": "a"}},
            {"id": "c", "op": "dedupe.exact", "inputs": {"items": "b"}},
        ],
    }
    plan = plan_workflow(validate(document, catalogue).require(), {}, catalogue)
    expected = [
        (("numbers",), 10, None, False),
        (("a",), 10, 4, False),
        # Ops may drop items or make several, and the scheduler cuts by the cost it measures.
        (("b",), 10, 1, True),
        (("c",), 10, 1, True),
    ]
    assert expected == [
        (stage.nodes, stage.items, stage.tasks, stage.estimated) for stage in stage_summaries(plan, catalogue)
    ]
    assert [stage.items for stage in stage_summaries(plan)] == [None] * 4


def test_counts_that_somebody_made_go_through_the_plan_as_estimates(catalogue: Catalogue) -> None:
    plan = planned(catalogue, decode("a", "photos", shard_size=4), decode("b", "a", fuse=False))

    summaries = stage_summaries(plan, catalogue, source_items={"photos": 10})

    assert [(stage.items, stage.tasks, stage.estimated) for stage in summaries] == [
        (10, None, True),
        (10, 3, True),
        (10, 1, True),
    ]
