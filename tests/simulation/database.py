"""A PostgreSQL of its own making: committed tables in memory, row locks on partitions, transactions that may fail.

What is committed is a list of *commits*; the tables follow from it, so that the database can go back to any earlier
moment by applying fewer of them.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pixloom_scheduler.journal.tables import PARTITIONS
from tests.simulation.connection import SimulatedConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.loop import Process
    from tests.simulation.world import World

__all__ = ["Commit", "Partition", "SimulatedDatabase", "Tables"]


@dataclass(frozen=True, slots=True)
class Partition:
    """A row of `partition`."""

    owner: str = ""
    address: str = ""
    epoch: int = 0
    commit_seq: int = 0
    expires_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Replica:
    """A row of `replica`."""

    id: str
    address: str
    start_time: float
    expires_at: float


@dataclass(slots=True)
class Commit:
    """What one transaction wrote.

    Attributes:
        process: Name of the process that sent it.
        partitions: Rows of `partition` as they are afterwards.
        jobs: Rows of `job` inserted.
        rows: Rows of `journal` inserted.
        nodes: Rows of `node` inserted.
        endings: Columns of `job` updated, by job.
        is_takeover: Whether it gave partitions a new owner or none.
    """

    process: str
    partitions: dict[int, Partition] = field(default_factory=dict)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    endings: dict[str, dict[str, Any]] = field(default_factory=dict)
    is_takeover: bool = False


class Tables:
    """The committed rows."""

    def __init__(self) -> None:
        self.partitions = dict.fromkeys(range(PARTITIONS), Partition())
        self.jobs: dict[str, dict[str, Any]] = {}
        self.requests: dict[tuple[str, str], str] = {}
        self.journal: dict[str, list[dict[str, Any]]] = {}
        self.journal_keys: set[tuple[str, int]] = set()
        self.nodes: dict[tuple[str, int, int], dict[str, Any]] = {}

    def apply(self, commit: Commit) -> None:
        """Put a commit into the tables."""
        self.partitions.update(commit.partitions)
        for job in commit.jobs:
            self.jobs[job["id"]] = dict(job)
            if job["request_id"]:
                self.requests[job["project"], job["request_id"]] = job["id"]
        for row in commit.rows:
            self.journal.setdefault(row["job_id"], []).append(row)
            self.journal_keys.add((row["job_id"], row["seq"]))
        for node in commit.nodes:
            self.nodes[node["job_id"], node["generation"], node["index"]] = node
        for job_id, columns in commit.endings.items():
            if job_id in self.jobs:
                self.jobs[job_id].update(columns)


class SimulatedDatabase:
    """The server.

    Attributes:
        world: The world it is in.
        tables: What is committed.
        commits: Every commit so far.
        replicas: Rows of `replica`; a restore does not bring them back.
        listeners: Who listens on which channel.
        locks: Who holds the row lock of a partition.
        is_down: Whether it answers nobody.
        incarnation: Changes when it was restored.
        refuses: Tells whether a row holds something that the server refuses.
        refused: Jobs of which it has refused a row.
        jobs_ever: Jobs that it has had, also if a restore took them away.
        fault_rate: How often a statement breaks the connection.
        unknown_rate: How often COMMIT goes unanswered.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.tables = Tables()
        self.commits: list[Commit] = []
        self.locks: dict[int, SimulatedConnection] = {}
        self.is_down = False
        self.incarnation = uuid.UUID(int=world.rng.getrandbits(128))
        self.token_key = world.rng.randbytes(32)
        self.refuses: Callable[[dict[str, Any]], bool] = lambda _: False
        self.refused: set[str] = set()
        self.jobs_ever: set[str] = set()
        self.fault_rate = 0.0
        self.unknown_rate = 0.0
        self.replicas: dict[str, Replica] = {}
        self.listeners: dict[SimulatedConnection, tuple[str, Callable[..., None]]] = {}
        self.on_commit: list[Callable[[Commit], None]] = []
        self.on_restore: list[Callable[[], None]] = []
        self._connections: dict[SimulatedConnection, None] = {}

    async def connect(self, process: Process, *, transaction_timeout_s: float) -> SimulatedConnection:
        """Open a connection."""
        connection = SimulatedConnection(self, process, transaction_timeout_s=transaction_timeout_s)
        await connection.trip()
        self._connections[connection] = None
        return connection

    def drop(self, process: Process | None = None) -> None:
        """Break the connections of a process, or all."""
        for connection in list(self._connections):
            if process is None or connection.process is process:
                connection.terminate()

    def forget(self, connection: SimulatedConnection) -> None:
        """Take in that a connection is gone."""
        self._connections.pop(connection, None)
        self.listeners.pop(connection, None)
        self.release(connection)

    def beat(self, replica: str, address: str, lease_s: float) -> None:
        """Keep a replica's row alive."""
        now = self.world.now()
        before = self.replicas.get(replica)
        self.replicas[replica] = Replica(replica, address, before.start_time if before else now, now + lease_s)

    def notify(self, channel: str, payload: str = "") -> None:
        """Wake who listens on a channel."""
        for connection, (name, call) in list(self.listeners.items()):
            if name == channel:
                at = self.world.loop.time() + self.world.latency()
                context = connection.process.context.copy()
                self.world.loop.call_at(at, call, connection, 0, channel, payload, context=context)

    def release(self, connection: SimulatedConnection) -> None:
        """Give up the row locks of a connection."""
        for partition in [number for number, holder in self.locks.items() if holder is connection]:
            del self.locks[partition]

    def commit(self, commit: Commit) -> None:
        """Make a transaction durable."""
        self.commits.append(commit)
        self.tables.apply(commit)
        self.jobs_ever.update(row["id"] for row in commit.jobs)
        rows = ",".join(f"{row['job_id'][-4:]}#{row['seq']}k{row['kind']}" for row in commit.rows)
        if rows:
            stamps = ",".join(f"{p}:{row.epoch}.{row.commit_seq}" for p, row in commit.partitions.items())
            self.world.log("commit", commit.process, stamps, rows)
        else:
            epochs = sorted({row.epoch for row in commit.partitions.values()})
            self.world.log("renew", commit.process, len(commit.partitions), *epochs)
        for watch in self.on_commit:
            watch(commit)

    def restore(self, commits: int) -> None:
        """Go back to the moment after that many commits; everybody is disconnected."""
        self.world.log("restore", f"{len(self.commits)}->{commits}")
        self.commits = self.commits[:commits]
        self.tables = Tables()
        for commit in self.commits:
            self.tables.apply(commit)
        self.incarnation = uuid.UUID(int=self.world.rng.getrandbits(128))
        self.replicas.clear()
        self.drop()
        for watch in self.on_restore:
            watch()
