"""What people and other programs hold on to, reviewed as diffs; PIXLOOM_UPDATE_GOLDEN=1 writes the files anew."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pixloom.graph import plan_to_json, plan_workflow, stage_summaries, validate, workflow_json_schema
from tests.unit.graph.small_catalogue import photo_catalog, small_catalogue

HERE = Path(__file__).parent


def plan_of_photo_catalog() -> Any:
    catalogue = small_catalogue()
    plan = plan_workflow(validate(photo_catalog(), catalogue).require(), {"source": "photos"}, catalogue)
    boundaries = [f"{' + '.join(stage.nodes)}: {stage.boundary}" for stage in stage_summaries(plan)]
    return {"plan": json.loads(plan_to_json(plan)), "boundaries": boundaries}


def digest_of_photo_catalog() -> Any:
    return {"sha256": validate(photo_catalog(), small_catalogue()).sha256}


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("workflow.v1.schema.json", workflow_json_schema),
        ("photo-catalog.plan.json", plan_of_photo_catalog),
        ("photo-catalog.digest.json", digest_of_photo_catalog),
    ],
)
def test_output_is_as_reviewed(name: str, make: Any) -> None:
    made = json.dumps(make(), indent=2, ensure_ascii=False) + "\n"
    path = HERE / name
    if os.environ.get("PIXLOOM_UPDATE_GOLDEN") == "1":
        path.write_text(made, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == made
