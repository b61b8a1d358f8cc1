"""Values that a database refuses, and images that kill, hang or fill whoever opens them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import httpx2
import pyvips

from pixloom.demo.broken import jpeg_bomb, png_bomb, text_as_jpeg, truncated
from tests.faults.ops import POISONS
from tests.faults.scene import Case, Enough
from tests.support.photo_folder import photo_paths

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.cluster import Cluster
    from tests.faults.scene import Scene
    from tests.faults.verdict import Outcome

__all__ = ["CASES", "poison_photos"]

GOOD = 12
_POISONED = "SELECT state, count(*) FROM pixloom.job WHERE id = ANY($1::text[]) GROUP BY state"
_BODIES: dict[str, bytes] = {
    "a NUL in a name": b'{"spec": {"name": "a\\u0000b", "nodes": [{"id": "a", "op": "debug.noop"}]}}',
    "half a character": b'{"spec": {"name": "a\\ud800", "nodes": [{"id": "a", "op": "debug.noop"}]}}',
    "invalid UTF-8": b'{"spec": {"name": "\xff\xfe", "nodes": [{"id": "a", "op": "debug.noop"}]}}',
    "a NUL in a tag": b'{"spec": {"name": "a", "nodes": [{"id": "a", "op": "debug.noop"}]}, "tags": {"a": "\\u0000"}}',
    "a NUL in a param": b'{"spec": {"name": "a", "nodes": [{"id": "a", "op": "debug.noop"}]}, "params": {"a": "\\u0000"}}',
    "huge text": b'{"spec": {"name": "' + b"x" * 5_000_000 + b'", "nodes": [{"id": "a", "op": "debug.noop"}]}}',
}


async def values(scene: Scene) -> Outcome:
    """Let ops give texts that PostgreSQL cannot hold, and callers send such, in the middle of a full load."""
    answers: dict[str, int] = {}
    poisoned: list[str] = []
    async with scene.cluster() as cluster:
        load = scene.load(cluster)

        async def poison() -> None:
            for kind in POISONS:
                scene.happens()
                document = _poisoned_document(kind)
                job = await cluster.client.create_job(spec=document)
                poisoned.append(job.id)
            async with httpx2.AsyncClient(base_url=cluster.stack.http_url, timeout=30) as http:
                for kind, body in _BODIES.items():
                    response = await http.post(
                        "/api/v1/jobs", content=body, headers={"content-type": "application/json"}
                    )
                    answers[kind] = response.status_code
            raise Enough

        outcome = await scene.under(cluster, load, poison, at_least_s=60)
        ended = {row[0]: row[1] for row in await cluster.query(_POISONED, poisoned)}
        outcome.bars["poisoned_jobs"] = (
            ended,
            set(ended) <= {"COMPLETED", "FAILED"} and sum(ended.values()) == len(POISONS),
        )
        outcome.bars["answers"] = (
            sorted(set(answers.values())),
            len(answers) == len(_BODIES) and all(400 <= status < 500 for status in answers.values()),
        )
        restarts = _restarts(cluster, "scheduler")
        outcome.bars["scheduler_restarts"] = (restarts, restarts == 0)
        return outcome


def _poisoned_document(kind: str) -> dict[str, Any]:
    return {
        "name": "fault-values",
        "nodes": [
            {"id": "numbers", "op": "debug.range", "params": {"count": 3}},
            {
                "id": "poison",
                "op": "faults.poison",
                "inputs": {"items": "numbers"},
                "params": {"kind": kind},
                "retry": {"max_attempts": 1},
            },
        ],
    }


def _restarts(cluster: Cluster, part: str) -> int:
    """Return how often parts ended by themselves, as the stack announced it."""
    return sum(line.startswith(part) and "starting it again" in line for line in cluster.lines)


def poison_photos(folder: Path) -> dict[str, str]:
    """Write good photographs and bad ones; return what must become of the bad ones, by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    photos = photo_paths()
    for number in range(GOOD):
        photo = photos[number % len(photos)]
        shutil.copy(photo, folder / f"good-{number:02}{photo.suffix}")
    jpeg = next(path for path in photos if path.name == "rocket.jpg").read_bytes()
    bad = {
        "bomb.png": png_bomb(),
        "bomb.jpg": jpeg_bomb(jpeg),
        "cut-early.jpg": truncated(jpeg, 0.02),
        "cut-late.jpg": truncated(jpeg, 0.6),
        "text.jpg": text_as_jpeg(1),
        "empty.jpg": b"",
    }
    for name, data in bad.items():
        (folder / name).write_bytes(data)
    # Named otherwise than it is: no fault of the pixels, so it passes.
    (folder / "good-wrong-extension.jpg").write_bytes(pyvips.Image.black(20, 20).write_to_buffer(".png"))
    return dict.fromkeys(bad, "REJECTED")


async def images(scene: Scene) -> Outcome:
    """Let images and ops kill, hang and fill the children that open them."""
    async with scene.cluster() as cluster:
        bad = poison_photos(cluster.photos)
        load = scene.load(cluster)
        jobs: dict[str, str] = {}

        async def poison() -> None:
            scene.happens()
            jobs["photos"] = await load.accept(_photo_document(cluster.photos))
            for mode in ("signal", "exit", "hang", "alloc"):
                jobs[mode] = await load.accept(_crash_document(mode))
            raise Enough

        outcome = await scene.under(cluster, load, poison, at_least_s=60)
        rejected = {
            item.key: item.reason
            async for item in cluster.client.iter_items(jobs["photos"], "valid", page_size=1000)
            if item.state == "REJECTED"
        }
        outcome.bars["photos_rejected"] = (
            f"{len(rejected)} of {len(bad)}",
            {key.rpartition("/")[2] for key in rejected} == set(bad) and all(rejected.values()),
        )
        wrong = []
        for mode in ("signal", "exit", "hang", "alloc"):
            items = [item async for item in cluster.client.iter_items(jobs[mode], "crash", page_size=1000)]
            refused = sorted(int(item.key) for item in items if item.state == "REJECTED" and item.reason)
            passed = sum(item.state == "OK" for item in items)
            if (refused, passed) != ([2, 5], 6):
                wrong.append(f"{mode}: rejected {refused}, passed {passed}")
        outcome.bars["items_that_kill"] = ("; ".join(wrong) or "2 of 8 rejected in each of 4 ways", not wrong)
        restarts = _restarts(cluster, "executor")
        outcome.bars["executor_restarts"] = (restarts, restarts == 0)
        return outcome


def _photo_document(folder: Path) -> dict[str, Any]:
    return {
        "name": "fault-photos",
        "nodes": [
            {"id": "photos", "op": "source.folder", "params": {"path": str(folder)}},
            {"id": "valid", "op": "check.decode", "inputs": {"images": "photos"}},
            {"id": "small", "op": "image.thumbnail", "inputs": {"images": "valid"}, "params": {"width": 64}},
        ],
        "outputs": {"small": "small"},
    }


def _crash_document(mode: str) -> dict[str, Any]:
    return {
        "name": "fault-crash",
        "nodes": [
            {"id": "numbers", "op": "debug.range", "params": {"count": 8}},
            {
                "id": "crash",
                "op": "debug.crash",
                "inputs": {"items": "numbers"},
                "params": {"mode": mode, "at": [2, 5]},
                "timeout_s": 1,
                "shard_size": 8,
            },
        ],
    }


CASES = (
    Case(
        "values",
        "values that PostgreSQL refuses, in results and in requests",
        "refused at the edge or one job FAILED; the partition goes on",
        values,
    ),
    Case(
        "images",
        "poison images: crash, hang, far too much memory, header bombs, truncated, wrong extension",
        "exactly those items REJECTED; executor restarts = 0",
        images,
    ),
)
