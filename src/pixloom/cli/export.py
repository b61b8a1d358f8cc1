"""Outputs of a job as files in a folder.

An artifact becomes `<output>.<suffix of its media type>`, a value `<output>.json`, a collection a folder `<output>/`
with one file for each item, named by its key; items without bytes of their own become lines of `<output>.jsonl`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import mimetypes
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Final

from pixloom.resources import OutputKind
from pixloom.sdk.files import saved_to

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from pixloom.resources import Item, Output, Results
    from pixloom.sdk.aio import AsyncClient

__all__ = ["export_outputs", "item_path"]

_PARALLEL: Final = 8
_SUFFIXES: Final = {
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/webp": ".webp",
    "image/tiff": ".tif",
    "image/avif": ".avif",
    "application/json": ".json",
    "application/jsonl": ".jsonl",
    "application/x-ndjson": ".jsonl",
    "application/vnd.apache.parquet": ".parquet",
    "text/csv": ".csv",
    "text/html": ".html",
}
_FORMATS: Final = {"jpeg": ".jpg", "tiff": ".tif", "heif": ".avif"}


async def export_outputs(client: AsyncClient, job_id: str, results: Results, folder: Path) -> dict[str, Path]:
    """Write the outputs of a job and return where each lies.

    Args:
        client: Where to read from.
        job_id: Id of the job.
        results: Its results.
        folder: Where to write; made if missing.

    Raises:
        MachineError: If something cannot be written.
        PixloomError: What the server answered, or that it did not.
    """
    paths = {}
    for name, output in results.outputs.items():
        path = await _export(client, job_id, output, folder / _safe(name))
        if path is not None:
            paths[name] = path
    return paths


async def _export(client: AsyncClient, job_id: str, output: Output, target: Path) -> Path | None:
    match output.kind:
        case OutputKind.ARTIFACT if output.artifact is not None:
            path = target.with_name(target.name + _suffix(output.artifact.media_type))
            return await client.save_artifact(output.artifact.sha256, path)
        case OutputKind.COLLECTION:
            return await _export_items(client, job_id, output.node, target)
        case _:
            path = target.with_name(target.name + ".json")
            with saved_to(path) as file:
                file.write(json.dumps(output.value, ensure_ascii=False, indent=2).encode() + b"\n")
            return path


async def _export_items(client: AsyncClient, job_id: str, node: str, folder: Path) -> Path | None:
    path = folder.with_name(folder.name + ".jsonl")
    taken: dict[str, int] = {}
    slots = asyncio.Semaphore(_PARALLEL)

    async def save(sha256: str, path: Path) -> None:
        try:
            await client.save_artifact(sha256, path)
        finally:
            slots.release()

    with contextlib.ExitStack() as files:
        lines: IO[bytes] | None = None
        try:
            async with asyncio.TaskGroup() as group, contextlib.aclosing(_items(client, job_id, node)) as items:
                async for item in items:
                    if item.uri is not None and item.uri.startswith("cas:"):
                        relative = item_path(item.key, item.format, taken)
                        await slots.acquire()
                        group.create_task(save(item.uri.removeprefix("cas:"), folder / relative))
                        continue
                    # Written as they come: there may be more of them than fit into memory.
                    lines = lines or files.enter_context(saved_to(path))
                    lines.write(item.model_dump_json().encode() + b"\n")
        except ExceptionGroup as failures:
            # Callers know errors, not groups of them, and the first one has ended the others.
            raise failures.exceptions[0] from failures
    if taken:
        return folder
    return path if lines is not None else None


def _items(client: AsyncClient, job_id: str, node: str) -> AsyncGenerator[Item, None]:
    return client.iter_items(job_id, node, states=["OK"], page_size=1000)  # type: ignore[return-value]


def item_path(key: str, image_format: str | None, taken: dict[str, int]) -> PurePosixPath:
    """Return the path of an item's file below the folder of its output, and note it as taken.

    Args:
        key: Key of the item, such as `holiday/beach.png`; parts that lead out of the folder are dropped.
        image_format: Format of its bytes; decides the suffix.
        taken: Paths given out so far, without regard to case as some systems compare them, each with the last number
            that a path was given to differ from it.
    """
    parts = [_safe(part) for part in PurePosixPath(key.replace("\\", "/")).parts if part not in {"/", ".", ".."}]
    path = PurePosixPath(*(parts or ["item"]))
    suffix = "" if image_format is None else _FORMATS.get(image_format, f".{image_format}")
    known = {suffix, ".jpeg", ".tiff"} if suffix in {".jpg", ".tif"} else {suffix}
    if suffix and path.suffix.lower() not in known:
        renamed = path.with_suffix(suffix)
        path = path.with_name(path.name + suffix) if _folded(renamed) in taken else renamed
    number = taken.get(_folded(path), 1)
    free = path
    while _folded(free) in taken:
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    taken[_folded(path)] = number
    taken.setdefault(_folded(free), 1)
    return free


def _folded(path: PurePosixPath) -> str:
    return str(path).casefold()


def _safe(name: str) -> str:
    """Return a name that is one part of a path on every system."""
    cleaned = "".join("_" if char in '/\\:*?"<>|' or ord(char) < 32 else char for char in name)
    return cleaned.encode("utf-8", "replace")[:200].decode("utf-8", "ignore") or "_"


def _suffix(media_type: str) -> str:
    plain = media_type.partition(";")[0].strip()
    return _SUFFIXES.get(plain) or mimetypes.guess_extension(plain) or ".bin"
