"""Photographs named on the command line: checked before anything runs, and given to the workflow's source."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pixloom.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["bind_images", "count_source_items", "require_images", "source_folders"]

_SUFFIXES: Final = frozenset({".avif", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_COUNTED_FILES: Final = 100_000
_COUNTED_S: Final = 2.0


def require_images(folder: Path) -> Path:
    """Return the absolute path of a folder that holds images.

    Raises:
        InvalidError: If it is missing, no folder, not readable, or has no image in it or below.
    """
    if not folder.exists():
        raise InvalidError(f"There is no folder {folder}. Check the name.")
    if not folder.is_dir():
        raise InvalidError(f"{folder} is a file. Name the folder it is in: {folder.parent}.")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise InvalidError(f"The folder {folder} is not readable for you. Change its permissions: chmod u+rx {folder}.")
    if next(_images(folder), None) is None:
        known = ", ".join(sorted(suffix.removeprefix(".") for suffix in _SUFFIXES))
        raise InvalidError(f"The folder {folder} has no images in it or below. Images end in {known}.")
    return folder.absolute()


def _images(folder: Path) -> Iterator[bool]:
    return (is_image for is_image in _files(folder) if is_image)


def _files(folder: Path) -> Iterator[bool]:
    """Yield for each file in a folder or below whether it is an image by its name."""
    for _, _, names in os.walk(folder):
        for name in names:
            yield Path(name).suffix.lower() in _SUFFIXES


def bind_images(document: Mapping[str, Any], images: Sequence[Path]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Make a workflow read the folders that were named.

    Args:
        document: The workflow document.
        images: The folders, checked; at least one.

    Returns:
        The document to run, and the params to give it.

    Raises:
        InvalidError: If the workflow has no source that reads a folder, or several, or takes one folder only.
    """
    sources = [
        (index, node)
        for index, node in enumerate(document.get("nodes", ()))
        if node.get("op", "").startswith("source.folder")
    ]
    if len(sources) != 1:
        raise InvalidError(
            f"The workflow {document.get('name')} has {len(sources)} nodes with source.folder, so it is not clear which "
            "of them is to read the images. Give the folders as params instead: -p name=value."
        )
    if len(images) > 1:
        raise InvalidError(
            f"The workflow {document.get('name')} reads one folder, and {len(images)} were named. Name one."
        )
    folder = str(images[0])
    index, node = sources[0]
    written = node.get("params", {}).get("path")
    if isinstance(written, str) and written.startswith("${params.") and written.endswith("}"):
        return dict(document), {written[9:-1]: folder}
    nodes = list(document["nodes"])
    nodes[index] = {**node, "params": {**node.get("params", {}), "path": folder}}
    return {**document, "nodes": nodes}, {}


def count_source_items(document: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, int]:
    """Count the images that a workflow's `source.folder` nodes would give, as far as that is cheap.

    Args:
        document: The workflow document.
        params: Params of the run.

    Returns:
        Images by node. Folders that are not here, that hold more than 100,000 files, or that take longer than two
        seconds to list are left out, as are nodes that choose their files by further params.
    """
    found = {}
    until = time.monotonic() + _COUNTED_S
    for node, folder in _folder_nodes(document, params):
        if node.get("params", {}).keys() - {"path"} or not folder.is_dir():
            continue
        count = 0
        for number, is_image in enumerate(_files(folder)):
            if number >= _COUNTED_FILES or time.monotonic() > until:
                break
            count += is_image
        else:
            found[node["id"]] = count
    return found


def source_folders(document: Mapping[str, Any], params: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the folders that a workflow reads, as far as the document and the params of the run tell."""
    for _, folder in _folder_nodes(document, params):
        yield folder


def _folder_nodes(document: Mapping[str, Any], params: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Path]]:
    declared = document.get("params", {})
    for node in document.get("nodes", ()):
        if not node.get("op", "").startswith("source.folder"):
            continue
        path = node.get("params", {}).get("path")
        if isinstance(path, str) and path.startswith("${params.") and path.endswith("}"):
            name = path[9:-1]
            path = params.get(name, declared.get(name, {}).get("default"))
        if isinstance(path, str):
            yield node, Path(path)
