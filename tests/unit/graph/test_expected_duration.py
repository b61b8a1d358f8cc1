"""How long `pixloom plan` says that a run takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pixloom.graph import expected_duration_s, plan_workflow, stage_summaries, validate

if TYPE_CHECKING:
    from pixloom.graph import Catalogue

SLOTS = 4
NUMBERS = {"id": "numbers", "op": "debug.range", "params": {"count": 1000}}
PHOTOS = {"id": "photos", "op": "source.folder", "params": {"path": "p"}}


def item(node: str, source: str, **more: Any) -> dict[str, Any]:
    return {"id": node, "op": "debug.noop", "inputs": {"items": source}, "fuse": False, **more}


def once(node: str, source: str, **more: Any) -> dict[str, Any]:
    return {"id": node, "op": "dedupe.exact", "inputs": {"items": source}, **more}


def expected(catalogue: Catalogue, *nodes: dict[str, Any]) -> float | None:
    document = {"name": "w", "nodes": list(nodes)}
    plan = plan_workflow(validate(document, catalogue).require(), {}, catalogue)
    return expected_duration_s(plan, stage_summaries(plan, catalogue), lambda _: SLOTS)


def cost_s(catalogue: Catalogue, op: str) -> float:
    found = catalogue.get(op)
    assert found is not None
    return found.cost_hint_s


def test_all_slots_share_the_items_and_an_op_over_a_collection_runs_once(catalogue: Catalogue) -> None:
    range_s, noop_s, exact_s = (cost_s(catalogue, op) for op in ("debug.range", "debug.noop", "dedupe.exact"))
    found = expected(catalogue, NUMBERS, item("a", "numbers"), once("b", "a"))
    assert found == pytest.approx(range_s + 1000 * noop_s / SLOTS + exact_s)


def test_what_the_author_expects_counts_along_the_longest_path(catalogue: Catalogue) -> None:
    numbers = {**NUMBERS, "estimated_duration_s": 10}
    long, short = once("long", "numbers", estimated_duration_s=300), once("short", "numbers", estimated_duration_s=20)
    after = {"id": "after", "op": "debug.noop", "dependencies": ["short"], "estimated_duration_s": 500}
    assert expected(catalogue, numbers, long, short) == 310
    assert expected(catalogue, numbers, long, short, after) == 530
    assert expected(catalogue, numbers, item("a", "numbers", estimated_duration_s=90)) == 100


def test_nothing_is_said_where_the_number_of_items_is_not_known_unless_the_author_says_it(catalogue: Catalogue) -> None:
    assert expected(catalogue, PHOTOS, item("a", "photos")) is None
    assert expected(catalogue, {**PHOTOS, "estimated_duration_s": 1}, item("a", "photos", estimated_duration_s=9)) == 10
