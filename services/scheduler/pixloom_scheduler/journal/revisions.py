"""What a command changes in the row of a job, beside its journal row and in the same transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

    import asyncpg

__all__ = ["Replan", "Revision", "write_replans", "write_revisions"]

_REVISE: Final = """
UPDATE pixloom.job j SET tags = v.tags, priority = v.priority
FROM unnest($1::text[], $2::jsonb[], $3::smallint[]) AS v(id, tags, priority)
WHERE j.id = v.id
"""
_REPLAN: Final = """
UPDATE pixloom.job j SET plan = v.plan, params = v.params
FROM unnest($1::text[], $2::bytea[], $3::bytea[]) AS v(id, plan, params)
WHERE j.id = v.id
"""


@dataclass(frozen=True, slots=True)
class Revision:
    """What may be changed of a job at any time, as it is from now on.

    Attributes:
        tags: All tags.
        priority: 0 to 9.
    """

    tags: dict[str, str]
    priority: int


@dataclass(frozen=True, slots=True)
class Replan:
    """The plan of a job that was started with other params than it was accepted with.

    Attributes:
        plan: The plan as JSON.
        params: The params as JSON.
    """

    plan: bytes
    params: bytes


async def write_revisions(connection: asyncpg.Connection[Any], revisions: Mapping[str, Revision]) -> None:
    """Update the rows of jobs, given by id."""
    await connection.execute(
        _REVISE,
        list(revisions),
        [orjson.dumps(revision.tags).decode() for revision in revisions.values()],
        [revision.priority for revision in revisions.values()],
    )


async def write_replans(connection: asyncpg.Connection[Any], replans: Mapping[str, Replan]) -> None:
    """Give jobs, given by id, another plan."""
    await connection.execute(
        _REPLAN,
        list(replans),
        [replan.plan for replan in replans.values()],
        [replan.params for replan in replans.values()],
    )
