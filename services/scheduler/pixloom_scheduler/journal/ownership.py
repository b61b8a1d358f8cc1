"""Who owns which partition, judged by Postgres's clock only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from pixloom_scheduler.journal.membership import CHANNEL
from pixloom_scheduler.journal.tables import PARTITIONS

if TYPE_CHECKING:
    import uuid
    from collections.abc import Awaitable, Callable, Iterable

__all__ = ["OUTAGE", "Deployment", "Owned", "Ownership", "connect"]

OUTAGE: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What the calls here raise while the database is away."""

_TAKE: Final = """
UPDATE pixloom.partition p
SET owner = $1, address = $2, epoch = p.epoch + 1, expires_at = clock_timestamp() + make_interval(secs => $3)
FROM (
  SELECT id FROM pixloom.partition
  WHERE (owner = '' OR expires_at < clock_timestamp()) AND id = ANY($5::smallint[])
  ORDER BY id FOR UPDATE SKIP LOCKED LIMIT $4
) free
WHERE p.id = free.id
RETURNING p.id, p.epoch, p.commit_seq
"""
_RELEASE: Final = """
UPDATE pixloom.partition SET owner = '', address = '', expires_at = clock_timestamp()
WHERE owner = $1 AND id = ANY($2::smallint[])
"""
_WHO: Final = "SELECT address, epoch FROM pixloom.partition WHERE id = $1 AND expires_at > clock_timestamp()"


async def connect(dsn: str, *, lease_s: float) -> asyncpg.Connection[Any]:
    """Open a connection whose transactions cannot outlive the lease."""
    below_lease = str(int(lease_s * 1000 * 0.8))
    return await asyncpg.connect(
        dsn,
        timeout=5.0,
        command_timeout=lease_s,
        server_settings={
            "application_name": "pixloom-scheduler",
            "transaction_timeout": below_lease,
            "idle_in_transaction_session_timeout": below_lease,
        },
    )


@dataclass(frozen=True, slots=True)
class Owned:
    """A partition just taken.

    Attributes:
        id: The partition.
        epoch: Epoch of the new ownership.
        commit_seq: Number of its latest commit.
    """

    id: int
    epoch: int
    commit_seq: int


@dataclass(frozen=True, slots=True)
class Deployment:
    """What all replicas on one database share.

    Attributes:
        incarnation: Changes when the database was restored; part of every lease token.
        token_key: Key of the HMAC in lease tokens.
    """

    incarnation: uuid.UUID
    token_key: bytes


class Ownership:
    """Takes and releases partitions for one replica."""

    def __init__(
        self,
        *,
        connect: Callable[[], Awaitable[asyncpg.Connection[Any]]],
        replica: str,
        address: str,
        lease_s: float,
    ) -> None:
        self._connect = connect
        self._replica = replica
        self._address = address
        self._lease_s = lease_s

    async def take(
        self, most: int, among: Iterable[int] = range(PARTITIONS), *, lease_s: float | None = None
    ) -> list[Owned]:
        """Take at most `most` partitions that nobody owns; raising the epoch is a commit of its own.

        Args:
            most: How many to take at most.
            among: Partitions that may be taken: none that the replica holds in memory, whatever the database says.
            lease_s: For how long, seconds; None for the usual time.
        """
        connection = await self._connect()
        try:
            length_s = lease_s or self._lease_s
            rows = await connection.fetch(_TAKE, self._replica, self._address, length_s, most, list(among))
        finally:
            await connection.close()
        return sorted((Owned(row["id"], row["epoch"], row["commit_seq"]) for row in rows), key=lambda owned: owned.id)

    async def release(self, partitions: list[int]) -> None:
        """Give partitions up at once, so that nobody has to wait for the lease to end."""
        connection = await self._connect()
        try:
            await connection.execute(_RELEASE, self._replica, partitions)
            await connection.execute("SELECT pg_notify($1, '')", CHANNEL)
        finally:
            await connection.close()

    async def owner_of(self, partition: int) -> tuple[str, int]:
        """Return address and epoch of the owner of a partition; an empty address if nobody owns it."""
        connection = await self._connect()
        try:
            row = await connection.fetchrow(_WHO, partition)
        finally:
            await connection.close()
        return (row["address"], row["epoch"]) if row else ("", 0)

    async def time(self) -> float:
        """Return the time by the database's clock, seconds since 1970."""
        connection = await self._connect()
        try:
            return float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())"))
        finally:
            await connection.close()

    async def deployment(self) -> Deployment:
        """Return what all replicas share."""
        connection = await self._connect()
        try:
            row = await connection.fetchrow("SELECT incarnation, token_key FROM pixloom.deployment")
        finally:
            await connection.close()
        return Deployment(incarnation=row["incarnation"], token_key=row["token_key"])
