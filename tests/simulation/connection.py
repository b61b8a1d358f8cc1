"""A connection to the simulated PostgreSQL, with the methods of asyncpg that the scheduler uses.

It knows the scheduler's own statements and does what their text says: a fence without a condition on the epoch does
not check the epoch. A statement it does not know is an error, so that nothing is simulated that is not executed.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import orjson

from pixloom_scheduler.journal.rows import COLUMNS
from pixloom_scheduler.journal.statements import END_TYPES, JOB_TYPES, NODE_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tests.simulation.database import Commit, Partition, SimulatedDatabase
    from tests.simulation.loop import Process

__all__ = ["SimulatedConnection"]

_JSON: Final = frozenset({"data", "tags", "trace_context"})
_INT4: Final = frozenset({"generation", "stage", "attempt", "items_out", "index"})
_SPACE: Final = re.compile(r"\s+")


class SimulatedConnection:
    """One connection, one transaction at a time."""

    def __init__(self, database: SimulatedDatabase, process: Process, *, transaction_timeout_s: float) -> None:
        self.process = process
        self._database = database
        self._world = database.world
        self._timeout_s = transaction_timeout_s
        self._closed = False
        self._open: Commit | None = None
        self._transactions = 0

    # -- Life -----------------------------------------------------------------------------------------------------

    def is_closed(self) -> bool:
        """Return whether nothing can be sent any more."""
        return self._closed

    def terminate(self) -> None:
        """Close at once; an open transaction is rolled back."""
        self._closed = True
        self._open = None
        self._database.forget(self)

    async def close(self) -> None:
        """Close."""
        self.terminate()

    async def trip(self) -> None:
        """Send something and wait for the answer, which may never come."""
        self._check()
        await asyncio.sleep(self._world.latency())
        self._check()
        if self._world.chance(self._database.fault_rate):
            self._world.log("database_fault", self.process.name)
            self.terminate()
            raise self._gone()

    def _check(self) -> None:
        if self._closed or self._database.is_down or not self.process.is_alive:
            if not self._closed:
                self.terminate()
            raise self._gone()

    def _gone(self) -> Exception:
        return self._world.rng.choice(
            (
                asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
                ConnectionResetError("connection reset by peer"),
                asyncpg.AdminShutdownError("terminating connection due to administrator command"),
            )
        )

    async def add_listener(self, channel: str, call: Callable[..., None]) -> None:
        """Listen on a channel."""
        await self.trip()
        self._database.listeners[self] = (channel, call)

    # -- Transactions ---------------------------------------------------------------------------------------------

    def transaction(self) -> _Transaction:
        """Return a transaction that has not begun."""
        return _Transaction(self)

    async def begin(self) -> None:
        """Send BEGIN."""
        await self.trip()
        self._begin()

    def _begin(self) -> None:
        self._open = self._new()
        self._transactions += 1
        self._world.after(self._timeout_s, self._time_out, self._transactions)

    def _new(self) -> Commit:
        from tests.simulation.database import Commit

        return Commit(self.process.name)

    def _time_out(self, transaction: int) -> None:
        if self._open is not None and self._transactions == transaction:
            self._world.log("transaction_timeout", self.process.name)
            self.terminate()

    async def commit(self) -> None:
        """Send COMMIT: the answer may be lost, and then nobody knows."""
        self._check()
        unknown = self._world.chance(self._database.unknown_rate)
        is_late = unknown and self._world.chance(0.5)
        if unknown and not is_late:
            self._world.log("commit_lost", self.process.name)
            self.terminate()
            raise self._gone()
        await asyncio.sleep(self._world.latency())
        self._check()
        if self._open is not None:
            commit, self._open = self._open, None
            self._database.commit(commit)
            self._database.release(self)
        if unknown:
            self._world.log("commit_unanswered", self.process.name)
            self.terminate()
            raise self._gone()
        await asyncio.sleep(self._world.latency())
        self._check()

    async def rollback(self) -> None:
        """Send ROLLBACK."""
        self._open = None
        self._database.release(self)
        await self.trip()

    async def _alone(self, text: str, *args: Any) -> list[Any]:
        """Run the statement that fences outside a transaction: it is one by itself, and its answer may be lost as well."""
        self._begin()
        try:
            fenced = await self._first(text, *args)
        except asyncpg.PostgresError:
            self._open = None
            self._database.release(self)
            raise
        await self.commit()
        return fenced

    # -- Statements -----------------------------------------------------------------------------------------------

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        """Run a statement and return its rows."""
        await self.trip()
        text = _SPACE.sub(" ", query).strip()
        if text.startswith("WITH fenced AS ( UPDATE pixloom.partition p SET commit_seq"):
            return await (self._first(text, *args) if self._open is not None else self._alone(text, *args))
        if text.startswith("WITH fenced AS ( SELECT p.id FROM pixloom.partition p"):
            return await self._alone(text, *args)
        if text.startswith("UPDATE pixloom.partition p SET owner"):
            return self._take(text, *args)
        partitions = self._database.tables.partitions
        if text.startswith("SELECT id, epoch, commit_seq FROM pixloom.partition"):
            return [
                {"id": number, "epoch": partitions[number].epoch, "commit_seq": partitions[number].commit_seq}
                for number in args[0]
            ]
        if text.startswith("SELECT address, epoch FROM pixloom.partition"):
            row = partitions[args[0]]
            return [{"address": row.address, "epoch": row.epoch}] if row.expires_at > self._world.now() else []
        if text.startswith("WITH beat AS ( INSERT INTO pixloom.replica"):
            return self._look(*args)
        if text.startswith("SELECT project, request_id FROM pixloom.job WHERE (project, request_id) IN"):
            requests = self._database.tables.requests
            wanted = zip(*args, strict=True)
            return [{"project": project, "request_id": name} for project, name in wanted if (project, name) in requests]
        if text.startswith("SELECT extract(epoch FROM clock_timestamp())"):
            return [(self._world.now(),)]
        raise AssertionError(f"the simulated database does not know this statement: {text}")

    async def fetchrow(self, query: str, *args: Any) -> Any:
        """Run a statement and return its first row."""
        rows = await self.fetch(query, *args)
        return rows[0] if rows else None

    async def fetchval(self, query: str, *args: Any) -> Any:
        """Run a statement and return the first column of its first row."""
        row = await self.fetchrow(query, *args)
        return row[0] if row is not None else None

    async def execute(self, query: str, *args: Any) -> str:
        """Run a statement."""
        await self.trip()
        text = _SPACE.sub(" ", query).strip()
        if text.startswith("UPDATE pixloom.partition SET owner = ''"):
            owner, numbers = args
            for number in numbers:
                row = self._database.tables.partitions[number]
                if row.owner == owner:
                    freed = replace(row, owner="", address="", expires_at=self._world.now())
                    self._write({number: freed})
            return "UPDATE"
        if text.startswith("DELETE FROM pixloom.replica WHERE id = $1"):
            self._database.replicas.pop(args[0], None)
            return "DELETE"
        if text.startswith("SELECT pg_notify($1"):
            self._database.notify(*args)
            return "SELECT"
        if text.startswith("UPDATE pixloom.deployment SET incarnation"):
            # A restore has given it a new one already, as it does where the cluster is on another timeline then.
            return "UPDATE"
        if text.startswith("SET synchronous_commit"):
            return "SET"
        if text.startswith("INSERT INTO pixloom.journal "):
            self._insert("journal", [_untravelled(row) for row in _rows(COLUMNS, args)])
            return "INSERT"
        if text.startswith("INSERT INTO pixloom.job "):
            self._insert("job", _rows(JOB_TYPES, args))
            return "INSERT"
        if text.startswith("UPDATE pixloom.job j SET tags = v.tags, priority = v.priority"):
            transaction = self._transaction()
            for job_id, tags, priority in zip(*args, strict=True):
                columns = {"tags": orjson.loads(tags), "priority": priority}
                transaction.endings.setdefault(job_id, {}).update(columns)
            return "UPDATE"
        if text.startswith("UPDATE pixloom.job j SET") and "params = v.params" in text:
            transaction = self._transaction()
            for job_id, plan, params in zip(*args, strict=True):
                columns = {"params": params} | ({"plan": plan} if "plan = v.plan" in text else {})
                transaction.endings.setdefault(job_id, {}).update(columns)
            return "UPDATE"
        raise AssertionError(f"the simulated database does not know this statement: {text}")

    def _insert(self, table: str, rows: Iterable[dict[str, Any]]) -> None:
        transaction, tables = self._transaction(), self._database.tables
        for row in rows:
            self._accept(row)
            for name in _JSON & row.keys():
                row[name] = orjson.loads(row[name]) if row[name] is not None else None
            match table:
                case "job":
                    request = (row["project"], row["request_id"])
                    if row["request_id"] and request in tables.requests:
                        error = asyncpg.UniqueViolationError("duplicate key value violates job_by_request")
                        error.constraint_name = "job_by_request"
                        raise error
                    if row["id"] in tables.jobs:
                        raise asyncpg.UniqueViolationError("duplicate key value violates unique constraint of job")
                    if row["request_id"] and any(
                        (job["project"], job["request_id"]) == request for job in transaction.jobs
                    ):
                        raise asyncpg.UniqueViolationError("duplicate key value violates unique constraint of job")
                    transaction.jobs.append(row)
                case "journal":
                    key = (row["job_id"], row["seq"])
                    if key in tables.journal_keys or any((r["job_id"], r["seq"]) == key for r in transaction.rows):
                        raise asyncpg.UniqueViolationError("duplicate key value violates unique constraint of journal")
                    transaction.rows.append(row)
                case "node":
                    if (row["job_id"], row["generation"], row["index"]) in tables.nodes:
                        raise asyncpg.UniqueViolationError("duplicate key value violates unique constraint of node")
                    transaction.nodes.append(row)
                case _:
                    raise AssertionError(f"the simulated database has no table {table}")

    def _accept(self, row: dict[str, Any]) -> None:
        """Refuse what PostgreSQL refuses."""
        for name, value in row.items():
            if isinstance(value, str) and "\0" in value:
                raise asyncpg.CharacterNotInRepertoireError('invalid byte sequence for encoding "UTF8": 0x00')
            if name in _INT4 and value is not None and not -(2**31) <= value < 2**31:
                raise asyncpg.DataError(f"invalid input for {name}: value out of int32 range")
            if isinstance(value, datetime) and value.tzinfo is None:
                raise asyncpg.DataError(f"invalid input for {name}: can't subtract offset-naive datetimes")
        if self._database.refuses(row):
            self._database.refused.add(row["job_id"])
            raise asyncpg.DataError("the server refuses this value")

    def _transaction(self) -> Commit:
        if self._open is None:
            raise AssertionError("this is only done inside a transaction")
        return self._open

    def _write(self, partitions: dict[int, Any]) -> None:
        """Write rows of `partition`, in the open transaction or in one of their own."""
        if self._open is not None:
            self._open.partitions.update(partitions)
            return
        commit = self._new()
        commit.is_takeover = True
        commit.partitions.update(partitions)
        self._database.commit(commit)

    def _end_jobs(self, columns: Sequence[Any]) -> None:
        for ending in _rows(END_TYPES, columns):
            self._accept(ending)
            self._transaction().endings.setdefault(ending.pop("id"), {}).update(ending)

    async def _first(
        self, text: str, ids: list[int], epochs: list[int], numbers: list[int], lease: timedelta, *values: Any
    ) -> list[tuple[int, float]]:
        """Do what the first statement of a group commit does."""
        fenced = await self._fence(text, ids, epochs, numbers, lease)
        if len(fenced) != len(ids):
            if "FROM fenced) = cardinality($1) RETURNING" in text and self._open is not None:
                self._open.partitions.clear()
                return []
            return fenced
        if not values:
            return fenced
        rows, nodes = len(COLUMNS), len(COLUMNS) + len(NODE_TYPES)
        ends = nodes + len(END_TYPES)
        self._insert("journal", [_untravelled(row) for row in _rows(COLUMNS, values[:rows])])
        self._insert("node", _rows(NODE_TYPES, values[rows:nodes]))
        self._end_jobs(values[nodes:ends])
        if "INSERT INTO pixloom.job " in text:
            self._insert("job", _rows(JOB_TYPES, values[ends:]))
        return fenced

    async def _fence(
        self, text: str, ids: list[int], epochs: list[int], numbers: list[int], lease: timedelta
    ) -> list[tuple[int, float]]:
        fenced = []
        for number, epoch, seq in zip(ids, epochs, numbers, strict=True):
            while self._database.locks.get(number, self) is not self:
                await asyncio.sleep(0.002)
                self._check()
            row = self._database.tables.partitions[number]
            if "p.epoch = v.epoch" in text and row.epoch != epoch:
                continue
            if "p.commit_seq = v.n - 1" in text and row.commit_seq != seq - 1:
                continue
            self._database.locks[number] = self
            now = self._world.now()
            self._write({number: replace(row, commit_seq=seq, expires_at=now + lease.total_seconds())})
            fenced.append((number, now))
        return fenced

    def _look(self, replica: str, address: str, lease_s: float, alive: bool) -> list[dict[str, Any]]:  # noqa: FBT001
        """Take in that a replica is alive, if it says so, and return the rows of the live ones and of the partitions."""
        if alive:
            self._database.beat(replica, address, lease_s)
        now = self._world.now()
        members = [
            member
            for member in self._database.replicas.values()
            if member.expires_at > now or (alive and member.id == replica)
        ]

        return [
            {
                "partition": None,
                "replica": member.id,
                "address": member.address,
                "left_s": member.expires_at - now,
            }
            for member in sorted(members, key=lambda member: (member.start_time, member.id))
        ] + [
            {
                "partition": number,
                "replica": row.owner,
                "address": row.address,
                "epoch": row.epoch,
                "left_s": row.expires_at - now,
            }
            for number, row in sorted(self._database.tables.partitions.items())
        ]

    def _take(
        self, text: str, owner: str, address: str, lease_s: float, most: int, among: list[int]
    ) -> list[dict[str, Any]]:
        now = self._world.now()
        taken: dict[int, Partition] = {}
        for number, row in sorted(self._database.tables.partitions.items()):
            if len(taken) == most or number in self._database.locks:
                continue
            is_free = not row.owner or ("expires_at < clock_timestamp()" in text and row.expires_at < now)
            if is_free and (number in among or "id = ANY($5::smallint[])" not in text):
                raised = row.epoch + 1 if "epoch = p.epoch + 1" in text else row.epoch
                taken[number] = replace(row, owner=owner, address=address, epoch=raised, expires_at=now + lease_s)
        if taken:
            self._write(taken)
        incarnation = self._database.incarnation
        return [
            {"id": n, "epoch": row.epoch, "commit_seq": row.commit_seq, "incarnation": incarnation, "cluster": ""}
            for n, row in taken.items()
        ]


def _rows(names: Iterable[str], columns: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the rows that travelled as columns; a single value is that of all rows."""
    count = max(map(len, columns))
    full = [list(column) * count if len(column) == 1 else column for column in columns]
    return [dict(zip(names, values, strict=True)) for values in zip(*full, strict=True)]


def _untravelled(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with its arrays and times as the server sees them."""
    for name in ("counts", "cuts"):
        if row[name] is not None:
            row[name] = orjson.loads("[" + row[name][1:-1] + "]")
    for name in ("time", "start_time", "end_time"):
        if row[name] is not None:
            row[name] = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=row[name])
    return row


class _Transaction:
    """What `connection.transaction()` returns."""

    def __init__(self, connection: SimulatedConnection) -> None:
        self._connection = connection

    async def start(self) -> None:
        """Begin."""
        await self._connection.begin()

    async def commit(self) -> None:
        """Commit."""
        await self._connection.commit()

    async def rollback(self) -> None:
        """Roll back."""
        await self._connection.rollback()
