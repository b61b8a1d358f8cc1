"""Stored workflows over a real PostgreSQL: names and versions that no workflow can have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pixloom.errors import NotFoundError
from pixloom_scheduler.journal.definitions import Definitions

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


async def test_a_name_or_version_that_the_database_cannot_hold_is_merely_missing(engine: AsyncEngine) -> None:
    definitions = Definitions(engine)
    for name, version in (("a\0b", 0), ("a", 2**32 - 1)):
        with pytest.raises(NotFoundError):
            await definitions.get("default", name, version)
    with pytest.raises(NotFoundError):
        await definitions.delete("default", "a\0b", if_match="")
    assert await definitions.versions("default", "a\0b", before=0, most=10) == []
