"""Photographs named on the command line: checked before anything runs, and given to the workflow's source."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pixloom.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["bind_images", "require_images", "source_folders"]

_SUFFIXES: Final = frozenset({".avif", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


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


def _images(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            if Path(name).suffix.lower() in _SUFFIXES:
                yield Path(parent) / name


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


def source_folders(document: Mapping[str, Any], params: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the folders that a workflow reads, as far as the document and the params of the run tell."""
    declared = document.get("params", {})
    for node in document.get("nodes", ()):
        if not node.get("op", "").startswith("source.folder"):
            continue
        path = node.get("params", {}).get("path")
        if isinstance(path, str) and path.startswith("${params.") and path.endswith("}"):
            name = path[9:-1]
            path = params.get(name, declared.get(name, {}).get("default"))
        if isinstance(path, str):
            yield Path(path)
