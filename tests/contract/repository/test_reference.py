"""docs/reference says what the code says."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import jsonschema
import pytest

from pixloom.errors import REASONS
from pixloom.graph import builtin_catalogue
from pixloom.settings import ALL_SETTINGS
from pixloom_scheduler.core.states import NODE_TRANSITIONS
from tests.support.repository import ROOT
from tools.reference.pages import PAGES, REFERENCE

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", PAGES)
def test_page_is_fresh(name: str) -> None:
    assert (REFERENCE / name).read_text(encoding="utf-8") == PAGES[name](), "run `make docs`"


def test_nothing_else_lies_among_the_generated_pages() -> None:
    assert sorted(path.name for path in REFERENCE.iterdir()) == sorted(PAGES)


def test_pages_do_not_depend_on_the_process_that_writes_them(tmp_path: Path) -> None:
    environment = {"PYTHONHASHSEED": "7", "PIXLOOM_LOG_LEVEL": "debug", "COLUMNS": "40", "LC_ALL": "C"}
    words = [sys.executable, "-m", "tools.reference", str(tmp_path)]
    subprocess.run(words, cwd=ROOT, env=environment, check=True, timeout=60)
    assert [name for name in PAGES if (tmp_path / name).read_bytes() != (REFERENCE / name).read_bytes()] == []


def test_reference_is_complete() -> None:
    text = {name: (REFERENCE / name).read_text(encoding="utf-8") for name in PAGES}
    fields = {f"PIXLOOM_{name.upper()}" for cls in ALL_SETTINGS for name in cls.model_fields}
    moves = [f"{before} --> {after}" for before, afters in NODE_TRANSITIONS.items() for after in afters]

    assert [op.name for op in builtin_catalogue() if f"### {op.name}@{op.version}" not in text["ops.md"]] == []
    assert [name for name in fields if f"`{name}`" not in text["settings.md"]] == []
    assert [reason for reason in REASONS if f"`{reason}`" not in text["errors.md"]] == []
    assert [move for move in moves if move not in text["states.md"]] == []
    assert "| |" not in text["grpc.md"].replace("|  |", "| |"), "an element without a comment"


def test_workflow_schema_accepts_the_built_in_workflows() -> None:
    schema = json.loads((REFERENCE / "workflow.v1.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    documents = sorted((ROOT / "src" / "pixloom" / "workflows").glob("*.json"))
    assert len(documents) > 0
    for path in documents:
        validator.validate(json.loads(path.read_text(encoding="utf-8")))


def test_workflow_schema_does_not_depend_on_what_was_imported_before() -> None:
    code = "import fastapi.openapi.models; from tools.reference.schemas import workflow_schema_page as page; print(page(), end='')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == (REFERENCE / "workflow.v1.schema.json").read_text(encoding="utf-8")
