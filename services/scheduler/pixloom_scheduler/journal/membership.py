"""Which replicas are alive and who owns what, as the database shows it, judged by its clock only.

Each replica keeps a row alive that says where it is reached; when the row has expired, the replica does not count any
more. Whoever releases partitions says so on a channel, so that others need not wait for their next look. Who is new says
there, too, where it is and which limits it was given, so that those who were given others can warn. Neither the row nor
the channel decides anything: who owns a partition is told by its epoch alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson
import structlog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import asyncpg

__all__ = ["CHANNEL", "Holding", "Member", "Membership", "Standing"]

CHANNEL: Final = "pixloom_partitions"
"""PostgreSQL channel on which released partitions are announced."""

_LOOK: Final = """
WITH beat AS (
    INSERT INTO pixloom.replica (id, address, expires_at)
    SELECT $1, $2, clock_timestamp() + make_interval(secs => $3) WHERE $4
    ON CONFLICT (id) DO UPDATE SET address = excluded.address, expires_at = excluded.expires_at
    RETURNING id, address, start_time, expires_at
),
alive AS (
    SELECT id, address, start_time, expires_at FROM beat
    UNION ALL
    SELECT id, address, start_time, expires_at FROM pixloom.replica
    WHERE expires_at > clock_timestamp() AND NOT ($4 AND id = $1)
)
SELECT NULL::smallint AS partition, id AS replica, address, 0::bigint AS epoch, start_time,
    extract(epoch FROM expires_at - clock_timestamp())::float8 AS left_s
FROM alive
UNION ALL
SELECT id, owner, address, epoch, NULL, extract(epoch FROM expires_at - clock_timestamp())::float8
FROM pixloom.partition
ORDER BY partition NULLS FIRST, start_time, replica
"""
"""Says that a replica is alive, if it is to, and returns a row for each live replica and each partition.

It is run each second, also where nothing happens: one journey instead of three. What a statement writes it does not see
in the table, hence the row from `beat`.
"""
_LONGEST_LIMITS: Final = 4000
"""Characters of limits that are told in full; PostgreSQL carries 8,000 bytes."""

_SWEEP: Final = "DELETE FROM pixloom.replica WHERE id = $1 OR expires_at < clock_timestamp() - interval '1 minute'"


@dataclass(frozen=True, slots=True)
class Member:
    """A replica that is alive.

    Attributes:
        id: Its id, new at each start.
        address: Where it serves.
        left_s: Time until it does not count any more, unless it says that it is alive.
    """

    id: str
    address: str
    left_s: float


@dataclass(frozen=True, slots=True)
class Holding:
    """A partition.

    Attributes:
        id: The partition.
        owner: Id of its owner; blank if it is free or the owner's lease has ended.
        last_owner: Id of the owner whose lease has ended; blank if there is none or it gave the partition up.
        address: Address of the owner; blank without one.
        epoch: Epoch of the latest ownership.
        left_s: Time until the owner's lease ends, unless it is renewed.
    """

    id: int
    owner: str
    address: str
    epoch: int
    left_s: float
    last_owner: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a look at the database showed.

    Attributes:
        members: The live replicas, the one that has run longest first.
        partitions: Every partition.
    """

    members: tuple[Member, ...]
    partitions: tuple[Holding, ...]

    def next_expiry_s(self, me: str) -> float:
        """Return the time until something of another replica ends that is not renewed; infinite if nothing can."""
        left = [member.left_s for member in self.members if member.id != me]
        left += [holding.left_s for holding in self.partitions if holding.owner not in ("", me)]
        return min(left, default=float("inf"))


class Membership:
    """Says that one replica is alive, and looks who else is; one call at a time."""

    def __init__(
        self,
        *,
        connect: Callable[[], Awaitable[asyncpg.Connection[Any]]],
        replica: str,
        address: str,
        lease_s: float,
        released: Callable[[], None],
        limits: Mapping[str, int] | None = None,
    ) -> None:
        """Name the replica; nothing is written before `look`.

        Args:
            connect: Opens a connection.
            replica: Id of the replica.
            address: Where it serves.
            lease_s: For how long one sign of life counts.
            released: Called when somebody has released partitions.
            limits: Limits that this replica was given, by name; they hold for all replicas together, so a replica that
                comes with others is warned of in the log. None or empty for no limits.
        """
        self._connect = connect
        self._replica = replica
        self._address = address
        self._lease_s = lease_s
        self._released = released
        self._limits = _limits_as_text(limits or {})
        self._log = structlog.get_logger("membership")
        self._connection: asyncpg.Connection[Any] | None = None
        self._is_new = True

    async def look(self, *, alive: bool, lease_s: float | None = None) -> Standing:
        """Return who is alive and who owns what.

        Args:
            alive: Whether to say that this replica is alive.
            lease_s: For how long that counts, seconds; None for the usual time.
        """
        connection = await self._open()
        beat = (self._replica, self._address, lease_s or self._lease_s, alive)
        try:
            rows = await connection.fetch(_LOOK, *beat)
            if alive and self._is_new:
                # The others' shares have changed. Of two that are new at once, neither may have seen the other.
                said = orjson.dumps({"address": self._address, "limits": self._limits}).decode()
                await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, said)
                self._is_new = False
                rows = await connection.fetch(_LOOK, *beat)
        except BaseException:
            self._drop()
            raise
        return Standing(
            members=tuple(
                Member(row["replica"], row["address"], row["left_s"]) for row in rows if row["partition"] is None
            ),
            partitions=tuple(_holding(row) for row in rows if row["partition"] is not None),
        )

    async def leave(self) -> None:
        """Say that this replica is gone."""
        connection = await self._open()
        try:
            await connection.execute(_SWEEP, self._replica)
        except BaseException:
            self._drop()
            raise

    async def close(self) -> None:
        """Close the connection; idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            await connection.close()

    async def _open(self) -> asyncpg.Connection[Any]:
        if self._connection is None or self._connection.is_closed():
            connection = await self._connect()
            # A sign of life that a crash takes back is no loss, and costs no sync.
            await connection.execute("SET synchronous_commit = off")
            await connection.execute(_SWEEP, "")
            await connection.add_listener(CHANNEL, self._heard)
            self._connection = connection
        return self._connection

    def _heard(self, _connection: object, _pid: int, _channel: str, said: object) -> None:
        self._released()
        try:
            told = orjson.loads(str(said) or "{}")
        except orjson.JSONDecodeError:
            return
        # Replicas before this version say nothing of themselves.
        theirs = told.get("limits") if isinstance(told, dict) else None
        if isinstance(theirs, str) and theirs != self._limits:
            self._log.warning(
                "limits_differ",
                other=str(told.get("address", ""))[:256],
                theirs=theirs[:_LONGEST_LIMITS] or "none",
                ours=self._limits or "none",
                remedy="give all schedulers the same PIXLOOM_LIMITS, and start again those that had others",
            )

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


def _limits_as_text(limits: Mapping[str, int]) -> str:
    """Return limits in an order of their own, as they are written in a setting; a digest of many."""
    text = ", ".join(f"{name}={most}" for name, most in sorted(limits.items()))
    return text if len(text) <= _LONGEST_LIMITS else f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _holding(row: Any) -> Holding:
    is_owned = bool(row["replica"]) and row["left_s"] > 0
    return Holding(
        id=row["partition"],
        owner=row["replica"] if is_owned else "",
        address=row["address"] if is_owned else "",
        epoch=row["epoch"],
        left_s=row["left_s"],
        last_owner="" if is_owned else row["replica"],
    )
