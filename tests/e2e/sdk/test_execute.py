"""`JobDefinition.execute` on an embedded stack: results stay readable after the stack has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pyvips

from pixloom import DAG, ArtifactResult, CollectionResult, JobDefinition, JobFailedError, node
from pixloom.errors import InvalidError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIXLOOM_SERVER", "embedded")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for index in range(3):
        pyvips.Image.black(300 + index, 200).pngsave(str(tmp_path / "photos" / f"{index}.png"))
    return tmp_path


async def test_results_are_values_artifacts_and_collections(workplace: Path) -> None:
    dag = DAG("thumbs")
    photos = dag.add(node("photos", "source.folder", path="photos"))
    small = dag.add(node("small", "image.thumbnail", images=photos, width=30))
    dag.add(node("sheet", "agg.contact_sheet", images=small))

    results = await JobDefinition(name="batch_1", dag=dag, tags={"release": "v1"}).execute()

    assert set(results) == {"photos", "small", "sheet"}
    assert isinstance(results["small"], CollectionResult)
    assert [item.key for item in results["small"]] == ["0.png", "1.png", "2.png"]
    assert len(results["small"]) == 3
    assert isinstance(results["sheet"], ArtifactResult)
    saved = results["sheet"].save(workplace / "sheet.jpg")
    assert pyvips.Image.new_from_file(str(saved)).width > 100


async def test_failed_job_raises_with_the_node_and_its_reason(workplace: Path) -> None:
    dag = DAG("broken")
    dag.add(node("photos", "source.folder", path=str(workplace / "nowhere")))

    with pytest.raises(JobFailedError, match="at node photos") as raised:
        await JobDefinition(name="broken", dag=dag).execute()
    assert raised.value.job.error is not None
    assert raised.value.job.error.node == "photos"


async def test_workflow_that_is_not_valid_names_every_place(workplace: Path) -> None:
    dag = DAG("bad")
    dag.add(node("photos", "source.foldr", path="photos"))

    with pytest.raises(InvalidError) as raised:
        await JobDefinition(name="bad", dag=dag).execute()
    assert [problem.pointer for problem in raised.value.problems] == ["/nodes/0/op"]
