"""What the command line shows and writes of jobs and workflows on a server, and what it says of bad input."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.support.command_line import pixloom
from tests.support.engine import Engine, running_engine
from tests.support.photo_folder import photo_paths

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("cli-results")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    folder = tmp_path_factory.mktemp("engine")
    photos = folder / "photos"
    photos.mkdir()
    for path in photo_paths()[:3]:
        shutil.copy(path, photos)
    async with running_engine(folder, source_roots=[photos]) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def job(engine: Engine) -> str:
    photos = {"op": "source.folder", "params": {"path": str(engine.stack.options.source_roots[0])}}
    small = {"op": "image.thumbnail", "inputs": {"images": "photos"}, "params": {"width": 32}}
    nodes = ({"id": "photos", **photos}, {"id": "small", **small})
    ended = await engine.run(*nodes, outputs={"records": "photos", "small": "small"})
    assert ended.state == "COMPLETED"
    return ended.id


async def test_outputs_are_written_as_files_and_lines(engine: Engine, job: str, tmp_path: Path) -> None:
    said = await pixloom(engine, "-o", "json", "results", job, "--out", str(tmp_path))

    assert said.json == {"files": {"records": f"{tmp_path}/{job}/records.jsonl", "small": f"{tmp_path}/{job}/small"}}
    lines = (tmp_path / job / "records.jsonl").read_text().splitlines()
    assert len(lines) == len(list((tmp_path / job / "small").iterdir())) == 3
    assert {json.loads(line)["state"] for line in lines} == {"OK"}


async def test_outputs_that_cannot_be_written_are_one_sentence(engine: Engine, job: str, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    refused = await pixloom(engine, "results", job, "--out", str(tmp_path / "taken"))
    assert (refused.code, refused.out, len(refused.err.splitlines())) == (2, "", 1)
    assert "is no folder" in refused.err

    (tmp_path / job).mkdir()
    (tmp_path / job / "small").touch()
    failed = await pixloom(engine, "results", job, "--out", str(tmp_path))
    assert (failed.code, failed.out, len(failed.err.splitlines())) == (1, "", 1)
    assert f"{tmp_path}/{job}/small/" in failed.err


@pytest.mark.parametrize("nodes", [{"a": 1}, ["a"], [{"op": "source.folder", "params": None}]])
async def test_plan_of_a_document_that_is_none_tells_what_is_wrong(
    engine: Engine, tmp_path: Path, nodes: object
) -> None:
    (tmp_path / "w.json").write_text(json.dumps({"name": "w", "nodes": nodes}))

    said = await pixloom(engine, "plan", str(tmp_path / "w.json"))

    assert (said.code, said.out) == (2, "")
    assert "/nodes" in said.err
    assert "Traceback" not in said.err


async def test_a_workflow_that_never_was_has_no_versions(engine: Engine) -> None:
    said = await pixloom(engine, "workflows", "versions", "never")

    assert (said.code, said.out) == (2, "")
    assert "there is no workflow never" in said.err


async def test_an_output_that_takes_ascii_only_is_no_reason_to_fail(engine: Engine, tmp_path: Path) -> None:
    nodes = [
        {"id": "numbers", "op": "debug.range", "params": {"count": 1}},
        {"id": "one", "op": "debug.noop", "inputs": {"items": "numbers"}},
        {"id": "two", "op": "debug.noop", "inputs": {"items": "one"}},
    ]
    (tmp_path / "w.json").write_text(json.dumps({"name": "w", "nodes": nodes}))

    said = await pixloom(engine, "plan", str(tmp_path / "w.json"), PYTHONIOENCODING="ascii")

    assert (said.code, said.err) == (0, "")
    assert "one \\u2192 two" in said.out
