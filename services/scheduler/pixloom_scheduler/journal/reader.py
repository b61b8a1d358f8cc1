"""Reads for those who ask: finished jobs, lists, events, attempts, payloads. Never on the loop's own connection."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, select
from sqlalchemy.dialects.postgresql import distinct_on

from pixloom_scheduler.core.changes import AttemptEnded, GenerationOpened, JobStarted
from pixloom_scheduler.journal import tables
from pixloom_scheduler.journal.access import reading
from pixloom_scheduler.journal.rows import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import date, datetime

    from sqlalchemy import RowMapping, Select
    from sqlalchemy.ext.asyncio import AsyncEngine

    from pixloom_scheduler.live import LiveJob

__all__ = ["AttemptPlace", "JobFilter", "Reader", "StoredJob"]

_ATTEMPT = KINDS[AttemptEnded]
_ENDS_SHARD = 1
_RECOVERABLE = ("FAILED", "CANCELLED")


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs a list shows; empty values mean all.

    Attributes:
        states: Only these states.
        workflow: Only jobs of this workflow.
        tags: Only jobs with all of these tags.
        external_id: Only jobs with this external id.
        recoverable: Only jobs that FAILED or were CANCELLED and have recovery attempts left.
        before: Only jobs with an id below this one.
        project: Only jobs of this project, by which jobs are indexed.
    """

    states: tuple[str, ...] = ()
    workflow: str = ""
    tags: dict[str, str] | None = None
    external_id: str = ""
    recoverable: bool = False
    before: str = ""
    project: str = ""


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A job as the database has it.

    Attributes:
        id: Its id.
        partition: Its partition.
        project: Its project.
        day: Day it was created.
        state: Its state.
        generation: Its generation.
        record: The ended job as served; None while it runs.
        plan: Its plan as JSON.
        request_digest: Digest of the call that created it.
        name: Its name.
        workflow: Name of its workflow.
        version: Version of the workflow.
        sha256: Digest of the document.
        params: Its params as JSON.
        tags: Its tags.
        metadata: Its metadata as JSON.
        priority: Its priority.
        external_id: The caller's own id.
        recovery_attempts: Times it was recovered.
        max_recovery_attempts: Times it may be recovered.
        trace_context: W3C headers of the call that created it.
        create_time: When it was accepted.
    """

    id: str
    partition: int
    project: str
    day: date
    state: str
    generation: int
    record: bytes | None
    plan: bytes
    request_digest: str
    name: str
    workflow: str
    version: int
    sha256: str
    params: bytes
    tags: dict[str, str]
    metadata: bytes
    priority: int
    external_id: str
    recovery_attempts: int
    max_recovery_attempts: int
    trace_context: dict[str, str]
    create_time: datetime


@dataclass(frozen=True, slots=True)
class AttemptPlace:
    """Where the journal has an attempt: what its id says.

    Attributes:
        job_id: Its job.
        generation: Its generation.
        stage: Its stage.
        shard: Its shard.
        number: Its number among the attempts of its task.
    """

    job_id: str
    generation: int
    stage: int
    shard: int
    number: int

    @classmethod
    def parse(cls, attempt_id: str, *, job_id: str) -> AttemptPlace | None:
        """Return the place that an id names, or None if it is no id of an attempt of that job."""
        job, *words = attempt_id.rsplit(".", 4)
        if job != job_id or len(words) != 4 or not all(word.isascii() and word.isdigit() for word in words):
            return None
        numbers = [int(word) if len(word) < 20 else 1 << 63 for word in words]
        # Beyond what the columns hold there is nothing.
        if any(number >= limit for number, limit in zip(numbers, (1 << 31, 1 << 31, 1 << 63, 1 << 31), strict=True)):
            return None
        return cls(job_id, *numbers)


_STORED = [tables.job.c[name] for name in StoredJob.__slots__]


class Reader:
    """Reads jobs and journal rows."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def _all(self, query: Any) -> Sequence[RowMapping]:
        async with reading(self._engine) as connection:
            return (await connection.execute(query)).mappings().all()

    async def job(self, job_id: str) -> StoredJob | None:
        """Return a job, or None."""
        rows = await self._all(select(*_STORED).where(tables.job.c.id == job_id))
        return StoredJob(**rows[0]) if rows else None

    async def job_by_request(self, project: str, request_id: str) -> StoredJob | None:
        """Return the job that a call created, or None."""
        job = tables.job.c
        rows = await self._all(select(*_STORED).where(job.project == project, job.request_id == request_id))
        return StoredJob(**rows[0]) if rows else None

    async def spec(self, job_id: str) -> bytes | None:
        """Return the document of a job."""
        rows = await self._all(select(tables.job.c.spec).where(tables.job.c.id == job_id))
        return bytes(rows[0]["spec"]) if rows else None

    async def jobs(self, wanted: JobFilter, most: int) -> list[StoredJob]:
        """Return jobs, newest first."""
        job = tables.job.c
        query = _matching(select(*_STORED), wanted).order_by(job.id.desc()).limit(most)
        return [StoredJob(**row) for row in await self._all(query)]

    async def job_ids(self, wanted: JobFilter, *, before: str, most: int) -> list[str]:
        """Return the ids of jobs below `before`, or of all if it is empty, newest first."""
        query = _matching(select(tables.job.c.id), replace(wanted, before=before))
        return [row["id"] for row in await self._all(query.order_by(tables.job.c.id.desc()).limit(most))]

    async def nodes(self, job_id: str) -> list[bytes]:
        """Return the ended nodes of a job's newest generation, in the order of the document."""
        node = tables.node.c
        rows = await self._all(
            select(node["index"], node.record)
            .where(node.job_id == job_id)
            .ext(distinct_on(node["index"]))
            .order_by(node["index"], node.generation.desc())
        )
        return [bytes(row["record"]) for row in rows]

    async def events(self, day: date, job_id: str, after: int) -> list[dict[str, Any]]:
        """Return the durable events of a job behind a number."""
        journal = tables.journal.c
        columns = [column for column in journal if column.name != "payload"]
        query = (
            select(*columns)
            .where(journal.day == day, journal.job_id == job_id, journal.seq > after, journal.kind != _ATTEMPT)
            .order_by(journal.seq)
        )
        return [dict(row) for row in await self._all(query)]

    async def start_request(self, day: date, job_id: str) -> str | None:
        """Return the id, which may be empty, of the call that started a job; None if none did for itself."""
        journal = tables.journal.c
        mine = (journal.day == day, journal.job_id == job_id, journal.kind == KINDS[JobStarted])
        rows = await self._all(select(journal.data).where(*mine).order_by(journal.seq).limit(1))
        return rows[0]["data"].get("request") if rows else None

    async def attempts(
        self, day: date, job_id: str, *, stage: int | None, after: int, most: int
    ) -> list[dict[str, Any]]:
        """Return attempts in journal order, of one stage or all."""
        journal = tables.journal.c
        columns = [column for column in journal if column.name not in {"payload", "cuts"}]
        query = (
            select(*columns)
            .where(journal.day == day, journal.job_id == job_id, journal.seq > after, journal.kind == _ATTEMPT)
            .order_by(journal.seq)
            .limit(most)
        )
        if stage is not None:
            query = query.where(journal.stage == stage)
        return [dict(row) for row in await self._all(query)]

    async def attempt(self, day: date, place: AttemptPlace) -> list[dict[str, Any]]:
        """Return one attempt as `attempts` does, or nothing: a query among the rows of its job alone."""
        journal = tables.journal.c
        columns = [column for column in journal if column.name not in {"payload", "cuts"}]
        query = (
            select(*columns)
            .where(
                journal.day == day,
                journal.job_id == place.job_id,
                journal.kind == _ATTEMPT,
                journal.generation == place.generation,
                journal.stage == place.stage,
                journal.shard == place.shard,
                journal.attempt == place.number,
            )
            .limit(1)
        )
        return [dict(row) for row in await self._all(query)]

    async def openings(self, day: date, job_id: str) -> list[dict[str, Any]]:
        """Return the journal rows that opened generations of a job, in their order."""
        journal = tables.journal.c
        columns = [column for column in journal if column.name != "payload"]
        mine = (journal.day == day, journal.job_id == job_id, journal.kind == KINDS[GenerationOpened])
        return [dict(row) for row in await self._all(select(*columns).where(*mine).order_by(journal.seq))]

    async def outcomes(
        self, day: date, job_id: str, *, stage: int, since: int, after: int, most: int
    ) -> list[dict[str, Any]]:
        """Return attempts of a stage that left items behind, from a generation on, in journal order."""
        journal = tables.journal.c
        query = (
            select(journal.seq, journal.shard, journal.payload, journal.flags, journal.reason, journal.detail)
            .where(
                journal.day == day,
                journal.job_id == job_id,
                journal.stage == stage,
                journal.generation >= since,
                journal.seq > after,
                journal.kind == _ATTEMPT,
                (journal.payload.is_not(None)) | (journal.flags.op("&")(8) != 0),
            )
            .order_by(journal.seq)
            .limit(most)
        )
        return [dict(row) for row in await self._all(query)]

    async def payloads(self, live: LiveJob, stage: int, shards: Iterable[int]) -> list[tuple[int, int, bytes]]:
        """Return journal number, shard and payload of the attempts that gave the outputs of `shards`.

        No index leads to them: 25 ms in a journal of 100,000 rows.
        """
        journal = tables.journal.c
        query = select(journal.seq, journal.shard, journal.payload).where(
            and_(
                journal.day == live.header.day,
                journal.job_id == live.header.id,
                journal.stage == stage,
                journal.shard.in_(list(shards)),
                journal.generation >= live.run.stages[stage].since,
                journal.kind == _ATTEMPT,
                journal.flags.op("&")(_ENDS_SHARD) != 0,
                journal.items_out > 0,
                journal.payload.is_not(None),
            )
        )
        return [(row["seq"], row["shard"], bytes(row["payload"])) for row in await self._all(query)]

    async def payload_page(self, live: LiveJob, stage: int, *, after: int, most: int) -> list[tuple[int, int, bytes]]:
        """Return journal number, shard and payload of the next attempts of a stage that gave items."""
        journal = tables.journal.c
        query = (
            select(journal.seq, journal.shard, journal.payload)
            .where(
                journal.day == live.header.day,
                journal.job_id == live.header.id,
                journal.stage == stage,
                journal.generation >= live.run.stages[stage].since,
                journal.kind == _ATTEMPT,
                journal.seq > after,
                journal.items_out > 0,
                journal.payload.is_not(None),
            )
            .order_by(journal.seq)
            .limit(most)
        )
        return [(row["seq"], row["shard"], bytes(row["payload"])) for row in await self._all(query)]


def _matching(query: Select[Any], wanted: JobFilter) -> Select[Any]:
    job = tables.job.c
    if wanted.project:
        query = query.where(job.project == wanted.project)
    if wanted.states:
        query = query.where(job.state.in_(wanted.states))
    if wanted.workflow:
        query = query.where(job.workflow == wanted.workflow)
    if wanted.tags:
        query = query.where(job.tags.contains(wanted.tags))
    if wanted.external_id:
        query = query.where(job.external_id == wanted.external_id)
    if wanted.recoverable:
        query = query.where(job.state.in_(_RECOVERABLE), job.recovery_attempts < job.max_recovery_attempts)
    if wanted.before:
        query = query.where(job.id < wanted.before)
    return query
