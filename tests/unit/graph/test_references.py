from __future__ import annotations

from typing import Any

import pytest

from pixloom.errors import InvalidError
from pixloom.graph import resolve_node_params
from pixloom.graph.references import MalformedReference, references_in, substitute_params

PARAMS: dict[str, Any] = {"w": 512, "name": "cats", "tags": ["a", {"b": 1.5}], "none": None, "odd": "${params.w}"}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("${params.w}", 512),
        ("${params.tags}", ["a", {"b": 1.5}]),
        ("${params.tags.1.b}", 1.5),
        ("${params.none}", None),
        ("w=${params.w}, ${params.name}", "w=512, cats"),
        ("x${params.tags}", 'x["a",{"b":1.5}]'),
        ("$${params.w}", "${params.w}"),
        ("${params.odd}", "${params.w}"),
        ("no reference", "no reference"),
        ({"a": ["${params.w}", {"b": "${params.name}"}]}, {"a": [512, {"b": "cats"}]}),
    ],
)
def test_params_are_replaced_by_value_or_by_text(written: Any, expected: Any) -> None:
    assert expected == substitute_params(written, PARAMS)


@pytest.mark.parametrize("written", ["${params.w.x}", "${params.tags.7}", "${params.nope}"])
def test_reference_that_leads_to_nothing_is_refused(written: str) -> None:
    with pytest.raises(InvalidError) as caught:
        substitute_params(written, PARAMS)
    assert caught.value.reason == "INVALID_PARAMS"


def test_node_values_are_replaced_at_release() -> None:
    params = {"a": "${nodes.n.value}", "b": "${nodes.n.value.url}", "c": "at ${nodes.n.value.size} px", "d": "$${x}"}
    expected = {"a": {"url": "u", "size": 3}, "b": "u", "c": "at 3 px", "d": "${x}"}
    assert expected == resolve_node_params(params, {"n": {"url": "u", "size": 3}})


def test_params_that_look_like_references_stay_text_through_both_passes() -> None:
    written = {"a": "${params.odd}", "b": "${nodes.n.value}", "c": "[${params.odd}]", "d": "$${kept}"}
    first = substitute_params(written, PARAMS)
    expected = {"a": "${params.w}", "b": "${nodes}", "c": "[${params.w}]", "d": "${kept}"}
    assert expected == resolve_node_params(first, {"n": "${nodes}"})


@pytest.mark.parametrize("written", ["${nodes.n.value.nope}", "${nodes.m.value}"])
def test_missing_node_value_is_refused(written: str) -> None:
    with pytest.raises(InvalidError):
        resolve_node_params({"a": written}, {"n": {"url": 1}})


@pytest.mark.parametrize("text", ["${x}", "${}", "${params}", "${nodes.n}", "${nodes.n.ok}", "${params.a b}", "${open"])
def test_malformed_reference_is_found(text: str) -> None:
    assert [type(found) for _, found in references_in({"a": [text]})] == [MalformedReference]
