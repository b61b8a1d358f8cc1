"""The executors in session with this replica, and which leases they hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Iterator

    from pixloom.v1 import executor_pb2

__all__ = ["ExecutorRegistry", "ExecutorSession"]

MOST_KNOWN_OFFERS: Final = 4096
"""Sets of ops whose answer is remembered."""


@dataclass(slots=True)
class ExecutorSession:
    """One executor's open stream.

    Attributes:
        hello: Its first message.
        outbox: Messages to be sent to it; None ends the stream.
        start: When the session began, seconds.
        last_seen: When it was last heard of, seconds.
        busy: Slots in use, as it says.
        draining: Whether it takes nothing new.
        leases: Job and lease id by token.
        ops: Names with versions of the ops that it serves.
    """

    hello: executor_pb2.Hello
    outbox: asyncio.Queue[executor_pb2.SessionResponse | None]
    start: float
    last_seen: float
    busy: int = 0
    draining: bool = False
    leases: dict[bytes, tuple[str, int]] = field(default_factory=dict)
    ops: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.ops = frozenset(op.name for op in self.hello.ops)

    @property
    def id(self) -> str:
        """Id of the executor."""
        return self.hello.executor_id


class ExecutorRegistry:
    """Sessions by executor id."""

    def __init__(self) -> None:
        self._sessions: dict[str, ExecutorSession] = {}
        self._pools: frozenset[str] | None = None
        self._offers: dict[tuple[str, frozenset[str]], bool] = {}

    def __iter__(self) -> Iterator[ExecutorSession]:
        return iter(sorted(self._sessions.values(), key=lambda session: session.id))

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, executor: str) -> ExecutorSession | None:
        """Return the session of an executor, or None."""
        return self._sessions.get(executor)

    def add(self, session: ExecutorSession) -> None:
        """Remember a session; a newer one of the same executor replaces the older."""
        self._sessions[session.id] = session
        self.forget_pools()

    def remove(self, session: ExecutorSession) -> None:
        """Forget a session unless a newer one of the same executor took its place."""
        if self._sessions.get(session.id) is session:
            del self._sessions[session.id]
            self.forget_pools()

    def pools(self) -> frozenset[str]:
        """Return the pools that are served."""
        if self._pools is None:
            self._pools = frozenset(
                pool for session in self._sessions.values() if not session.draining for pool in session.hello.pools
            )
        return self._pools

    def slots(self, pool: str) -> int:
        """Return the number of slots in a pool."""
        return sum(
            session.hello.slots
            for session in self._sessions.values()
            if pool in session.hello.pools and not session.draining
        )

    def offers(self, pool: str, ops: Iterable[str]) -> bool:
        """Return whether one executor of a pool has all of some ops."""
        wanted = (pool, frozenset(ops))
        known = self._offers.get(wanted)
        if known is None:
            if len(self._offers) >= MOST_KNOWN_OFFERS:
                self._offers.clear()
            known = self._offers[wanted] = any(
                pool in session.hello.pools and wanted[1] <= session.ops
                for session in self._sessions.values()
                if not session.draining
            )
        return known

    def forget_pools(self) -> None:
        """Count pools and ops again; to be called when a session began to drain."""
        self._pools = None
        self._offers.clear()
