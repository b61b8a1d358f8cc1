"""Writes a job that begins with results of an old one, in one transaction beside the group commit.

What the old job's journal says of the stages that are carried is copied inside the database, where half a million rows
take seconds and no memory; `core.generations.carried_change` says which these are and what becomes of them. Artifacts
are named by their digests and shared. Rows are of the time at which they are copied: then they became durable here. Nothing in the new job refers to the old one's rows, which may be deleted.

The copy is one statement, so it sees the old job at one moment, and it takes nothing unless the old job is in the
generation that was looked at and has ended. The transaction locks the partition's row, where the epoch is the expected
one, before it commits (see `finished`): so a takeover waits for it, and then finds the whole job or nothing of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError

from pixloom.errors import AlreadyExistsError
from pixloom_scheduler.core.changes import (
    AttemptEnded,
    GenerationOpened,
    JobAccepted,
    JobStarted,
    NodeEnded,
    NodeReleased,
)
from pixloom_scheduler.core.generations import carried_change
from pixloom_scheduler.crash_points import reach
from pixloom_scheduler.journal import tables
from pixloom_scheduler.journal.access import writing
from pixloom_scheduler.journal.finished import fence
from pixloom_scheduler.journal.rows import COLUMNS, KINDS, decode, encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from pixloom.graph.plan import Plan
    from pixloom_scheduler.core.changes import Durable
    from pixloom_scheduler.journal.batch import NewJob
    from pixloom_scheduler.journal.reader import StoredJob

__all__ = ["Inheritance", "InheritanceWriter"]

_HEAD: Final = 2
"""Rows before those that are copied: accepted, started."""

_KEPT: Final = ", ".join(name for name in COLUMNS if name not in {"day", "job_id", "seq", "time", "data"})
_NODE: Final = ", ".join(column.name for column in tables.node.c if column.name != "job_id")
_COPY: Final = text(f"""
WITH old AS (
    SELECT id FROM pixloom.job WHERE id = :old AND end_time IS NOT NULL AND generation = :generation
), opening AS (
    SELECT * FROM unnest(CAST(:generations AS int[]), CAST(:openings AS text[])) AS o(generation, data)
), taken AS (
    SELECT j.*, row_number() OVER (ORDER BY j.seq) AS place
    FROM pixloom.journal j
    WHERE j.day = :old_day AND j.job_id = (SELECT id FROM old) AND CASE j.kind
        WHEN {KINDS[AttemptEnded]} THEN j.stage = ANY(CAST(:stages AS int[]))
        WHEN {KINDS[NodeReleased]} THEN (j.data->>'stage')::int = ANY(CAST(:stages AS int[]))
        WHEN {KINDS[NodeEnded]} THEN (j.data->>'node')::int = ANY(CAST(:nodes AS int[]))
        ELSE j.kind = {KINDS[GenerationOpened]} END
), copied AS (
    INSERT INTO pixloom.journal (day, job_id, seq, time, data, {_KEPT})
    SELECT CAST(:day AS date), CAST(:new AS text), {_HEAD} + place, CAST(:time AS timestamptz),
        CASE WHEN kind = {KINDS[GenerationOpened]}
            THEN (SELECT CAST(o.data AS jsonb) FROM opening o WHERE o.generation = taken.generation)
            ELSE data END,
        {_KEPT}
    FROM taken
), ended AS (
    INSERT INTO pixloom.node (job_id, {_NODE})
    SELECT CAST(:new AS text), {_NODE} FROM pixloom.node
    WHERE job_id = (SELECT id FROM old) AND index = ANY(CAST(:nodes AS int[]))
)
SELECT count(*) FROM old
""")  # noqa: S608 - made of constants


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What a new job takes over.

    Attributes:
        old: The old job.
        plan: Its plan, whose nodes and stages the new one numbers alike.
        again: Stages that run again.
        from_node: Id of the node from which on they do.
    """

    old: StoredJob
    plan: Plan
    again: frozenset[int]
    from_node: str


class InheritanceWriter:
    """Writes jobs that begin with results of others."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def write(self, new: NewJob, start: JobStarted, inheritance: Inheritance, *, epoch: int) -> bool:
        """Make a job durable that has started and carries results, all of it or nothing.

        Args:
            new: The job.
            start: Its start.
            inheritance: What it takes over.
            epoch: Epoch of the caller's ownership of the new job's partition.

        Returns:
            Whether it was written; not if the old job was taken up again or deleted meanwhile.

        Raises:
            AlreadyExistsError: If another job has the request id.
            UnavailableError: If the partition belongs to somebody else, or the database does not answer; whether the
                job is durable then is told by `stands`.
        """
        header, old, plan = new.header, inheritance.old, inheritance.plan
        accepted = JobAccepted(made_of=old.id, from_node=inheritance.from_node)
        async with writing(self._engine) as connection:
            openings = await self._openings(connection, inheritance)
            carried = [stage.index for stage in plan.stages if stage.index not in inheritance.again]
            values = {
                "old": old.id,
                "old_day": old.day,
                "generation": old.generation,
                "generations": list(openings),
                "openings": list(openings.values()),
                "stages": carried,
                "nodes": [node for stage in carried for node in plan.stages[stage].nodes],
                "day": header.day,
                "new": header.id,
                "time": header.create_time,
            }
            if not (await connection.execute(_COPY, values)).scalar():
                return False
            changes: tuple[Durable, ...] = (accepted, start)
            rows = [_row(new, change, seq) for seq, change in enumerate(changes, start=1)]
            await connection.execute(insert(tables.journal), rows)
            await fence(connection, header.partition, epoch)
            # Last, and short: whoever comes with the same request id waits for this transaction from here on.
            try:
                await connection.execute(insert(tables.job).values(_job_row(new, old.generation)))
            except IntegrityError as error:
                raise AlreadyExistsError(f"request_id {header.request_id} was used for another job") from error
            reach("commit.before")
        reach("commit.after")
        return True

    async def stands(self, job_id: str, partition: int, *, epoch: int) -> bool:
        """Return whether a job is durable whose `write` was not answered; it never becomes so after this.

        Raises:
            UnavailableError: If the partition belongs to somebody else, or the database does not answer.
        """
        async with writing(self._engine) as connection:
            # A write that may still end has this lock.
            await fence(connection, partition, epoch)
            query = select(tables.job.c.id).where(tables.job.c.id == job_id)
            return (await connection.execute(query)).first() is not None

    @staticmethod
    async def _openings(connection: AsyncConnection, inheritance: Inheritance) -> dict[int, str]:
        """Return by generation what the rows that opened it say in the new job."""
        old, journal = inheritance.old, tables.journal
        columns = [column for column in journal.c if column.name != "payload"]
        query = select(*columns).where(
            journal.c.day == old.day, journal.c.job_id == old.id, journal.c.kind == KINDS[GenerationOpened]
        )
        found: dict[int, str] = {}
        for row in (await connection.execute(query)).mappings():
            change = carried_change(decode(dict(row)), inheritance.plan, inheritance.again)
            if change is not None:
                encoded = encode(
                    change, day=old.day, job_id="", seq=0, time=0.0, project="", generation=row["generation"]
                )
                found[row["generation"]] = encoded[COLUMNS.index("data")]
        return found


def _row(new: NewJob, change: Durable, seq: int) -> dict[str, Any]:
    header = new.header
    time = header.create_time.timestamp()
    row = encode(change, day=header.day, job_id=header.id, seq=seq, time=time, project=header.project, generation=1)
    values = dict(zip(COLUMNS, row, strict=True))
    return values | {"data": orjson.loads(values["data"])}


def _job_row(new: NewJob, generation: int) -> Mapping[str, Any]:
    header = new.header
    return {
        "id": header.id,
        "partition": header.partition,
        "project": header.project,
        "day": header.day,
        "name": header.name,
        "workflow": header.workflow,
        "version": header.version,
        "sha256": header.sha256,
        "spec": new.spec,
        "plan": new.plan,
        "params": header.params_json,
        "tags": header.tags,
        "metadata": header.metadata_json,
        "priority": header.priority,
        "external_id": header.external_id,
        "request_id": header.request_id,
        "request_digest": header.request_digest,
        "state": new.state,
        "generation": generation,
        "recovery_attempts": header.recovery_attempts,
        "max_recovery_attempts": header.max_recovery_attempts,
        "trace_context": header.trace_context,
        "create_time": header.create_time,
    }
