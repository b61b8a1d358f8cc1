"""Whatever a person sends, the answer is a list of problems or a workflow, never a crash."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pixloom.errors import InvalidError
from pixloom.graph import parse_json, parse_yaml, plan_workflow, validate
from tests.unit.graph.small_catalogue import photo_catalog, small_catalogue

CATALOGUE = small_catalogue()
WORDS = st.sampled_from(
    ["", "id", "nodes", "photos", "valid", "thumbs", "x", "${params.source}", "${nodes.valid.value}", "${", "a.b", "\0"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | WORDS | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    for key, child in value.items() if isinstance(value, dict) else enumerate(value):
        found.append((value, key))
        if isinstance(child, (dict, list)):
            found.extend(places(child))
    return found


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_mutated_document_is_refused_or_planned(data: st.DataObject) -> None:
    document = copy.deepcopy(photo_catalog())
    for _ in range(data.draw(st.integers(1, 3))):
        holder, key = data.draw(st.sampled_from(places(document)))
        match data.draw(st.sampled_from(["put", "add", "drop"])):
            case "put":
                holder[key] = data.draw(JSON)
            case "add" if isinstance(holder, dict):
                holder[data.draw(WORDS)] = data.draw(JSON)
            case "add":
                holder.append(data.draw(JSON))
            case _:
                del holder[key]
        if not places(document):
            break
    result = validate(document, CATALOGUE)
    assert (result.spec is None) == bool(result.problems) == (result.sha256 == "")
    for problem in result.problems:
        assert problem.pointer == "" or problem.pointer.startswith("/")
        assert problem.detail
    if result.spec is not None:
        try:
            plan_workflow(result.spec, {"source": "x"}, CATALOGUE)
        except InvalidError as error:
            assert error.reason == "INVALID_PARAMS"  # noqa: PT017


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
        max_leaves=8,
    )
)
def test_json_is_read_as_it_was_written(value: Any) -> None:
    assert parse_json(json.dumps({"v": value}).encode()) == {"v": value}


@given(st.binary(max_size=64) | st.text('{}[]",:\\u00d8ntruefalsNI-1e9 ', max_size=64).map(str.encode))
@settings(max_examples=400)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for parse in (parse_json, parse_yaml):
        try:
            assert isinstance(parse(data), dict)
        except InvalidError as error:
            assert error.problems  # noqa: PT017
