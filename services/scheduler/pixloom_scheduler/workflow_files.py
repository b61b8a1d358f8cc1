"""Loads the files of the workflows folder at start; a bad one is shown and never stops the service."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from pixloom.errors import PixloomError
from pixloom.graph.document import parse_json, parse_yaml
from pixloom.graph.validation import validate
from pixloom.workflows import builtin_workflow, builtin_workflow_names
from pixloom_scheduler.rpc.requests import PROJECT
from pixloom_scheduler.rpc.workflows import definition_of

if TYPE_CHECKING:
    from pathlib import Path

    from pixloom_scheduler.catalogue import OpCatalogue
    from pixloom_scheduler.journal.definitions import Definitions, NewDefinition

__all__ = ["WorkflowFiles"]

SUFFIXES = (".json", ".yaml", ".yml")


def _files_of(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)


class WorkflowFiles:
    """Brings workflow files into the database; the hash decides whether there is a new version."""

    def __init__(self, *, definitions: Definitions, catalogue: OpCatalogue) -> None:
        self._definitions = definitions
        self._catalogue = catalogue
        self._refused: list[Path] = []
        self._log = structlog.get_logger("workflow_files")

    async def load_builtin(self) -> None:
        """Store the built-in workflows that are not there; one that was changed or deleted stays as it is."""
        for name in builtin_workflow_names():
            new = definition_of(validate(builtin_workflow(name), self._catalogue.current))
            await self._definitions.add_if_new(PROJECT, new)

    async def load(self, folder: Path) -> int:
        """Load every file of a folder, by name; return how many are good. A missing folder has none."""
        return await self._load(await asyncio.to_thread(_files_of, folder))

    async def keep_loading(self) -> None:
        """Load what was refused again whenever executors announce ops that were not known, until cancelled."""
        while True:
            await self._catalogue.wait_for_more()
            if self._refused:
                await self._load(self._refused)

    async def _load(self, paths: list[Path]) -> int:
        good = 0
        self._refused = []
        for path in paths:
            try:
                new = await asyncio.to_thread(self._read, path)
                definition, changed = await self._definitions.update(PROJECT, new, if_match="", allow_missing=True)
            except PixloomError as error:
                for problem in error.problems or (None,):
                    place, detail = (problem.pointer, problem.detail) if problem else ("", error.message)
                    self._log.error("workflow_file_refused", file=path.name, pointer=place, problem=detail)
                self._refused.append(path)
                continue
            except OSError as error:
                self._log.error("workflow_file_unreadable", file=path.name, problem=error.strerror)
                continue
            good += 1
            if changed:
                self._log.info("workflow_loaded", file=path.name, workflow=new.name, version=definition.version)
        return good

    def _read(self, path: Path) -> NewDefinition:
        data = path.read_bytes()
        document = parse_json(data) if path.suffix == ".json" else parse_yaml(data)
        return definition_of(validate(document, self._catalogue.current))
