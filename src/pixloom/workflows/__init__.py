"""The workflows that come with Pixloom, as documents."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from pixloom.errors import NotFoundError

__all__ = ["builtin_workflow", "builtin_workflow_names"]


def builtin_workflow_names() -> list[str]:
    """Return the names of the workflows, sorted."""
    return sorted(
        entry.name.removesuffix(".json") for entry in files(__name__).iterdir() if entry.name.endswith(".json")
    )


def builtin_workflow(name: str) -> dict[str, Any]:
    """Return a workflow document.

    Raises:
        NotFoundError: If no workflow of this name comes with Pixloom.
    """
    names = builtin_workflow_names()
    if name not in names:
        raise NotFoundError(f"No workflow {name!r} comes with Pixloom. There are: {', '.join(names)}.")
    document: dict[str, Any] = json.loads(files(__name__).joinpath(f"{name}.json").read_text(encoding="utf-8"))
    return document
