from __future__ import annotations

import json
import subprocess
import sys

import jsonschema
import pytest

import pixloom.graph
from pixloom.graph import (
    Catalogue,
    OpKind,
    builtin_catalogue,
    catalogue_from_json,
    catalogue_to_json,
    workflow_json_schema,
)
from pixloom.graph.suggestions import Suggester
from tests.unit.graph.small_catalogue import photo_catalog


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize("name", pixloom.graph.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(pixloom.graph, name) is not None


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        pixloom.graph.nonsense  # noqa: B018


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = loaded_after("import pixloom.graph")
    assert not loaded & {"pydantic", "jsonschema", "yaml", "cel_expr_python"}


def test_libraries_are_loaded_when_they_are_needed() -> None:
    loaded = loaded_after("from pixloom.graph import validate, parse_json, parse_yaml, plan_workflow")
    assert not loaded & {"jsonschema", "yaml", "cel_expr_python"}


def test_catalogue_survives_json(catalogue: Catalogue) -> None:
    data = json.loads(json.dumps(catalogue_to_json(catalogue)))
    assert list(catalogue) == list(catalogue_from_json(data))


def test_builtin_catalogue_can_be_read() -> None:
    assert all(op.kind in OpKind for op in builtin_catalogue())


def test_exported_schema_is_a_schema_and_accepts_the_example() -> None:
    schema = workflow_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert list(validator.iter_errors(photo_catalog())) == []
    assert not validator.is_valid({**photo_catalog(), "nodez": []})


def test_exported_schema_describes_every_field() -> None:
    schema = workflow_json_schema()
    models = [schema, *schema["$defs"].values()]
    bare = [
        name for model in models for name, field in model.get("properties", {}).items() if "description" not in field
    ]
    assert bare == []


def test_suggestions_end_with_their_budget() -> None:
    suggester = Suggester(comparisons=3)
    assert suggester.hint("wdith", ["width"]) == "; did you mean `width`?"
    assert suggester.hint("hieght", ["height", "weight", "freight"]) == ""
