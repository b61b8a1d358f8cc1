"""Loads unfinished jobs into memory: the job's row, then its journal through the core's `apply`."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson
from sqlalchemy import func, select

from pixloom.graph.plan import plan_from_json
from pixloom_scheduler.core.apply import apply
from pixloom_scheduler.core.model import JobRun
from pixloom_scheduler.job import JobHeader
from pixloom_scheduler.journal import tables
from pixloom_scheduler.journal.access import reading
from pixloom_scheduler.journal.rows import decode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import RowMapping
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["LoadedJob", "Loader"]

SLICE_S: Final = 0.005
"""Time after which the replay of a long journal lets others have the loop."""

_REPLAYED: Final = [column for column in tables.journal.c if column.name not in {"payload", "project", "time"}]
_JOB_COLUMNS: Final = [column for column in tables.job.c if column.name not in {"spec", "record"}]


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

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def pending(self, partitions: Sequence[int]) -> list[str]:
        """Return the unfinished jobs of partitions, those with the shortest journals first."""
        job, journal = tables.job.c, tables.journal.c
        length = (
            select(func.max(journal.seq))
            .where(journal.day == job.day, journal.job_id == job.id)
            .correlate(tables.job)
            .scalar_subquery()
        )
        query = (
            select(job.id)
            .where(job.partition.in_(partitions), job.end_time.is_(None))
            .order_by(length.asc().nulls_first(), job.create_time)
        )
        async with reading(self._engine) as connection:
            return list((await connection.execute(query)).scalars())

    async def load(self, job_id: str) -> LoadedJob | None:
        """Return one job, finished or not; None if there is none."""
        query = select(*_JOB_COLUMNS).where(tables.job.c.id == job_id)
        async with reading(self._engine) as connection:
            row = (await connection.execute(query)).mappings().first()
        return None if row is None else await self._replay(row)

    async def _replay(self, row: RowMapping) -> LoadedJob:
        header = header_of(row)
        run = JobRun.of(
            header.id, header.partition, plan_from_json(orjson.loads(row["plan"])), priority=header.priority
        )
        journal = tables.journal
        query = (
            select(*_REPLAYED)
            .where(journal.c.day == header.day, journal.c.job_id == header.id)
            .order_by(journal.c.seq)
            .execution_options(yield_per=5000)
        )
        async with reading(self._engine) as connection:
            result = await connection.stream(query)
            begin = time.monotonic()
            async for entry in result.mappings():
                apply(run, [decode(dict(entry))])
                if time.monotonic() - begin > SLICE_S:
                    # Other jobs are served meanwhile.
                    await asyncio.sleep(0)
                    begin = time.monotonic()
        run.unsettled.update(range(len(run.stages)))
        return LoadedJob(header, run)
