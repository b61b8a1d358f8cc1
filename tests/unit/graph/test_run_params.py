from __future__ import annotations

from typing import Any

import pytest

from pixloom.errors import InvalidError
from pixloom.graph import WorkflowSpec, resolve_params


def workflow(**params: Any) -> WorkflowSpec:
    return WorkflowSpec.model_validate({"name": "w", "params": params, "nodes": [{"id": "a", "op": "debug.noop"}]})


def refusal(spec: WorkflowSpec, given: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(InvalidError) as caught:
        resolve_params(spec, given)
    assert caught.value.reason == "INVALID_PARAMS"
    return [(problem.pointer, problem.reason) for problem in caught.value.problems]


def test_defaults_are_filled_in_and_given_values_win() -> None:
    spec = workflow(a={"type": "integer", "default": 1}, b={"default": None}, c={"type": "string"})
    assert resolve_params(spec, {"a": 2, "c": "x"}) == {"a": 2, "b": None, "c": "x"}


def test_resolving_twice_changes_nothing() -> None:
    spec = workflow(a={"type": "integer", "default": 1}, c={"type": "string"})
    once = resolve_params(spec, {"c": "x"})
    assert once == resolve_params(spec, once)


def test_everything_wrong_is_reported_at_once() -> None:
    spec = workflow(
        width={"type": "integer", "minimum": 16},
        mode={"enum": ["a", "b"], "default": "a"},
        path={"type": "string"},
        sizes={"type": "array", "items": {"type": "integer"}},
        code={"type": "string", "pattern": "^[a-z]+$"},
    )
    given = {"width": 3, "mode": "c", "widht": 1, "sizes": [1, "x"], "code": "ABC"}
    expected = [
        ("/params", "MISSING_PARAM"),
        ("/params/width", "INVALID_PARAM"),
        ("/params/mode", "INVALID_PARAM"),
        ("/params/widht", "UNKNOWN_PARAM"),
        ("/params/sizes/1", "INVALID_PARAM"),
        ("/params/code", "INVALID_PARAM"),
    ]
    assert expected == refusal(spec, given)


def test_misspelt_param_is_suggested() -> None:
    with pytest.raises(InvalidError, match="did you mean `width`"):
        resolve_params(workflow(width={"type": "integer", "default": 1}), {"widht": 3})


@pytest.mark.parametrize("value", [True, "1", 1.5, None])
def test_integer_takes_integers_only(value: Any) -> None:
    assert refusal(workflow(n={"type": "integer"}), {"n": value}) == [("/params/n", "INVALID_PARAM")]


def test_pattern_matches_in_linear_time() -> None:
    spec = workflow(code={"type": "string", "pattern": "^(a+)+$"})
    assert refusal(spec, {"code": "a" * 5_000 + "!"}) == [("/params/code", "INVALID_PARAM")]
