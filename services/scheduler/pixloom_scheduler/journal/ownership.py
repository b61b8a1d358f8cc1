"""Who owns which partition, judged by Postgres's clock only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from pixloom_scheduler.journal.committer import CommitsLostError
from pixloom_scheduler.journal.membership import CHANNEL
from pixloom_scheduler.journal.tables import PARTITIONS

if TYPE_CHECKING:
    import uuid
    from collections.abc import Awaitable, Callable, Iterable

__all__ = ["OUTAGE", "Deployment", "Owned", "Ownership", "connect", "read_deployment"]

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
RETURNING p.id, p.epoch, p.commit_seq, (SELECT incarnation FROM pixloom.deployment) AS incarnation, (
  SELECT system.system_identifier || '.' || checkpoint.timeline_id
  FROM pg_control_system() system, pg_control_checkpoint() checkpoint
) AS cluster
"""
_DEPLOYMENT: Final = """
SELECT d.incarnation, d.token_key, d.system_identifier AS known,
  system.system_identifier || '.' || checkpoint.timeline_id AS cluster
FROM pixloom.deployment d, pg_control_system() system, pg_control_checkpoint() checkpoint
"""
_IN_ANOTHER_CLUSTER: Final = """
UPDATE pixloom.deployment
SET incarnation = CASE WHEN $2 LIKE $1 || '.%' THEN incarnation ELSE gen_random_uuid() END, system_identifier = $2
WHERE system_identifier = $1
"""
"""A database that was restored is in another cluster, or on another timeline of its own: what was leased is stale then.

A cluster whose timeline was not written down yet is the same one.
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
        cluster: Identity and timeline of the PostgreSQL cluster that it is in.
        token_key: Key of the HMAC in lease tokens.
    """

    incarnation: uuid.UUID
    cluster: str
    token_key: bytes


async def read_deployment(connect: Callable[[], Awaitable[asyncpg.Connection[Any]]]) -> Deployment:
    """Return what all replicas share, under a new incarnation if the database was restored into another cluster.

    Args:
        connect: Opens a connection.
    """
    connection = await connect()
    try:
        row = await connection.fetchrow(_DEPLOYMENT)
        while row["known"] != row["cluster"]:
            await connection.execute(_IN_ANOTHER_CLUSTER, row["known"], row["cluster"])
            row = await connection.fetchrow(_DEPLOYMENT)
    finally:
        await connection.close()
    return Deployment(row["incarnation"], row["cluster"], row["token_key"])


class Ownership:
    """Takes and releases partitions for one replica."""

    def __init__(
        self,
        *,
        connect: Callable[[], Awaitable[asyncpg.Connection[Any]]],
        replica: str,
        address: str,
        lease_s: float,
        deployment: Deployment | None = None,
    ) -> None:
        """Name the replica.

        Args:
            connect: Opens a connection.
            replica: Its id.
            address: Where it serves.
            lease_s: For how long it owns what it takes.
            deployment: What it knows of the database; nothing is taken of one that was restored since. None if it
                does not matter.
        """
        self._connect = connect
        self._replica = replica
        self._address = address
        self._lease_s = lease_s
        self._deployment = deployment

    async def take(
        self, most: int, among: Iterable[int] = range(PARTITIONS), *, lease_s: float | None = None
    ) -> list[Owned]:
        """Take at most `most` partitions that nobody owns; raising the epoch is a commit of its own.

        Args:
            most: How many to take at most.
            among: Partitions that may be taken: none that the replica holds in memory, whatever the database says.
            lease_s: For how long, seconds; None for the usual time.

        Raises:
            CommitsLostError: If the database was restored since the deployment was read: executors hold leases of what
                was lost, and only who knows the new incarnation can tell that they are stale. Nothing is taken.
        """
        connection = await self._connect()
        try:
            length_s = lease_s or self._lease_s
            rows = await connection.fetch(_TAKE, self._replica, self._address, length_s, most, list(among))
            if any(self._was_restored(row["incarnation"], row["cluster"]) for row in rows):
                taken = [row["id"] for row in rows]
                await connection.execute(_RELEASE, self._replica, taken)
                raise CommitsLostError(frozenset(taken))
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

    def _was_restored(self, incarnation: uuid.UUID, cluster: str) -> bool:
        known = self._deployment
        return known is not None and (known.incarnation, known.cluster) != (incarnation, cluster)
