"""Real photographs, and files that are none, through the whole engine."""

from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any

import orjson
import pytest
import pytest_asyncio
import pyvips

from tests.support.engine import Engine, running_engine
from tests.support.photo_folder import broken_photos, copy_photos

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("engine-photos")]

WIDTH = 96


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder below which all sources of this module lie."""
    return tmp_path_factory.mktemp("photos")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> AsyncIterator[Engine]:
    async with running_engine(
        tmp_path_factory.mktemp("engine"), source_roots=[photos], imports=["tests.support.user_ops"]
    ) as made:
        yield made


def source(path: Path) -> dict[str, Any]:
    return {"id": "photos", "op": "source.folder", "params": {"path": str(path)}}


def check(**more: Any) -> dict[str, Any]:
    return {"id": "valid", "op": "check.decode", "inputs": {"images": "photos"}, **more}


def catalog(path: Path) -> list[dict[str, Any]]:
    return [
        source(path),
        check(),
        {"id": "content", "op": "hash.content", "inputs": {"images": "valid"}},
        {
            "id": "thumbs",
            "op": "image.thumbnail",
            "inputs": {"images": "content"},
            "params": {"width": WIDTH, "size": "down"},
            "keep": True,
        },
        {"id": "looks", "op": "hash.perceptual", "inputs": {"images": "thumbs"}},
        {
            "id": "distinct",
            "op": "dedupe.exact",
            "inputs": {"items": "looks"},
            "params": {"key": "content_sha256"},
        },
        {"id": "sheet", "op": "agg.contact_sheet", "inputs": {"images": "distinct"}, "params": {"columns": 6}},
        {"id": "catalog", "op": "agg.manifest", "inputs": {"items": "distinct"}, "params": {"format": "jsonl"}},
    ]


async def test_every_photo_is_accounted_for_and_its_thumbnail_opens(engine: Engine, photos: Path) -> None:
    folder = photos / "catalog"
    files = copy_photos(folder)
    copies = [folder / f"again-{path.name}" for path in files[:3]]
    for path, copy in zip(files, copies, strict=False):
        shutil.copy(path, copy)
    broken = broken_photos(folder, 4)
    every = {path.name for path in (*files, *copies, *broken)}

    job = await engine.run(
        *catalog(folder), outputs={"sheet": "sheet", "catalog": "catalog", "thumbs": "distinct"}, within_s=60
    )
    assert (job.state, job.error) == ("COMPLETED", None)

    # What entered the graph either reached its end or was filtered or rejected somewhere, once.
    valid = {item.key: item for item in await engine.items(job.id, "valid")}
    assert set(valid) == every
    rejected = {key for key, item in valid.items() if item.state == "REJECTED"}
    assert rejected == {path.name for path in broken}
    distinct = await engine.items(job.id, "distinct")
    ends = Counter({"REJECTED": len(rejected)}) + Counter(str(item.state) for item in distinct)
    assert ends == Counter(OK=len(files), FILTERED=len(copies), REJECTED=len(broken))
    assert sorted([*rejected, *(item.key for item in distinct)]) == sorted(every)
    assert {item.reason for item in distinct if item.state == "FILTERED"} == {"DUPLICATE"}
    nodes = {node.id: node for node in await engine.nodes(job.id)}
    assert {node.state for node in nodes.values()} == {"COMPLETED"}
    assert (nodes["distinct"].items.ok, nodes["distinct"].items.filtered) == (len(files), len(copies))
    assert nodes["valid"].items.rejected == len(broken)
    assert sum(nodes["valid"].reasons.values()) == len(broken)

    sides = {path.name: pyvips.Image.new_from_file(str(path)) for path in files}
    thumbs = [item for item in await engine.items(job.id, "thumbs") if item.state == "OK"]
    assert {item.key for item in thumbs} == every - rejected
    for item in thumbs:
        assert item.sha256 is not None
        thumb = pyvips.Image.new_from_buffer(await engine.client.read_artifact(item.sha256), "")
        whole = sides[item.key.removeprefix("again-")]
        assert (thumb.width, thumb.height) == (item.width, item.height)
        scale = min(1.0, WIDTH / max(whole.width, whole.height))
        assert abs(thumb.width - whole.width * scale) <= 1
        assert abs(thumb.height - whole.height * scale) <= 1
        assert thumb.avg() >= 0  # every pixel can be decoded

    # What a workflow gives out are files, whatever nodes they went through last.
    for item in distinct:
        if item.state == "OK":
            assert item.sha256 in {thumb.sha256 for thumb in thumbs}

    results = await engine.client.get_results(job.id)
    assert results.complete
    assert results.outputs["thumbs"].count == len(files)
    sheet = results.outputs["sheet"].artifact
    lines = results.outputs["catalog"].artifact
    assert sheet is not None
    assert lines is not None
    assert pyvips.Image.new_from_buffer(await engine.client.read_artifact(sheet.sha256), "").width > 6 * 32
    rows = [orjson.loads(line) for line in (await engine.client.read_artifact(lines.sha256)).splitlines()]
    assert [row["key"] for row in rows] == [item.key for item in distinct if item.state == "OK"]

    # REST says the same as gRPC.
    base = f"/api/v1/jobs/{job.id}"
    assert (await engine.http.get(base)).json() == orjson.loads(job.model_dump_json())
    assert (await engine.http.get(f"{base}/results")).json() == orjson.loads(results.model_dump_json())
    for name in ("valid", "thumbs", "distinct"):
        listed: list[Any] = []
        token = ""
        while True:
            answer = await engine.http.get(f"{base}/nodes/{name}/items", params={"page_size": 7, "page_token": token})
            listed += answer.json()["items"]
            token = answer.json()["next_page_token"]
            if not token:
                break
        assert listed == [orjson.loads(item.model_dump_json()) for item in await engine.items(job.id, name)]
    answer = await engine.http.get(f"/api/v1/artifacts/{sheet.sha256}")
    assert answer.content == await engine.client.read_artifact(sheet.sha256)


async def test_a_folder_of_corrupt_files_completes_with_all_of_them_rejected(engine: Engine, photos: Path) -> None:
    broken_photos(photos / "corrupt", 100)
    job = await engine.run(*catalog(photos / "corrupt"), within_s=60)
    assert job.state == "COMPLETED"
    assert job.items.rejected == 100
    node = await engine.node(job.id, "valid")
    assert (node.items.ok, node.items.rejected, sum(node.reasons.values())) == (0, 100, 100)
    items = await engine.items(job.id, "valid")
    assert len({item.key for item in items}) == 100
    assert {item.state for item in items} == {"REJECTED"}
    assert all(item.reason and item.detail for item in items)
    assert {item.reason for item in items} == set(node.reasons)
    reason, count = next(iter(node.reasons.items()))
    page = await engine.client.list_items(job.id, "valid", reason=reason, page_size=1000)
    assert len(page.items) == count


async def test_on_error_fail_fails_the_job_and_names_node_and_item(engine: Engine, photos: Path) -> None:
    folder = photos / "strict"
    copy_photos(folder)
    (path,) = broken_photos(folder, 1)
    job = await engine.run(
        source(folder),
        check(on_error="fail"),
        {"id": "after", "op": "hash.content", "inputs": {"images": "valid"}, "fuse": False},
    )
    assert job.state == "FAILED"
    assert job.error is not None
    assert job.error.node == "valid"
    assert path.name in job.error.detail
    nodes = {node.id: node.state for node in await engine.nodes(job.id)}
    assert (nodes["photos"], nodes["valid"], nodes["after"]) == ("COMPLETED", "FAILED", "SKIPPED")


async def test_an_empty_folder_completes_with_a_warning(engine: Engine, photos: Path) -> None:
    folder = photos / "empty"
    folder.mkdir()
    job = await engine.run(*catalog(folder))
    assert job.state == "COMPLETED"
    assert (job.items.ok, job.items.filtered, job.items.rejected) == (0, 0, 0)
    assert any(str(folder) in warning for warning in job.warnings)
    assert {node.state for node in await engine.nodes(job.id)} == {"COMPLETED"}


async def test_a_folder_outside_of_the_roots_is_not_read(engine: Engine, tmp_path: Path) -> None:
    copy_photos(tmp_path)
    job = await engine.run(source(tmp_path), check())
    assert job.state == "FAILED"
    assert job.error is not None
    assert (job.error.reason, job.error.node) == ("OUTSIDE_ROOTS", "photos")
    assert await engine.items(job.id, "photos") == []


async def test_an_image_op_of_a_user_runs_between_those_that_are_built_in(engine: Engine, photos: Path) -> None:
    folder = photos / "darker"
    files = {path.name: path for path in copy_photos(folder) if path.name in {"camera.png", "coffee.png"}}
    for path in folder.iterdir():
        if path.name not in files:
            path.unlink()
    darker = {"id": "darker", "op": "user.darken", "inputs": {"images": "valid"}, "params": {"by": 40}, "keep": True}
    sheet = {"id": "sheet", "op": "agg.contact_sheet", "inputs": {"images": "darker"}}
    job = await engine.run(source(folder), check(), darker, sheet)
    assert (job.state, job.error) == ("COMPLETED", None)
    items = await engine.items(job.id, "darker")
    assert {item.key for item in items} == set(files)
    for item in items:
        assert item.sha256 is not None
        made = pyvips.Image.new_from_buffer(await engine.client.read_artifact(item.sha256), "")
        whole = pyvips.Image.new_from_file(str(files[item.key]))
        assert (made - (whole - 40).cast("uchar")).abs().max() == 0
