"""Disks that are full: for artifacts and NATS on a small file system of their own, where the kernel allows one.

Mounting needs a mount namespace (`unshare --mount`), so the case runs itself again inside one. Where that is refused,
the largest file that executors may write is lowered instead: their stores then get EFBIG where they would get ENOSPC.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pyvips

from tests.faults.scene import Case
from tests.faults.verdict import Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.faults.cluster import Cluster
    from tests.faults.load import Load
    from tests.faults.scene import Scene

__all__ = ["CASES", "INSIDE"]

INSIDE = "PIXLOOM_FAULTS_INSIDE"
ROOM_MB = 300
PHOTOS = 12
FULL_S = 2.0
"""Time for which the disk is full: less than the retries of a task last, so that none may be lost."""

TYPED = frozenset({"ENVIRONMENT", "STORE_ERROR", "MACHINE", "NO_ROOM", "UNAVAILABLE"})
_REASONS = """
SELECT reason, count(*) FROM pixloom.journal
WHERE kind = 7 AND outcome = 3 AND reason <> 'DEBUG' GROUP BY reason
"""


def _may_mount() -> bool:
    return sys.platform == "linux" and (
        subprocess.run(
            ["unshare", "--mount", "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /mnt"],
            capture_output=True,
            check=False,
            timeout=10,
        ).returncode
        == 0
        if shutil.which("unshare")
        else False
    )


async def disk_full(scene: Scene) -> Outcome:
    """Fill the disk for a while, again and again."""
    if not os.environ.get(INSIDE) and await asyncio.to_thread(_may_mount):
        return await _inside_a_namespace(scene)
    data = scene.folder / "data"
    where = "a small tmpfs for artifacts, NATS and scratch" if os.environ.get(INSIDE) else "a limit on file sizes"
    variables = {}
    if os.environ.get(INSIDE):
        for folder in (data / "artifacts", data / "nats", scene.folder / "scratch"):
            folder.mkdir(parents=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM_MB}m", "tmpfs", str(folder)], check=True)  # noqa: ASYNC221 - nothing else runs yet
        variables = {"executor": {"TMPDIR": str(scene.folder / "scratch")}}
    data.mkdir(exist_ok=True)
    data.chmod(0o700)
    async with scene.cluster(environment=variables) as cluster:
        load = scene.load(cluster)

        await asyncio.to_thread(_make_photos, cluster.photos)

        async def fill() -> None:
            await asyncio.sleep(2.0)
            scene.happens()
            # One after the other: while NATS takes nothing, nothing runs that could want to store something.
            async with _full(cluster, inside=bool(os.environ.get(INSIDE)), queue=len(scene.moments) % 2 == 0):
                # Each time other thumbnails than before, as what is stored already is not written again.
                await load.accept(_thumbnails(cluster.photos, width=32 + len(scene.moments)))
                await asyncio.sleep(FULL_S)
            await asyncio.sleep(8.0)  # until the longest back-off is over

        outcome = await scene.under(cluster, load, fill, at_least_s=25)
        await _look_at(cluster, load, outcome)
        outcome.figures["what"] = where
        return outcome


async def _inside_a_namespace(scene: Scene) -> Outcome:
    process = await asyncio.create_subprocess_exec(
        "unshare", "--mount", "--propagation", "private",
        sys.executable, "-m", "tests.faults", "--cases", "disk-full", "--scale", str(scene.scale),
        "--seconds", str(scene.seconds), "--schedulers", str(scene.schedulers), "--keep",
        env={**os.environ, INSIDE: "1"},
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    result = json.loads(out.splitlines()[-1])
    outcome = Outcome(problems=result.pop("problems", []))
    missed = result.pop("missed", [])
    for name in ("case", "seconds", "passed"):
        result.pop(name)
    outcome.figures = {name: value for name, value in result.items() if name not in missed}
    outcome.bars = {name: (result[name], False) for name in missed}
    return outcome


@contextlib.asynccontextmanager
async def _full(cluster: Cluster, *, inside: bool, queue: bool) -> AsyncIterator[None]:
    if inside:
        queued = (cluster.stack.options.data_dir / "nats",)
        folders = queued if queue else (cluster.artifacts, cluster.folder / "scratch")
        fillers = [folder / "filler" for folder in folders]
        try:
            for filler in fillers:
                _fill(filler)  # not in a thread, which would go on if this were cancelled
            yield
        finally:
            for filler in fillers:
                filler.unlink(missing_ok=True)
        return
    limited = [
        process
        for part in cluster.executors
        for process in psutil.Process(cluster.stack.pid(part)).children(recursive=True)
    ]
    try:
        for process in limited:
            _limit(process, 16)
        yield
    finally:
        for process in limited:
            with contextlib.suppress(psutil.NoSuchProcess):
                _limit(process, process.rlimit(resource.RLIMIT_FSIZE)[1])


def _make_photos(folder: Path) -> None:
    for number in range(PHOTOS):
        noise = pyvips.Image.gaussnoise(200, 200, mean=128, sigma=40, seed=number).cast("uchar")
        (folder / f"noise-{number:02}.png").write_bytes(noise.write_to_buffer(".png"))


def _thumbnails(folder: Path, *, width: int) -> dict[str, Any]:
    return {
        "name": "fault-thumbnails",
        "nodes": [
            {"id": "photos", "op": "source.folder", "params": {"path": str(folder)}},
            {
                "id": "small",
                "op": "image.thumbnail",
                "inputs": {"images": "photos"},
                "params": {"width": width},
                "shard_size": 2,
            },
        ],
        "outputs": {"small": "small"},
    }


def _limit(process: psutil.Process, most: int) -> None:
    process.rlimit(resource.RLIMIT_FSIZE, (most, process.rlimit(resource.RLIMIT_FSIZE)[1]))


def _fill(filler: Path) -> None:
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        block = bytes(1024 * 1024)
        while True:
            if file.write(block) < len(block):
                break
    # The last bytes as well.
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x"):
            pass


async def _look_at(cluster: Cluster, load: Load, outcome: Outcome) -> None:
    """Require typed errors and whole artifacts."""
    del load
    reasons = {row[0]: row[1] for row in await cluster.query(_REASONS)}
    outcome.bars["failures"] = (
        ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items())) or "none",
        bool(reasons) and set(reasons) <= TYPED,
    )
    files = [path for path in (cluster.artifacts / "cas").rglob("*") if path.is_file()]
    partial = [path.name for path in files if hashlib.sha256(path.read_bytes()).hexdigest() != path.name]
    outcome.bars["partial_artifacts"] = (f"{len(partial)} of {len(files)}", not partial)


CASES = (
    Case(
        "disk-full",
        "disk full for artifacts, scratch and NATS",
        "typed errors, no partial artifact, recovers",
        disk_full,
    ),
)
