"""A replica with everything that serves verbs, over a real PostgreSQL and without executors."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import asyncpg
import orjson
from google.protobuf.field_mask_pb2 import FieldMask

from pixloom.v1 import job_pb2
from pixloom_scheduler.catalogue import OpCatalogue
from pixloom_scheduler.clock import DatabaseClock
from pixloom_scheduler.inputs import InputReader, OutputCache
from pixloom_scheduler.journal.committer import Committer
from pixloom_scheduler.journal.definitions import Definitions
from pixloom_scheduler.journal.finished import FinishedJobs
from pixloom_scheduler.journal.inheritance import InheritanceWriter
from pixloom_scheduler.journal.loader import Loader
from pixloom_scheduler.journal.ownership import Ownership, connect
from pixloom_scheduler.journal.reader import Reader
from pixloom_scheduler.planning import Planning
from pixloom_scheduler.replica import Replica
from pixloom_scheduler.reruns import Reruns
from pixloom_scheduler.rpc.jobs import Jobs
from pixloom_scheduler.rpc.manifests import ManifestLister
from pixloom_scheduler.starting import Starts
from pixloom_scheduler.submission import Submission, Submissions, body_digest
from pixloom_scheduler.watches import Watches
from tests.support.core_world import durable_view
from tests.support.effects import NoEffects
from tests.support.job_reads import job_reads

if TYPE_CHECKING:
    import asyncio

    from sqlalchemy.ext.asyncio import AsyncEngine

    from pixloom_scheduler.core.changes import Change
    from pixloom_scheduler.live import LiveJob

__all__ = ["CONTEXT", "DOCUMENT", "LEASE_S", "Scheduler"]

LEASE_S = 30.0
"""Ten times that of a real one: no test here waits for its end, and none is to fail as a machine is busy."""

CONTEXT: Any = None
DOCUMENT = {
    "name": "sized",
    "params": {"count": {"type": "integer", "minimum": 1}, "seconds": {"type": "number", "default": 0}},
    "tags": {"team": "a"},
    "timeout_s": 600,
    "nodes": [
        {"id": "numbers", "op": "debug.range", "params": {"count": "${params.count}"}},
        {"id": "wait", "op": "debug.sleep", "inputs": {"items": "numbers"}, "params": {"seconds": "${params.seconds}"}},
    ],
}


async def at_once(job_id: str) -> None:
    """Wait for nothing: jobs are loaded before their partition is served."""
    del job_id


class Watching(NoEffects):
    """Effects that note what left after a commit."""

    def __init__(self) -> None:
        self.left: list[Change] = []

    def committed(self, live: LiveJob, changes: list[Change]) -> None:
        del live
        self.left.extend(changes)


class Scheduler:
    """A replica and what serves its verbs; `restart` throws all memory away."""

    def __init__(self, url: str, engine: AsyncEngine) -> None:
        self.url = url
        self.engine = engine
        self.writer = InheritanceWriter(engine)

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        async def open_connection() -> asyncpg.Connection[Any]:
            return await connect(self.url, lease_s=LEASE_S)

        name = uuid.uuid4().hex
        self.ownership = Ownership(connect=open_connection, replica=name, address=name, lease_s=LEASE_S)
        self.committer = Committer(connect=open_connection, lease_s=LEASE_S)
        self.loader, self.reader, definitions = Loader(self.engine), Reader(self.engine), Definitions(self.engine)
        self.effects = Watching()
        clock = DatabaseClock()
        self.replica = Replica(
            journal=self.committer,
            loader=self.loader,
            clock=clock,
            effects=self.effects,
            costs={},
            lease_s=LEASE_S,
            monotonic=time.monotonic,
        )
        catalogue = OpCatalogue(definitions)
        await catalogue.load()
        planning = Planning(catalogue)
        reads = job_reads(self.replica, self.reader, clock)
        self.submissions = Submissions(
            replica=self.replica,
            definitions=definitions,
            reader=self.reader,
            planning=planning,
            clock=clock,
            new_id=lambda: uuid.uuid4().hex,
        )
        inputs = InputReader(cache=OutputCache(), payloads=self.reader)
        self.verbs = Jobs(
            replica=self.replica,
            submissions=self.submissions,
            reads=reads,
            reader=self.reader,
            watches=Watches(reads=reads, reader=self.reader, clock=clock),
            manifests=ManifestLister(reader=self.reader, loader=self.loader, replica=self.replica, inputs=inputs),
            starts=Starts(replica=self.replica, reader=self.reader, planning=planning),
            reruns=Reruns(
                replica=self.replica,
                submissions=self.submissions,
                reads=reads,
                reader=self.reader,
                loader=self.loader,
                writer=self.writer,
                catalogue=catalogue,
                clock=clock,
                loaded=at_once,
            ),
            finished=FinishedJobs(self.engine),
        )
        since = time.monotonic()
        owned = await self.ownership.take(16)
        pending = await self.loader.pending([partition.id for partition in owned])
        loaded = [await self.loader.load(job_id) for job_id in pending]
        self.replica.own(owned, [each for each in loaded if each is not None], since=since)
        self.task = tasks.create_task(self.replica.run())

    async def stop(self) -> None:
        self.replica.stop()
        await self.task
        await self.ownership.release(sorted(self.replica.stamps))
        await self.committer.close()

    async def restart(self, tasks: asyncio.TaskGroup) -> None:
        await self.stop()
        await self.start(tasks)

    async def submit(self, *, start: bool = True, **more: Any) -> str:
        values: dict[str, Any] = {
            "project": "default", "workflow": "", "version": 0, "document": DOCUMENT, "params": {"count": 3},
            "tags": {}, "metadata": {}, "priority": 5, "external_id": "", "request_id": "", "digest": "", "name": "",
            "start": start, "trace_context": {}, **more,
        }  # fmt: skip
        found = await self.submissions.submit(body_digest(Submission(**values)))
        return found.header.id  # type: ignore[union-attr]

    async def cancelled(self, **more: Any) -> str:
        job_id = await self.submit(start=False, **more)
        await self.verbs.CancelJob(job_pb2.CancelJobRequest(id=job_id), CONTEXT)
        return job_id

    async def start_job(self, job_id: str, params: dict[str, Any] | None = None) -> job_pb2.Job:
        given = b"" if params is None else orjson.dumps(params)
        request = job_pb2.StartJobRequest(id=job_id, params_json=given)
        return (await self.verbs.StartJob(request, CONTEXT)).job

    async def update(self, job_id: str, *paths: str, **values: Any) -> job_pb2.Job:
        request = job_pb2.UpdateJobRequest(job=job_pb2.Job(id=job_id, **values), update_mask=FieldMask(paths=paths))
        return (await self.verbs.UpdateJob(request, CONTEXT)).job

    async def delete(self, job_id: str, *, allow_missing: bool = False) -> None:
        await self.verbs.DeleteJob(job_pb2.DeleteJobRequest(id=job_id, allow_missing=allow_missing), CONTEXT)

    async def rows(self, table: str, job_id: str) -> int:
        connection = await asyncpg.connect(self.url)
        try:
            column = "id" if table == "job" else "job_id"
            query = f"SELECT count(*) FROM pixloom.{table} WHERE {column} = $1"  # noqa: S608 - our own words
            return int(await connection.fetchval(query, job_id))
        finally:
            await connection.close()

    async def require_same_after_replay(self, job_id: str) -> None:
        live, loaded = self.replica.find(job_id), await self.loader.load(job_id)
        assert live is not None
        assert loaded is not None
        assert durable_view(loaded.run) == durable_view(live.run)
        assert loaded.header == live.header
