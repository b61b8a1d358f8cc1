"""What holds of every plan, over random acyclic workflows of all kinds of ops."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pixloom.graph import (
    Catalogue,
    OpKind,
    Plan,
    StageKind,
    plan_from_json,
    plan_to_json,
    plan_workflow,
    stage_summaries,
    validate,
)
from pixloom.graph.cycles import find_cycles, topological_order
from tests.unit.graph.small_catalogue import small_catalogue

CATALOGUE: Catalogue = small_catalogue()
ITEM_OPS = ("check.decode", "infer.label", "store.copy", "debug.noop", "flow.filter", "tiles.cut")
PARAMS: dict[str, dict[str, Any]] = {
    "store.copy": {"dest": "${params.where}"},
    "flow.filter": {"where": "item.width > 1"},
}
RETRIES: list[dict[str, Any]] = [{}, {"max_attempts": 2}]


@st.composite
def workflows(draw: st.DrawFn) -> dict[str, Any]:
    """Return a valid document whose nodes are in random order."""
    nodes: list[dict[str, Any]] = []
    carriers: list[str] = []
    values: list[str] = []
    for number in range(draw(st.integers(1, 14))):
        kinds = ["source", "value", *(["item"] * 5 + ["collection", "sheet"] if carriers else [])]
        kind = draw(st.sampled_from(kinds))
        node: dict[str, Any] = {"id": f"n{number}"}
        earlier = [other["id"] for other in nodes]
        if kind == "source":
            node |= {"op": "source.folder", "params": {"path": "p"}}
        elif kind == "value":
            node |= {"op": "value.template", "params": {}}
            if len(values) > 0 and draw(st.booleans()):
                node["params"]["text"] = f"${{nodes.{draw(st.sampled_from(values))}.value.url}}"
        else:
            ops = {"item": ITEM_OPS, "collection": ("dedupe.exact",), "sheet": ("agg.contact_sheet",)}[kind]
            op = draw(st.sampled_from(ops))
            many: list[str] = draw(st.lists(st.sampled_from(carriers), min_size=1, max_size=3))
            # Mostly the newest node, so that chains are made.
            feeding: str | list[str] = many if draw(st.integers(0, 3)) == 0 else carriers[-1]
            node |= {"op": op, "inputs": {"items": feeding}, "params": dict(PARAMS.get(op, {}))}
        if earlier and draw(st.integers(0, 5)) == 0:
            node["dependencies"] = draw(st.lists(st.sampled_from(earlier), max_size=2))
        if earlier and draw(st.integers(0, 5)) == 0:
            node["when"] = f"nodes.{draw(st.sampled_from(earlier))}.ok > 0"
        for field, choice in (
            ("fuse", st.just(False)),
            ("keep", st.just(True)),
            ("retry", st.sampled_from(RETRIES)),
            ("shard_size", st.integers(1, 2)),
            ("pool", st.sampled_from(["cpu", "gpu"])),
            ("max_failed_ratio", st.sampled_from([0.0, 0.5, 1.0])),
        ):
            if draw(st.integers(0, 5)) == 0:
                node[field] = draw(choice)
        nodes.append(node)
        if kind in {"source", "item", "collection"}:
            carriers.append(node["id"])
        else:
            values.append(node["id"])
    outputs = draw(st.dictionaries(st.sampled_from("abc"), st.sampled_from([node["id"] for node in nodes]), max_size=2))
    return {
        "name": "w",
        "params": {"where": {"type": "string", "default": "x"}},
        "nodes": draw(st.permutations(nodes)),
        "outputs": outputs,
    }


def planned(document: dict[str, Any]) -> Plan:
    return plan_workflow(validate(document, CATALOGUE).require(), {}, CATALOGUE)


@given(workflows())
@settings(max_examples=200, deadline=None)
def test_every_node_is_in_exactly_one_stage_and_stages_are_in_order(document: dict[str, Any]) -> None:
    plan = planned(document)
    placed = [place for stage in plan.stages for place in stage.nodes]
    assert sorted(placed) == list(range(len(plan.nodes)))
    for stage in plan.stages:
        assert stage.index == plan.stages.index(stage)
        assert all(plan.nodes[place].stage == stage.index for place in stage.nodes)
        assert all(edge.producer < stage.index for edge in stage.inputs)
        assert all(plan.nodes[place].stage < stage.index for place in stage.after)
        for place in stage.nodes:
            assert all(plan.nodes[other].stage <= stage.index for other in plan.nodes[place].needs)


@given(workflows())
@settings(max_examples=200, deadline=None)
def test_fused_nodes_lose_nothing(document: dict[str, Any]) -> None:
    plan = planned(document)
    written = {node["id"]: node for node in document["nodes"]}
    readers: dict[str, int] = {}
    for node in document["nodes"]:
        for feeding in node.get("inputs", {}).values():
            for source in [feeding] if isinstance(feeding, str) else feeding:
                readers[source] = readers.get(source, 0) + 1
    for stage in plan.stages:
        ids = [plan.nodes[place].id for place in stage.nodes]
        for earlier, later in pairwise(ids):
            before, after = written[earlier], written[later]
            op_before, op_after = CATALOGUE.get(before["op"]), CATALOGUE.get(after["op"])
            assert op_before is not None
            assert op_after is not None
            assert {op_before.kind, op_after.kind} == {OpKind.ITEM}
            assert after["inputs"]["items"] in (earlier, [earlier])
            assert readers[earlier] == 1
            assert before.get("pool", op_before.pool) == after.get("pool", op_after.pool) == stage.pool
            assert before.get("retry", {}).get("max_attempts", 4) == after.get("retry", {}).get("max_attempts", 4)
            assert "when" not in after
            assert not after.get("dependencies")
            assert before.get("fuse", True)
            assert after.get("fuse", True)
            assert not op_before.external_effect
            assert not op_after.external_effect
            assert not op_before.expands
            assert after.get("shard_size", stage.shard_size) == stage.shard_size


@given(workflows())
@settings(max_examples=100, deadline=None)
def test_stages_that_must_not_run_ahead_wait_for_what_may_fail(document: dict[str, Any]) -> None:
    plan = planned(document)
    for stage in plan.stages:
        head = plan.nodes[stage.nodes[0]]
        op = CATALOGUE.get(head.op)
        assert op is not None
        if op.kind in {OpKind.COLLECTION, OpKind.VALUE} or op.external_effect:
            for edge in stage.inputs:
                producer = plan.stages[edge.producer]
                if any(plan.nodes[place].max_failed_ratio < 1 for place in producer.nodes):
                    assert set(producer.nodes) <= set(stage.after)
        if stage.kind is StageKind.MAPPED:
            assert stage.inputs


@given(workflows())
@settings(max_examples=100, deadline=None)
def test_plan_is_deterministic_and_survives_json(document: dict[str, Any]) -> None:
    plan = planned(document)
    assert plan == planned(json.loads(json.dumps(document)))
    assert plan == plan_from_json(plan_to_json(plan))
    assert len(stage_summaries(plan, CATALOGUE)) == len(plan.stages)


@given(workflows(), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_digest_does_not_depend_on_the_order_of_keys(document: dict[str, Any], random: Any) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            keys = list(value)
            random.shuffle(keys)
            return {key: shuffled(value[key]) for key in keys}
        return [shuffled(child) for child in value] if isinstance(value, list) else value

    assert validate(document, CATALOGUE).sha256 == validate(shuffled(document), CATALOGUE).sha256


GRAPHS = st.integers(1, 8).flatmap(
    lambda size: st.lists(st.lists(st.integers(0, size - 1), unique=True, max_size=3), min_size=size, max_size=size)
)


@given(GRAPHS)
def test_cycles_are_found_exactly_where_there_are_some(needs: list[list[int]]) -> None:
    cycles = find_cycles(needs)
    assert bool(cycles) == (len(topological_order(needs)) < len(needs))
    for cycle in cycles:
        assert len(set(cycle)) == len(cycle)
        for earlier, later in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            assert earlier in needs[later]
