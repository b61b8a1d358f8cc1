"""Which partitions this replica owns: takes free ones, gives up what it has too much, knows the owners of the others.

A look at the database (`journal.membership`) once a second, at the moment at which somebody else's lease ends, and
whenever somebody comes or says that partitions were released. What follows from it is decided by `levelling`, and the
jobs of a partition that was taken are loaded by `loading`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from pixloom.errors import UnavailableError
from pixloom_scheduler.alarms import wait_or_set
from pixloom_scheduler.job import partition_of
from pixloom_scheduler.journal.ownership import OUTAGE
from pixloom_scheduler.journal.tables import PARTITIONS
from pixloom_scheduler.levelling import next_move, place_among
from pixloom_scheduler.loading import Loading
from pixloom_scheduler.setbacks import Setbacks

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixloom_scheduler.journal.membership import Holding, Membership, Standing
    from pixloom_scheduler.journal.ownership import Ownership
    from pixloom_scheduler.loading import JobSource, Takeovers
    from pixloom_scheduler.replica import Replica

__all__ = ["Partitions"]

LOOK_EVERY_S: Final = 1.0
PUNCTUAL_S: Final = 0.25
"""Lateness of a look that may happen to anybody."""

MOST_GRACE_S: Final = 15.0
"""The longest time by which others' leases are drawn out, as we were late ourselves."""

_RETRY_S: Final = 0.2
_TOGETHER_S: Final = 0.02
"""Time between a look and a renewal that counts as none."""

_OUTAGE: Final = (*OUTAGE, UnavailableError)


class Partitions:
    """Owns partitions for one replica, in step with the others."""

    def __init__(
        self,
        *,
        replica_id: str,
        address: str,
        replica: Replica,
        ownership: Ownership,
        membership: Callable[[Callable[[], None]], Membership],
        jobs: JobSource,
        takeovers: Takeovers,
        monotonic: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        """Tie the parts together; nothing is taken before `join`.

        Args:
            replica_id: Id of this replica, new at each start.
            address: Where it serves.
            replica: The loop that serves what is owned.
            ownership: Takes and releases.
            membership: Makes the view of the other replicas, given what to call when partitions were released.
            jobs: Loads jobs.
            takeovers: Is told of partitions taken.
            monotonic: A clock that never jumps, seconds.
            chance: Draws a number from 0 to 1.
        """
        self.address = address
        self._id = replica_id
        self._replica = replica
        self._ownership = ownership
        self._membership = membership(self._hear)
        self.loading = Loading(replica=replica, jobs=jobs, takeovers=takeovers)
        self._monotonic = monotonic
        self._setbacks = Setbacks(monotonic=monotonic, chance=chance)
        self._losses_seen = 0
        self._looked: float | None = None
        self._late_s = 0.0
        self._standing: Standing | None = None
        self._heard = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._is_closing = False
        self._place = (0, 1)
        self._divide: Callable[[int, int], None] | None = None
        self._log = structlog.get_logger("partitions")

    def connect(self, divide: Callable[[int, int], None]) -> None:
        """Name who is told this replica's place among those that may have jobs, and their number, when it changes."""
        self._divide = divide

    # -- Who owns what ------------------------------------------------------------------------------------------------

    def addresses(self) -> list[str]:
        """Return where the live replicas serve, this one among them."""
        members = self._standing.members if self._standing is not None else ()
        return sorted({self.address, *(member.address for member in members)})

    def known_owner(self, partition: int) -> tuple[str, int]:
        """Return address and epoch of a partition's owner at the last look; a blank address if it had none."""
        stamp = self._replica.stamps.get(partition)
        if stamp is not None and self._replica.serves(partition) and self._replica.is_inside_lease:
            return self.address, stamp.epoch
        for holding in self._standing.partitions if self._standing is not None else ():
            if holding.id == partition and holding.owner not in ("", self._id):
                return holding.address, holding.epoch
        return "", 0

    async def owner_of(self, partition: int) -> tuple[str, int]:
        """Return address and epoch of a partition's owner now; a blank address if it has none.

        Raises:
            UnavailableError: If the database does not answer.
        """
        known = self.known_owner(partition)
        if known[0] == self.address:
            return known
        try:
            async with self._one_at_a_time:
                self._standing = await self._membership.look(alive=False)
        except _OUTAGE as error:
            raise UnavailableError(
                "the database does not answer at the moment; try again", retry_after_s=1.0
            ) from error
        return self.known_owner(partition)

    def is_elsewhere(self, job_id: str) -> bool:
        """Return whether a job may be served by another replica; one that cannot exist is nobody's."""
        partition = partition_of(job_id)
        return 0 <= partition < PARTITIONS and not self._replica.serves(partition)

    # -- Taking and giving --------------------------------------------------------------------------------------------

    async def join(self) -> None:
        """Return once this replica owns its first partitions, or others own them all.

        Raises:
            UnavailableError: If the database does not answer.
        """
        while not self._replica.stamps:
            try:
                wait_s = await self._level()
            except _OUTAGE as error:
                raise UnavailableError("the database does not answer; check PIXLOOM_DATABASE_URL") from error
            standing = self._standing
            if standing is not None and len(standing.members) > len(standing.partitions):
                return
            if not self._replica.stamps:
                await wait_or_set(self._heard, wait_s)

    async def run(self) -> None:
        """Keep in step with the others until cancelled."""
        while True:
            wait_s = _RETRY_S
            try:
                wait_s = await self._level()
            except _OUTAGE as error:
                self._log.warning("look_failed", error=type(error).__name__)
            await wait_or_set(self._heard, wait_s)

    async def release_all(self) -> None:
        """Make everything durable, give all partitions back at once and be gone."""
        self._is_closing = True
        try:
            # First, so that the others' shares grow before they see the partitions.
            await self._membership.leave()
        finally:
            await self._replica.leave(sorted(self._replica.stamps))
            await self._ownership.release(list(range(PARTITIONS)))

    async def close(self) -> None:
        """End what is under way; idempotent."""
        await self.loading.close()
        await self._membership.close()

    def _hear(self) -> None:
        self._heard.set()

    async def _level(self) -> float:
        """Look, and do what follows; return when to look again, seconds from now."""
        self._heard.clear()
        if self._is_closing:
            return LOOK_EVERY_S
        replica = self._replica
        await self._note_losses()
        # Who does not get through to the database with its commits must not keep others from taking over.
        alive = (not replica.stamps or replica.is_inside_lease) and not self._setbacks.left_s
        lease_s = replica.lease.length_s
        async with self._one_at_a_time:
            standing = self._standing = await self._membership.look(alive=alive, lease_s=lease_s)
        self._note_lateness()
        if self._setbacks.left_s and not any(member.id != self._id for member in standing.members):
            # There is nobody to leave anything to.
            self._setbacks.end()
            return 0.0
        strays = [
            holding.id
            for holding in standing.partitions
            if holding.owner == self._id and holding.id not in replica.stamps
        ]
        if strays:
            # A transaction that took them went unanswered, or one that released them.
            await self._ownership.release(strays)
        owners = {holding.id: self._owner(holding) for holding in standing.partitions}
        members = [member.id for member in standing.members]
        self._note_place(place_among(self._id, members, owners))
        move = next_move(self._id, members, owners, jobs=self._count_jobs())
        if move.give:
            self._log.info("partitions_given", partitions=list(move.give))
            await replica.leave(move.give)
            await self._ownership.release(list(move.give))
        if move.take and not self._is_closing:
            await self._take(move.take, [partition for partition, owner in owners.items() if not owner])
        waited_for = [self._late_s + holding.left_s for holding in standing.partitions if self._waits_for(holding)]
        next_s = min(standing.next_expiry_s(self._id), *waited_for, LOOK_EVERY_S)
        return min(self._next_look_s(), max(0.02, next_s + 0.02), self._setbacks.left_s or LOOK_EVERY_S)

    def _next_look_s(self) -> float:
        """Return when to look again for no other reason than the time: together with the renewal, so as to wake once."""
        due_s = self._replica.lease.due_s if self._replica.stamps else 0.0
        return due_s if _TOGETHER_S < due_s < LOOK_EVERY_S else LOOK_EVERY_S

    def _note_place(self, place: tuple[int, int]) -> None:
        """Pass on another place, before anything is taken or given up on the strength of it."""
        if place != self._place:
            self._place = place
            if self._divide is not None:
                self._divide(*place)

    async def _note_losses(self) -> None:
        """Stand back for a while if partitions were lost since the last look."""
        losses, seen = self._replica.losses, self._losses_seen
        self._losses_seen = losses
        if losses == seen:
            return
        self._setbacks.note()
        self._log.warning("standing_back", seconds=round(self._setbacks.left_s, 1))
        # At once, or others would leave to us what we are not going to take.
        async with self._one_at_a_time:
            await self._membership.leave()

    def _note_lateness(self) -> None:
        """Take in by how much this look came later than it should have, wherever the time went."""
        now = self._monotonic()
        late_s = now - self._looked - LOOK_EVERY_S if self._looked is not None else 0.0
        self._looked = now
        self._late_s = min(late_s, MOST_GRACE_S) if late_s > PUNCTUAL_S else 0.0

    def _owner(self, holding: Holding) -> str:
        """Return the owner of a partition, blank for none."""
        if holding.id in self._replica.stamps:
            return self._id
        return holding.last_owner if self._waits_for(holding) else holding.owner

    def _waits_for(self, holding: Holding) -> bool:
        """Return whether an owner whose lease has ended is given more time.

        What has kept us from looking in time may have kept it from renewing, and we may only be the first to go on:
        it has as much more time as we were late.
        """
        return bool(holding.last_owner) and holding.last_owner != self._id and -holding.left_s < self._late_s

    async def _take(self, most: int, free: list[int]) -> None:
        since = self._monotonic()
        length_s = self._replica.lease.length_s
        owned = await self._ownership.take(most, free, lease_s=length_s)
        if not owned:
            return
        self._replica.own(owned, [], since=since, length_s=length_s)
        self._log.info("partitions_taken", partitions=[partition.id for partition in owned])
        self.loading.begin(owned)

    def _count_jobs(self) -> dict[int, int]:
        counts: dict[int, int] = {}
        for live in self._replica.jobs.values():
            counts[live.header.partition] = counts.get(live.header.partition, 0) + 1
        return counts
