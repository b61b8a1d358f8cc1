"""Loads unfinished jobs into memory: the job's row, then its journal through the core's `apply`.

A short journal is read row by row. Of a long one the database sums up what is plain (`summaries`), page by page, and only
the other rows are read in full: half a million ended tasks come as a few megabytes of integers.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select, text

from pixloom.graph.plan_codec import plan_from_json
from pixloom_scheduler.core.apply import apply
from pixloom_scheduler.core.model import JobRun
from pixloom_scheduler.core.summary import apply_summary
from pixloom_scheduler.job import JobHeader
from pixloom_scheduler.journal import tables
from pixloom_scheduler.journal.access import reading
from pixloom_scheduler.journal.rows import decode
from pixloom_scheduler.journal.summaries import IS_PLAIN, Span, other_rows, stretches

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sqlalchemy import RowMapping, Select
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

__all__ = ["LoadedJob", "Loader"]

SLICE_S: Final = 0.005
"""Time after which the replay of a long journal lets others have the loop."""

SHORT: Final = 1000
"""Rows of a journal up to which reading them one by one is faster than having them summed up."""

FETCH: Final = 500
"""Rows that come from the database at a time, a few milliseconds of the loop."""

PAGE: Final = 16_384
"""Rows that are summed up at a time: a few milliseconds of the loop, and what the database sorts in memory."""

_REPLAYED: Final = [column for column in tables.journal.c if column.name not in {"payload", "project"}]
_JOB_COLUMNS: Final = [column for column in tables.job.c if column.name not in {"spec", "record"}]
_LENGTH: Final = (
    select(func.max(tables.journal.c.seq))
    .where(tables.journal.c.day == tables.job.c.day, tables.journal.c.job_id == tables.job.c.id)
    .correlate(tables.job)
    .scalar_subquery()
)


@dataclass(frozen=True, slots=True)
class LoadedJob:
    """A job as it stands in the database."""

    header: JobHeader
    run: JobRun


def header_of(row: RowMapping) -> JobHeader:
    """Return the fixed facts in a job row."""
    return JobHeader(
        id=row["id"],
        partition=row["partition"],
        project=row["project"],
        day=row["day"],
        name=row["name"],
        workflow=row["workflow"],
        version=row["version"],
        sha256=row["sha256"],
        params_json=row["params"],
        metadata_json=row["metadata"],
        create_time=row["create_time"],
        external_id=row["external_id"],
        request_id=row["request_id"],
        request_digest=row["request_digest"],
        max_recovery_attempts=row["max_recovery_attempts"],
        trace_context=row["trace_context"],
        tags=row["tags"],
        priority=row["priority"],
        recovery_attempts=row["recovery_attempts"],
    )


class Loader:
    """Reads jobs for the owner of their partitions."""

    def __init__(self, engine: AsyncEngine, *, short: int = SHORT, page: int = PAGE) -> None:
        """Read nothing yet.

        Args:
            engine: The database.
            short: Most rows of a journal that is read row by row.
            page: Rows of a longer one that are read at a time.
        """
        self._engine = engine
        self._short = short
        self._page = page

    async def pending(self, partitions: Sequence[int]) -> list[str]:
        """Return the unfinished jobs of partitions, those with the shortest journals first."""
        job = tables.job.c
        query = (
            select(job.id)
            .where(job.partition.in_(partitions), job.end_time.is_(None))
            .order_by(_LENGTH.asc().nulls_first(), job.create_time)
        )
        async with reading(self._engine) as connection:
            return list((await connection.execute(query)).scalars())

    async def load(self, job_id: str) -> LoadedJob | None:
        """Return one job, finished or not; None if there is none."""
        query = select(*_JOB_COLUMNS, _LENGTH.label("length")).where(tables.job.c.id == job_id)
        async with reading(self._engine) as connection:
            # All of it as it stands at one moment: whoever owns the job may be writing.
            await connection.execution_options(isolation_level="REPEATABLE READ")
            row = (await connection.execute(query)).mappings().first()
            if row is None:
                return None
            header = header_of(row)
            plan = plan_from_json(row["plan"])
            run = JobRun.of(header.id, header.partition, plan, priority=header.priority)
            length = row["length"] or 0
            if length <= self._short:
                await _replay_rows(connection, run, Span(header.day, header.id, 0, length))
            else:
                for after in range(0, length, self._page):
                    span = Span(header.day, header.id, after, min(after + self._page, length))
                    await _replay_summed_up(connection, run, span)
        run.unsettled.update(range(len(run.stages)))
        return LoadedJob(header, run)


def _rows(span: Span, *, plain: bool = True) -> Select[Any]:
    """Return the query for rows in order: all, or those that are not plain."""
    journal = tables.journal.c
    query = (
        select(*_REPLAYED)
        .where(
            journal.day == span.day,
            journal.job_id == span.job_id,
            journal.seq > span.after,
            journal.seq <= span.last,
        )
        .order_by(journal.seq)
    )
    return query if plain else query.where(text(f"NOT {IS_PLAIN}"))


async def _replay_rows(connection: AsyncConnection, run: JobRun, span: Span) -> None:
    begin = time.monotonic()
    for row in (await connection.execute(_rows(span))).mappings():
        apply(run, [decode(dict(row))], time=row["time"].timestamp())
        begin = await _let_others(begin)


async def _replay_summed_up(connection: AsyncConnection, run: JobRun, span: Span) -> None:
    others = await other_rows(connection, span)
    between = await stretches(connection, span, others)
    begin = time.monotonic()
    if others:
        rows = await connection.stream(_rows(span, plain=False).execution_options(yield_per=FETCH))
        place = 0
        async for row in rows.mappings():
            if (stretch := between.get(place)) is not None:
                apply_summary(run, stretch)
            apply(run, [decode(dict(row))], time=row["time"].timestamp())
            place += 1
            begin = await _let_others(begin)
    if (stretch := between.get(len(others))) is not None:
        apply_summary(run, stretch)


async def _let_others(begin: float) -> float:
    """Let others have the loop if it was ours for a while, and return since when it is."""
    if time.monotonic() - begin > SLICE_S:
        await asyncio.sleep(0)
        return time.monotonic()
    return begin
