"""The ops that workflows are checked against: built-in ones and those that executors announced."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pixloom.graph.builtin import builtin_catalogue
from pixloom.opcodec import op_from_proto, op_to_proto
from pixloom.v1 import op_pb2

if TYPE_CHECKING:
    from pixloom.graph.catalogue import Catalogue, OpSpec
    from pixloom_scheduler.journal.definitions import Definitions

__all__ = ["OpCatalogue"]


class OpCatalogue:
    """Keeps the catalogue in memory and in the database."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._catalogue = builtin_catalogue()
        self._grew = asyncio.Event()

    async def load(self) -> None:
        """Take in what was announced before this process started."""
        specs = [op_from_proto(op_pb2.Op.FromString(raw)) for raw in await self._definitions.ops()]
        self._catalogue = self._catalogue.merged(specs)

    @property
    def current(self) -> Catalogue:
        """The catalogue as it is now."""
        return self._catalogue

    async def wait_for_more(self) -> None:
        """Wait until ops are announced that were not known."""
        self._grew.clear()
        await self._grew.wait()

    async def announce(self, specs: list[OpSpec]) -> None:
        """Take in the ops of an executor."""
        new = [spec for spec in specs if self._catalogue.get(spec.ref) != spec]
        if new:
            self._catalogue = self._catalogue.merged(new)
            self._grew.set()
            await self._definitions.announce_ops({spec.ref: op_to_proto(spec).SerializeToString() for spec in new})
