"""The executors in session with this replica, which leases they hold, and which of them has room for work at once."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Iterator, Mapping

    from pixloom.v1 import executor_pb2
    from pixloom_scheduler.core.model import JobRun, LeaseRun

__all__ = ["ExecutorRegistry", "ExecutorSession", "HeldLease", "Holdings"]

MOST_KNOWN_OFFERS: Final = 4096
"""Sets of ops whose answer is remembered."""

ROOM_S: Final = 0.05
"""Expected seconds of work handed over, for each slot, behind which nothing more is handed over.

A lease counts with no more than this: it runs in one slot, and however long it takes the others are free meanwhile.
"""

BATCH_OVERHEAD_S: Final = 0.001
"""About what a batch takes besides its work."""

HEARD_WITHIN_S: Final = 2.5
"""An executor that was not heard of for longer may hang, and nothing is handed over to it; heartbeats come every second."""

LOOKED_AT: Final = 16
"""Executors that are compared when one is sought for a batch."""


@dataclass(slots=True)
class HeldLease:
    """A lease as its executor's session knows it.

    Attributes:
        job_id: Its job.
        number: Its number in the job.
        tasks: Tasks of it that no result has come for.
        task_s: Seconds that a task is expected to take.
        handed_over: Whether it was granted without having been asked for.
        stream: Number of the stream that it was last granted or announced on.
        siblings: Its numbers by stage, if it is of the only tasks of several stages; `number` is one of them then.
    """

    job_id: str
    number: int
    tasks: int = 0
    task_s: float = 0.0
    handed_over: bool = False
    stream: int = 0
    siblings: dict[int, int] = field(default_factory=dict)

    def held(self, run: JobRun, token: bytes) -> dict[int, LeaseRun]:
        """Return by number what its job knows of it; numbers begin anew when a job was elsewhere meanwhile."""
        leases = {number: run.leases.get(number) for number in self.siblings.values() or (self.number,)}
        return {number: lease for number, lease in leases.items() if lease is not None and lease.token == token}

    def is_over(self, run: JobRun) -> bool:
        """Return whether its job knows nothing of it any more."""
        return run.leases.keys().isdisjoint(self.siblings.values() or (self.number,))

    def may_be_of(self, run: JobRun, stage: int) -> bool:
        """Return whether a report that names a stage can be about it."""
        if self.siblings:
            return True
        lease = run.leases.get(self.number)
        return lease is None or lease.stage == stage

    def names(self, held: Mapping[int, LeaseRun]) -> set[int]:
        """Return the tasks that are left of it, as its executor names them."""
        if self.siblings:
            return {lease.stage for lease in held.values()}
        return {shard for lease in held.values() for shard in lease.tasks}

    def parts(self, shards: Iterable[int]) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Yield for tasks, as their executor names them, the leases and shards that they are in the job."""
        if not self.siblings:
            yield self.number, tuple(shards)
            return
        for stage in shards:
            if stage in self.siblings:
                yield self.siblings[stage], (0,)

    @property
    def expected_s(self) -> float:
        """Seconds that what is left is expected to take."""
        return self.tasks * self.task_s + BATCH_OVERHEAD_S if self.tasks > 0 else 0.0

    @property
    def handed_s(self) -> float:
        """Seconds of it that count against the room for what is handed over."""
        return min(self.expected_s, ROOM_S) if self.handed_over else 0.0


@dataclass(slots=True)
class Holdings:
    """What an executor holds; its later streams go on with it while an earlier one is still there.

    Attributes:
        leases: Leases by token.
        load_s: Expected seconds of what it holds, and of what is about to be handed over to it.
        handed_s: The part of those that was handed over, `ROOM_S` of each lease at most.
    """

    leases: dict[bytes, HeldLease] = field(default_factory=dict)
    load_s: float = 0.0
    handed_s: float = 0.0

    def expect(self, seconds: float) -> None:
        """Take in that work is about to be handed over; negative once it was, or was not after all."""
        self.handed_s += max(-ROOM_S, min(seconds, ROOM_S))
        self.load_s += seconds

    def hold(self, token: bytes, lease: HeldLease) -> None:
        """Take in that it holds a lease."""
        self.leases[token] = lease
        self.load_s += lease.expected_s
        self.handed_s += lease.handed_s

    def done(self, token: bytes, tasks: int) -> None:
        """Take in that results of some tasks of a lease have come."""
        lease = self.leases.get(token)
        if lease is not None:
            before_s, handed_before_s = lease.expected_s, lease.handed_s
            lease.tasks = max(0, lease.tasks - tasks)
            self.load_s += lease.expected_s - before_s
            self.handed_s += lease.handed_s - handed_before_s

    def let_go(self, token: bytes) -> None:
        """Forget a lease; nothing happens if it is not held."""
        lease = self.leases.pop(token, None)
        if lease is not None:
            self.load_s -= lease.expected_s
            self.handed_s -= lease.handed_s

    def longest_s(self, leases: int) -> float:
        """Return how much of `handed_s` the longest few leases are; looks at all of them."""
        return sum(heapq.nlargest(leases, (lease.handed_s for lease in self.leases.values())))


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
        holdings: What it holds.
        open_slots: Slots that no long task holds up, as it says.
        ops: Names with versions of the ops that it serves.
        stream: Tells it from other streams of the same executor.
    """

    hello: executor_pb2.Hello
    outbox: asyncio.Queue[executor_pb2.SessionResponse | None]
    start: float
    last_seen: float
    busy: int = 0
    draining: bool = False
    holdings: Holdings = field(default_factory=Holdings)
    open_slots: int = field(init=False)
    ops: frozenset[str] = field(init=False)
    stream: int = field(init=False, default_factory=itertools.count(1).__next__)

    def __post_init__(self) -> None:
        self.ops = frozenset(op.name for op in self.hello.ops)
        self.open_slots = self.hello.open_slots if self.hello.HasField("open_slots") else self.hello.slots

    @property
    def id(self) -> str:
        """Id of the executor."""
        return self.hello.executor_id

    @property
    def has_room(self) -> bool:
        """Whether a batch may be handed over to it."""
        if not self.open_slots or self.draining:
            return False
        room_s = ROOM_S * self.open_slots
        if self.holdings.handed_s < room_s:
            return True
        # What holds slots up is not before anything in the open ones.
        held_up = self.hello.slots - self.open_slots
        return held_up > 0 and self.holdings.handed_s - self.holdings.longest_s(held_up) < room_s


class ExecutorRegistry:
    """Sessions by executor id."""

    def __init__(self) -> None:
        self._sessions: dict[str, ExecutorSession] = {}
        self._pools: frozenset[str] | None = None
        self._serving: dict[tuple[str, frozenset[str]], list[ExecutorSession]] = {}
        self._turn = 0

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

    def is_replaced(self, session: ExecutorSession) -> bool:
        """Return whether a newer session of the same executor took its place: nobody reads what is sent on this one."""
        return self._sessions.get(session.id, session) is not session

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
        return bool(self._serving_all(pool, ops))

    def read_columns(self, pool: str) -> bool:
        """Return whether all executors of a pool that are in session read tasks as columns."""
        return all(session.hello.reads_columns for session in self._sessions.values() if pool in session.hello.pools)

    def with_room(self, pool: str, ops: Iterable[str], *, now: float) -> ExecutorSession | None:
        """Return the executor with the least to do of those to whom a batch with some ops can be handed over, or None.

        Where there are many, only some of them are compared, others each time.
        """
        serving = self._serving_all(pool, ops)
        if len(serving) > LOOKED_AT:
            self._turn = (self._turn + 1) % len(serving)
            serving = (serving[self._turn :] + serving[: self._turn])[:LOOKED_AT]
        return min(
            (session for session in serving if session.has_room and now - session.last_seen < HEARD_WITHIN_S),
            key=lambda session: session.holdings.load_s / session.open_slots,
            default=None,
        )

    def is_brisk(self, pool: str, ops: Iterable[str], *, now: float) -> bool:
        """Return whether some executor will soon have room for a batch with some ops."""
        return any(
            session.open_slots and now - session.last_seen < HEARD_WITHIN_S for session in self._serving_all(pool, ops)
        )

    def _serving_all(self, pool: str, ops: Iterable[str]) -> list[ExecutorSession]:
        wanted = (pool, frozenset(ops))
        known = self._serving.get(wanted)
        if known is None:
            if len(self._serving) >= MOST_KNOWN_OFFERS:
                self._serving.clear()
            known = self._serving[wanted] = [
                session
                for session in self
                if not session.draining and pool in session.hello.pools and wanted[1] <= session.ops
            ]
        return known

    def forget_pools(self) -> None:
        """Count pools and ops again; to be called when a session began to drain."""
        self._pools = None
        self._serving.clear()
