"""Changes to jobs that have ended and are in nobody's memory any more: other tags, or the end of their rows.

Both are transactions of their own, so that a job with half a million journal rows does not hold up the group commit.
They are fenced as it is: the partition's row is locked, and only where the epoch is the expected one, before the
commit. A takeover waits for that lock, so nothing is written for a partition that belongs to somebody else. The
partition's row comes before the job's, as in the group commit, so that the two never wait for one another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select, update

from pixloom.errors import UnavailableError
from pixloom.v1 import job_pb2
from pixloom_scheduler.core.changes import JobUpdated
from pixloom_scheduler.journal import tables
from pixloom_scheduler.journal.access import writing
from pixloom_scheduler.journal.rows import COLUMNS, encode

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from pixloom_scheduler.journal.reader import StoredJob

__all__ = ["FinishedJobs", "fence"]


class FinishedJobs:
    """Writes to the rows of jobs that have ended."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def retag(self, stored: StoredJob, tags: dict[str, str], *, epoch: int) -> bytes | None:
        """Give a job other tags, with a row of its journal, and return the job as it is served from now on.

        Args:
            stored: The job.
            tags: All its tags from now on.
            epoch: Epoch of the caller's ownership of the job's partition.

        Returns:
            The serialised `pixloom.v1.Job`; None if there is no such finished job any more.

        Raises:
            UnavailableError: If the partition belongs to somebody else, or the database does not answer.
        """
        job, journal = tables.job, tables.journal
        async with writing(self._engine) as connection:
            await fence(connection, stored.partition, epoch)
            query = select(job.c.record).where(job.c.id == stored.id, job.c.end_time.is_not(None)).with_for_update()
            record = (await connection.execute(query)).scalar()
            if record is None:
                return None
            found = job_pb2.Job.FromString(record)
            if dict(found.tags) == tags:
                return bytes(record)
            here = (journal.c.day == stored.day, journal.c.job_id == stored.id)
            query = select(func.max(journal.c.seq), func.clock_timestamp()).where(*here)
            last, now = (await connection.execute(query)).one()
            found.seq = last + 1
            found.tags.clear()
            found.tags.update(tags)
            found.update_time.FromDatetime(now)
            changed = found.SerializeToString()
            row = encode(
                JobUpdated(tags=tags, priority=None),
                day=stored.day,
                job_id=stored.id,
                seq=found.seq,
                time=now.timestamp(),
                project=stored.project,
                generation=stored.generation,
            )
            values = dict(zip(COLUMNS, row, strict=True)) | {"data": {"tags": tags, "priority": None}}
            await connection.execute(insert(journal).values(values))
            await connection.execute(update(job).where(job.c.id == stored.id).values(tags=tags, record=changed))
        return changed

    async def delete(self, stored: StoredJob, *, epoch: int) -> bool:
        """Delete every row of a job that has ended, all of them or none.

        The job's own row decides, last of all: if the job was taken up again meanwhile, all others come back.

        Args:
            stored: The job.
            epoch: Epoch of the caller's ownership of the job's partition.

        Returns:
            Whether there was such a job that had ended.

        Raises:
            UnavailableError: If the partition belongs to somebody else, or the database does not answer.
        """
        job, journal, node = tables.job, tables.journal, tables.node
        async with writing(self._engine) as connection:
            ended = select(job.c.id).where(job.c.id == stored.id, job.c.end_time.is_not(None))
            # The long part first, without the partition's lock: these rows concern nobody else.
            mine = (journal.c.day == stored.day, journal.c.job_id == stored.id)
            await connection.execute(delete(journal).where(*mine, ended.exists()))
            await connection.execute(delete(node).where(node.c.job_id == stored.id, ended.exists()))
            await fence(connection, stored.partition, epoch)
            gone = delete(job).where(job.c.id == stored.id, job.c.end_time.is_not(None))
            is_gone = bool((await connection.execute(gone)).rowcount)
            if not is_gone:
                await connection.rollback()
            return is_gone


async def fence(connection: AsyncConnection, partition: int, epoch: int) -> None:
    """Lock a partition until the end of the transaction.

    Raises:
        UnavailableError: If it belongs to somebody else; the transaction is rolled back by it.
    """
    row = tables.partition
    query = select(row.c.id).where(row.c.id == partition, row.c.epoch == epoch).with_for_update()
    if (await connection.execute(query)).first() is None:
        raise UnavailableError("the owner of the job changed; try again", retry_after_s=0.5)
