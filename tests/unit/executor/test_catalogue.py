from __future__ import annotations

from importlib import resources
from typing import Any

import jsonschema
import pytest

from pixloom.errors import InvalidError
from pixloom.graph.catalogue import OpKind
from pixloom_executor.catalogue import builtin_ops_json
from pixloom_executor.registry import Registry


def test_the_list_of_built_in_ops_is_fresh() -> None:
    shipped = (resources.files("pixloom.graph") / "builtin_ops.json").read_bytes()
    assert shipped == builtin_ops_json(), "run `python -m pixloom_executor.catalogue`"


@pytest.mark.parametrize("spec", Registry.load().specs(), ids=lambda spec: spec.ref)
def test_every_op_is_documented_and_has_a_valid_schema(spec: Any) -> None:
    jsonschema.Draft202012Validator.check_schema(spec.params_schema)
    assert spec.summary.endswith(".")
    for name, schema in spec.params_schema["properties"].items():
        assert schema.get("description"), f"{spec.ref}: param {name} has no description"
    assert bool(spec.inputs) != (spec.kind is OpKind.SOURCE)


def test_a_module_that_cannot_be_imported_is_named() -> None:
    with pytest.raises(InvalidError, match=r"no\.such\.module"):
        Registry.load(["no.such.module"])


def test_a_module_without_ops_is_refused() -> None:
    with pytest.raises(InvalidError, match="has no op"):
        Registry.load(["json"])
