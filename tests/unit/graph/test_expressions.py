from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pixloom.errors import InvalidError
from pixloom.graph import compile_condition, item_bindings

NODES: dict[str, Any] = {"valid": {"state": "COMPLETED", "ok": 3, "filtered": 0, "rejected": 1, "value": None}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nodes.valid.ok > 0", True),
        ("nodes.valid.ok > 2.5", True),
        ('nodes["valid"].rejected == 0', False),
        ("nodes.valid.state == 'COMPLETED' && params.width >= 512", True),
        ("has(nodes.valid.ok)", True),
        ("nodes.valid.value == null", True),
        ("size(params.tags) == 2 && 'a' in params.tags", True),
    ],
)
def test_when_is_decided_on_nodes_and_params(text: str, *, expected: bool) -> None:
    condition = compile_condition(text, "when")
    assert expected == condition.evaluate({"nodes": NODES, "params": {"width": 512, "tags": ["a", "b"]}})


def test_item_predicate_sees_record_fields_and_attributes() -> None:
    bindings = item_bindings({"width": 200, "key": "a.jpg", "duration_ms": 3}, {"sharpness": 0.7, "width": 1})
    text = "item.width == 200 && item.sharpness > 0.5 && item.attributes.width == 1 && !has(item.duration_ms)"
    assert compile_condition(text, "item").evaluate(bindings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes.a.ok >", r"line 1, column 13.*\nnodes.a.ok >\n            \^"),
        ("true &&\n nodez.a", r"line 2, column \d+.*nodez.*\n nodez.a\n +\^\n.*`nodes` and `params`"),
        ("nodes.a.value.exists(x, x > 1)", "macros all, exists"),
        ("'a'.matches('b')", "`matches` and the macros"),
        ("1 + 1", "gives INT, not true or false"),
        ("'1' > 2", "no matching overload"),
        ("${params.x} > 1", r"write `params\.x`"),
        ("item.width > 1", "undeclared reference"),
        ("", "does not compile"),
        ("true || " * 600 + "true", "at most 4,096"),
    ],
)
def test_condition_that_does_not_compile_shows_the_place(text: str, message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        compile_condition(text, "when")


@pytest.mark.parametrize(
    "text",
    [
        "(" * 2000 + "1" + ")" * 2000,
        "[" * 2000 + "1" + "]" * 2000,
        "a." * 2000,
        "1+" * 2000 + "1 > 0",
        "'" + "x" * 4000,
    ],
)
def test_hostile_condition_is_refused_with_a_short_message(text: str) -> None:
    with pytest.raises(InvalidError, match="does not compile") as caught:
        compile_condition(text, "when")
    assert len(caught.value.message) < 2_000


def test_complaint_about_a_macro_leaves_out_its_variable() -> None:
    with pytest.raises(InvalidError) as caught:
        compile_condition("nodes.a.value.exists(x, x > 1)", "when")
    assert "'x'" not in caught.value.message


def test_item_predicate_cannot_read_nodes() -> None:
    with pytest.raises(InvalidError, match="can read `item` here"):
        compile_condition("nodes.a.ok > 0", "item")


@pytest.mark.parametrize("text", ["item.sharpness > 0.5", "item.key > 3", "item.key"])
def test_condition_that_cannot_be_decided_raises(text: str) -> None:
    with pytest.raises(InvalidError, match="cannot be decided"):
        compile_condition(text, "item").evaluate({"item": {"key": "a"}})


def test_node_ids_are_found_outside_of_strings_and_comments() -> None:
    text = """nodes.a.ok > 0 && nodes["b-c"].value.size() > 1 || params.x == 'nodes.d.ok' // nodes.e.ok"""
    assert compile_condition(text, "when").node_ids == ("a", "b-c")


def test_condition_can_be_decided_in_several_threads() -> None:
    def decide(number: int) -> bool:
        return compile_condition("item.number % 2 == 0 && item.text.size() > 3", "item").evaluate(
            {"item": {"number": number, "text": "long enough"}}
        )

    with ThreadPoolExecutor(max_workers=4) as threads:
        assert list(threads.map(decide, range(2_000))) == [number % 2 == 0 for number in range(2_000)]


def test_same_text_is_compiled_once() -> None:
    assert compile_condition("nodes.once.ok > 0", "when") is compile_condition("nodes.once.ok > 0", "when")
