"""The files of the repository, found without git: a copy of it may be tested where git is not installed."""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "src" / "pixloom" / "v1"


def files(under: Path = ROOT) -> Iterator[Path]:
    """Give all files that belong to the repository, by name; what .gitignore names does not."""
    lines = (line.strip() for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines())
    ignored = [line.strip("/") for line in lines if line and not line.startswith("#")]

    def belongs(name: str) -> bool:
        return name != ".git" and not any(fnmatch.fnmatch(name, pattern) for pattern in ignored)

    for folder, folders, names in os.walk(under):
        folders[:] = sorted(name for name in folders if belongs(name))
        yield from (Path(folder) / name for name in sorted(names) if belongs(name))


def texts() -> Iterator[tuple[str, str]]:
    """Give the path below the root and the text of all files that are text."""
    for path in files():
        try:
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def modules(*folders: str) -> Iterator[Path]:
    """Give the Python modules below folders that were written by hand."""
    for folder in folders:
        yield from (path for path in files(ROOT / folder) if path.suffix == ".py" and GENERATED not in path.parents)
