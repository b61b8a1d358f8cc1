"""The group commit: one connection, one transaction at a time, fenced by epoch and commit number.

The first statement of each transaction updates the partitions it writes to, and only where epoch and commit number are
the expected ones; it carries most of what is written too, as each further statement would cost a journey. A batch of one
partition that it carries whole is a transaction by itself: without the fence it writes nothing, and BEGIN and COMMIT
would be two journeys more. A batch that only renews the lease is one statement as well, for all partitions or none. The
row locks make a takeover wait for it; the number makes an unknown commit decidable. When
the connection breaks with a commit under way, the identical batch is sent again on a new one: if the fence then finds no
row, the partition row tells which of three things happened. Same epoch and our number: it was committed. Another
epoch: somebody took over. A lower number: Postgres lost commits.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

import asyncpg
import structlog

from pixloom_scheduler.crash_points import reach
from pixloom_scheduler.journal.revisions import write_replans, write_revisions
from pixloom_scheduler.journal.statements import (
    END_TYPES,
    FIRST,
    FIRST_WITH_JOBS,
    INSERT_JOBS,
    INSERT_ROWS,
    MOST_INLINE_ROWS,
    NODE_TYPES,
    RENEW,
    common_once,
    job_row,
    row_columns,
)

if TYPE_CHECKING:
    import uuid
    from collections.abc import Awaitable, Callable

    from pixloom_scheduler.journal.batch import Batch

__all__ = [
    "BadRowError",
    "CommitsLostError",
    "Committer",
    "JournalWriter",
    "OwnershipLostError",
    "RepeatedRequestError",
]

_REPEATED: Final = """
SELECT project, request_id FROM pixloom.job
WHERE (project, request_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
"""
_REQUESTS: Final = "job_by_request"
"""The index that lets in one job for each request."""

MOST_INLINE_BYTES: Final = 256 * 1024
"""Documents and plans of new jobs up to which they go with the first statement; larger ones follow it."""

_NEW_INCARNATION: Final = "UPDATE pixloom.deployment SET incarnation = gen_random_uuid() WHERE incarnation = $1"
_STANDING: Final = "SELECT id, epoch, commit_seq FROM pixloom.partition WHERE id = ANY($1::smallint[])"
_CONNECTION_ERRORS: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    # A transaction that outlasted its time, or a standby that is not the primary yet.
    asyncpg.InvalidTransactionStateError,
)
_DATA_ERRORS: Final = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    ValueError,
    TypeError,
    OverflowError,
)


class OwnershipLostError(Exception):
    """Another replica took partitions over; nothing of the batch was written.

    Attributes:
        partitions: The partitions that are gone.
    """

    def __init__(self, partitions: frozenset[int]) -> None:
        super().__init__(f"partitions {sorted(partitions)} belong to another replica")
        self.partitions = partitions


class CommitsLostError(Exception):
    """Postgres is at an earlier commit than we saw; memory must be thrown away.

    Attributes:
        partitions: The partitions concerned.
    """

    def __init__(self, partitions: frozenset[int]) -> None:
        super().__init__(f"Postgres lost commits of partitions {sorted(partitions)}")
        self.partitions = partitions


class RepeatedRequestError(Exception):
    """Requests of new jobs have jobs already, accepted by another replica; nothing of the batch was written.

    Attributes:
        jobs: Ids of the new jobs.
    """

    def __init__(self, jobs: frozenset[str]) -> None:
        super().__init__(f"the requests of {len(jobs)} new jobs have jobs already")
        self.jobs = jobs


class BadRowError(Exception):
    """Postgres refused a value in the batch; nothing of it was written."""


class JournalWriter(Protocol):
    """The port through which state becomes durable."""

    async def commit(self, batch: Batch) -> float:
        """Make a batch durable and return the time by the database's clock, seconds.

        Raises:
            OwnershipLostError: If a partition belongs to somebody else.
            CommitsLostError: If the database went back in time.
            RepeatedRequestError: If requests of new jobs have jobs already; the batch can be tried without them.
            BadRowError: If a value is refused; the batch can be tried in parts.
        """


class Committer:
    """Commits batches on a connection of its own, and makes a new one when it breaks."""

    def __init__(
        self,
        *,
        connect: Callable[[], Awaitable[asyncpg.Connection[Any]]],
        lease_s: float,
        retry_delay_s: float = 0.05,
        incarnation: uuid.UUID | None = None,
    ) -> None:
        """Name how connections are made; nothing is connected before the first batch.

        Args:
            connect: Opens a connection.
            lease_s: Seconds for which a commit renews the ownership of its partitions.
            retry_delay_s: Seconds before a broken connection is made anew for the first time.
            incarnation: The incarnation of the database as it was at the start, which ends when commits were lost.
        """
        self._connect = connect
        self._incarnation = incarnation
        self._lease_s = lease_s
        self._retry_delay_s = retry_delay_s
        self._connection: asyncpg.Connection[Any] | None = None
        self._log = structlog.get_logger("committer")

    async def commit(self, batch: Batch) -> float:
        """Make a batch durable; see `JournalWriter`."""
        delay = self._retry_delay_s
        while True:
            try:
                return await asyncio.shield(self._commit_once(batch))
            except _DATA_ERRORS as error:
                if isinstance(error, _CONNECTION_ERRORS):
                    raise
                raise BadRowError(str(error)) from error
            except _CONNECTION_ERRORS as error:
                self._log.warning("commit_retried", error=type(error).__name__, rows=len(batch.rows))
                await self._drop_connection()
                await asyncio.sleep(delay)
                delay = min(delay * 2, 1.0)

    async def _commit_once(self, batch: Batch) -> float:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect()
        connection = self._connection
        try:
            if _is_one_statement(batch):
                reach("commit.before")
                fenced = await self._first(connection, batch)
                read_at = asyncio.get_running_loop().time()
            else:
                fenced, read_at = await self._transact(connection, batch)
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name == _REQUESTS:
                repeated = await self._repeated(connection, batch)
                if repeated:
                    raise RepeatedRequestError(repeated) from error
            raise
        if len(fenced) != len(batch.stamps):
            return await self._judge(connection, batch)
        reach("commit.after")
        return float(fenced[0][1]) + asyncio.get_running_loop().time() - read_at

    async def _transact(self, connection: asyncpg.Connection[Any], batch: Batch) -> tuple[list[Any], float]:
        """Commit a batch that takes several statements, or nothing of it if not all of its partitions are ours.

        Returns:
            The partitions that are ours with the database's time, and when that was read by the loop's.
        """
        transaction = connection.transaction()
        await transaction.start()
        try:
            fenced = await self._first(connection, batch)
            read_at = asyncio.get_running_loop().time()
            if len(fenced) == len(batch.stamps):
                await self._write(connection, batch)
        except BaseException:
            if not connection.is_closed():
                await transaction.rollback()
            raise
        if len(fenced) != len(batch.stamps):
            await transaction.rollback()
            return fenced, read_at
        reach("commit.before")
        await transaction.commit()
        return fenced, read_at

    async def _first(self, connection: asyncpg.Connection[Any], batch: Batch) -> list[Any]:
        """Run the first statement of a batch."""
        ids = sorted(batch.stamps)
        fence = (
            ids,
            [batch.stamps[i].epoch for i in ids],
            [batch.stamps[i].seq for i in ids],
            timedelta(seconds=batch.lease_s or self._lease_s),
        )
        if _is_renewal(batch):
            renewed: list[Any] = await connection.fetch(RENEW, *fence)
            return renewed
        inline = batch.rows if len(batch.rows) <= MOST_INLINE_ROWS else []
        new = {job.header.id for job in batch.jobs}
        # What has become of a job that is new itself is in its row.
        endings = [ending for ending in batch.endings.values() if ending.id not in new]
        jobs = _job_columns(batch) if batch.jobs and _are_jobs_inline(batch) else []
        fenced: list[Any] = await connection.fetch(
            FIRST_WITH_JOBS if jobs else FIRST,
            *fence,
            *row_columns(inline),
            *common_once([getattr(node, column) for node in batch.nodes] for column in NODE_TYPES),
            *([getattr(ending, column) for ending in endings] for column in END_TYPES),
            *jobs,
        )
        return fenced

    async def _judge(self, connection: asyncpg.Connection[Any], batch: Batch) -> float:
        """Tell what became of a batch whose fence did not hold."""
        ids = sorted(batch.stamps)
        standing = {row["id"]: (row["epoch"], row["commit_seq"]) for row in await connection.fetch(_STANDING, ids)}
        foreign = frozenset(i for i in ids if standing[i][0] != batch.stamps[i].epoch)
        if foreign:
            raise OwnershipLostError(foreign)
        behind = frozenset(i for i in ids if standing[i][1] < batch.stamps[i].seq)
        if behind:
            # What was leased in the time that was lost must not be taken for leases of the time that comes.
            await connection.execute(_NEW_INCARNATION, self._incarnation)
            raise CommitsLostError(behind)
        return float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())"))

    async def _repeated(self, connection: asyncpg.Connection[Any], batch: Batch) -> frozenset[str]:
        """Return the new jobs whose requests have jobs already."""
        headers = [new.header for new in batch.jobs if new.header.request_id]
        rows = await connection.fetch(
            _REPEATED, [header.project for header in headers], [header.request_id for header in headers]
        )
        known = {(row["project"], row["request_id"]) for row in rows}
        return frozenset(header.id for header in headers if (header.project, header.request_id) in known)

    async def _write(self, connection: asyncpg.Connection[Any], batch: Batch) -> None:
        """Write what the first statement could not carry: jobs and journal rows that are too many for it, and revisions."""
        if not _are_jobs_inline(batch):
            await connection.execute(INSERT_JOBS, *_job_columns(batch))
        if len(batch.rows) > MOST_INLINE_ROWS:
            for first in range(0, len(batch.rows), MOST_INLINE_ROWS):
                rows = batch.rows[first : first + MOST_INLINE_ROWS]
                await connection.execute(INSERT_ROWS, *row_columns(rows))
        if batch.revisions:
            await write_revisions(connection, batch.revisions)
        if batch.replans:
            await write_replans(connection, batch.replans)

    async def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def close(self) -> None:
        """Close the connection; idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            await connection.close()


def _is_renewal(batch: Batch) -> bool:
    """Return whether a batch says nothing but that its partitions are still ours."""
    return batch.is_empty and not (batch.revisions or batch.replans)


def _is_one_statement(batch: Batch) -> bool:
    """Return whether the first statement of a batch writes all of it or nothing.

    With several partitions it could be ours to write to some of them only, and would raise the numbers of those; the one
    that only renews does not.
    """
    further = batch.revisions or batch.replans or len(batch.rows) > MOST_INLINE_ROWS or not _are_jobs_inline(batch)
    return _is_renewal(batch) or (len(batch.stamps) == 1 and not further)


def _are_jobs_inline(batch: Batch) -> bool:
    """Return whether the first statement carries the new jobs of a batch, if there are any."""
    return sum(len(new.spec) + len(new.plan) for new in batch.jobs) <= MOST_INLINE_BYTES


def _job_columns(batch: Batch) -> list[list[Any]]:
    rows = [job_row(new, batch.endings.get(new.header.id)) for new in batch.jobs]
    return common_once(zip(*rows, strict=True))
