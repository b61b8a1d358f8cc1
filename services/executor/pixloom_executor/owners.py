"""Which scheduler replica owns which partition, and the session with each replica.

An executor holds one session with every replica that it knows of: those of its settings, and those that a replica
names. Each replica says which partitions it owns, with the epoch of its ownership, and the highest epoch counts. Claims,
results and hand-backs go to the owner of their job's partition. Whoever takes a partition over says so on its session,
and is then told of every lease and every result without acknowledgement that this executor has of that partition. Where
no owner is known whose session is up, any replica is asked (`WhoOwns`); it looks into the database, so its answer counts
even with a lower epoch: the database was put back to an earlier moment then.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

import structlog

from pixloom.v1 import executor_pb2
from pixloom_executor.session import Session, SessionLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pixloom_executor.leases import LeaseBook

__all__ = ["Owners"]

SEEK_EVERY_S: Final = 1.0


class Owners:
    """Sessions by address, owners by partition."""

    def __init__(
        self, *, configured: Iterable[str], open_session: Callable[[str, Owners], Session], book: LeaseBook
    ) -> None:
        """Name the replicas of the settings; nothing is opened before `run`.

        Args:
            configured: Addresses of the settings; sessions with them are kept whatever happens.
            open_session: Makes the session with the replica at an address.
            book: Leases held and results without acknowledgement.
        """
        self._configured = tuple(dict.fromkeys(configured))
        self._open_session = open_session
        self._book = book
        self._sessions = {address: open_session(address, self) for address in self._configured}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._names: dict[str, str] = {}
        self._owners: dict[int, tuple[int, str]] = {}
        self._sought: set[int] = set()
        self._wanted = asyncio.Event()
        self._is_resting = False
        self._log = structlog.get_logger("owners")

    @property
    def is_any_up(self) -> bool:
        """Whether some replica has welcomed us."""
        return any(session.is_up for session in self._sessions.values())

    def owner(self, partition: int) -> Session | None:
        """Return the session with the owner of a partition; None if it is not known or its session is down."""
        _, address = self._owners.get(partition, (0, ""))
        session = self._sessions.get(address)
        if session is not None and session.is_up:
            return session
        return None

    def tell_room(self) -> None:
        """Tell every replica how it is here, ahead of the next heartbeat."""
        for session in self._sessions.values():
            session.send_heartbeat()

    def claimant(self, batch: executor_pb2.LeaseBatch) -> Session | None:
        """Return the session on which to claim a dispatch; None if its owner cannot be reached now."""
        epoch, _ = self._owners.get(batch.partition, (0, ""))
        if batch.owner_epoch > epoch:
            # The message knows of a later owner than we do; who really is the owner is told by the claim's answer.
            session = self._sessions.get(self._names.get(batch.owner_address, batch.owner_address))
            if session is not None and session.is_up:
                return session
        else:
            session = self.owner(batch.partition)
            if session is not None:
                return session
        self.seek(batch.partition)
        return None

    # -- What replicas say --------------------------------------------------------------------------------------------

    def welcomed(self, session: Session, welcome: executor_pb2.Welcome) -> None:
        """Take in the first message of a replica."""
        if welcome.address:
            # An address that several replicas share leads to another one after it broke.
            self._names = {name: address for name, address in self._names.items() if address != session.address}
            self._names[welcome.address] = session.address
        self.owned(session, welcome.owned)
        self.replicas(welcome.replicas)

    def owned(self, session: Session, partitions: Iterable[executor_pb2.OwnedPartition]) -> None:
        """Take in that a replica owns partitions, and tell it what is held of them."""
        mine = []
        for each in partitions:
            epoch, address = self._owners.get(each.partition, (0, ""))
            # A replica never goes back in what it says of itself, unless its database was put back to an earlier moment.
            if each.epoch >= epoch or address == session.address:
                self._owners[each.partition] = (each.epoch, session.address)
                mine.append(each.partition)
        if not mine:
            return
        session.send_announce(executor_pb2.Announce(leases=self._book.announced(mine), partitions=mine))
        for report in self._book.unacknowledged(mine):
            session.send_report(report)

    def granted(self, session: Session, batch: executor_pb2.LeaseBatch) -> None:
        """Take in that a replica granted work, which is in the book: it owns the partition, whatever was known so far."""
        if self._is_resting:
            self._wanted.set()
        if batch.owner_epoch > self._owners.get(batch.partition, (0, ""))[0]:
            self.owned(session, [executor_pb2.OwnedPartition(partition=batch.partition, epoch=batch.owner_epoch)])

    def replicas(self, addresses: Iterable[str]) -> None:
        """Open sessions with replicas that were not known, and give up those that are gone."""
        named = {self._names.get(address, address) for address in addresses}
        if not named:
            return
        for address in sorted(named - self._sessions.keys()):
            self._log.info("replica_found", address=address)
            self._sessions[address] = self._open_session(address, self)
            self._wanted.set()
        for address in sorted(self._sessions.keys() - named - set(self._configured)):
            if not self._sessions[address].is_up:
                del self._sessions[address]
                self._wanted.set()

    def seek(self, partition: int) -> None:
        """Ask for the owner of a partition."""
        self._sought.add(partition)
        self._wanted.set()

    # -- Running ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the sessions open and look for owners, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                for address in sorted(self._sessions.keys() - self._running.keys()):
                    self._running[address] = tasks.create_task(self._sessions[address].run(), name="session")
                for address in sorted(self._running.keys() - self._sessions.keys()):
                    self._running.pop(address).cancel()
                await self._seek()
                self._wanted.clear()
                # Owners may be lost as long as something is held of them; who holds nothing sleeps until it does.
                self._is_resting = not (self._sought or self._book.partitions())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if self._is_resting else SEEK_EVERY_S):
                        await self._wanted.wait()
                self._is_resting = False

    async def _seek(self) -> None:
        """Ask any replica for the owners of partitions of which something is held or waits to be claimed."""
        sought, self._sought = self._sought, set()
        for partition in sorted(sought | self._book.partitions()):
            if self.owner(partition) is not None and partition not in sought:
                continue
            answer = await self._ask(partition)
            if answer is None:
                continue
            address = self._names.get(answer.address, answer.address)
            if address not in self._sessions:
                self.replicas([*self._sessions, address])
            session = self._sessions[address]
            if session.is_up and self._owners.get(partition) != (answer.epoch, address):
                # The database was asked, so this holds also where a later epoch was known: it was put back.
                self._owners.pop(partition, None)
                self.owned(session, [executor_pb2.OwnedPartition(partition=partition, epoch=answer.epoch)])

    async def _ask(self, partition: int) -> executor_pb2.WhoOwnsResponse | None:
        for session in [session for session in self._sessions.values() if session.is_up]:
            try:
                answer = await session.who_owns(partition)
            except SessionLostError:
                continue
            if answer.address:
                return answer
        return None
