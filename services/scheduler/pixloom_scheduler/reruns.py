"""Makes new jobs of old ones: with everything done again, or from a node on with the results of the rest taken over.

A job from a node on is written in a transaction beside the group commit (`journal.inheritance`), with its start and all
that it takes over, and only then served: it is read from the database like a job of a partition that was taken over. Who
dies in between leaves a job that the next owner of its partition finds and goes on with.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import orjson
import structlog

from pixloom.errors import AlreadyExistsError, NotFoundError, StateConflictError, UnavailableError
from pixloom.v1 import job_pb2
from pixloom_scheduler.core.changes import JobStarted
from pixloom_scheduler.crash_points import reach
from pixloom_scheduler.job import JobHeader, partition_of
from pixloom_scheduler.journal.batch import NewJob
from pixloom_scheduler.rerun_drafts import draft
from pixloom_scheduler.step import OWNER_CHANGED
from pixloom_scheduler.submission import Submission
from pixloom_scheduler.traces import trace_context_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pixloom_scheduler.catalogue import OpCatalogue
    from pixloom_scheduler.clock import DatabaseClock
    from pixloom_scheduler.journal.inheritance import InheritanceWriter
    from pixloom_scheduler.journal.loader import Loader
    from pixloom_scheduler.journal.reader import Reader, StoredJob
    from pixloom_scheduler.live import LiveJob
    from pixloom_scheduler.reads import JobReads
    from pixloom_scheduler.replica import Replica
    from pixloom_scheduler.rerun_drafts import Draft, Rerun
    from pixloom_scheduler.submission import Submissions

__all__ = ["Reruns"]

_RETRY_S: Final = 0.2
_ENDED: Final = (job_pb2.JOB_STATE_COMPLETED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED)


class Reruns:
    """Makes jobs of jobs.

    Args:
        loaded: Waits until a job of a partition that was just taken is in memory, if it is to be.
    """

    def __init__(
        self,
        *,
        replica: Replica,
        submissions: Submissions,
        reads: JobReads,
        reader: Reader,
        loader: Loader,
        writer: InheritanceWriter,
        catalogue: OpCatalogue,
        clock: DatabaseClock,
        loaded: Callable[[str], Awaitable[None]],
    ) -> None:
        self._replica = replica
        self._submissions = submissions
        self._reads = reads
        self._reader = reader
        self._loader = loader
        self._writer = writer
        self._catalogue = catalogue
        self._clock = clock
        self._loaded = loaded
        self._tasks: set[asyncio.Task[LiveJob]] = set()
        self._log = structlog.get_logger("reruns")

    async def rerun(self, rerun: Rerun) -> LiveJob | StoredJob:
        """Make a new job of an old one and return it once it is durable; a repeated request returns the first job.

        Raises:
            NotFoundError: If there is no such job.
            InvalidError: If it has no such node, or params do not fit or touch a node whose results are kept.
            StateConflictError: If it has not ended, or has no complete results of a node that would not run again.
            AlreadyExistsError: If the request id came with another body before.
        """
        before = await self._submissions.repeated(rerun.project, rerun.request_id, rerun.digest)
        if before is not None:
            return before
        old = await self._reads.job(rerun.job_id)
        document = await self._reader.spec(rerun.job_id)
        if document is None:
            raise _missing(rerun.job_id)
        if rerun.from_node:
            return await self._from_node(rerun, old, document)
        return await self._submissions.submit(
            Submission(
                project=old.project,
                workflow="",
                version=0,
                document=orjson.loads(document),
                params={**orjson.loads(old.params_json or b"{}"), **rerun.given},
                tags=dict(old.tags),
                metadata=orjson.loads(old.metadata_json or b"{}"),
                priority=old.priority,
                external_id="",
                request_id=rerun.request_id,
                digest=rerun.digest,
                name=old.name,
                start=True,
                trace_context=rerun.trace_context,
            )
        )

    async def _from_node(self, rerun: Rerun, old: job_pb2.Job, document: bytes) -> LiveJob | StoredJob:
        stored = await self._reads.stored(old.id)
        if old.state not in _ENDED or stored.record is None:
            state = job_pb2.JobState.Name(old.state).removeprefix("JOB_STATE_")
            raise StateConflictError(
                f"job {old.id} is {state}: it is not possible to rerun it from a node on before it has ended",
                metadata={"state": state},
            )
        nodes = [job_pb2.Node.FromString(record) for record in await self._reader.nodes(old.id)]
        drafted = await asyncio.to_thread(draft, rerun, stored, document, nodes, self._catalogue.current)
        now = self._clock.now()
        created = datetime.fromtimestamp(now, UTC)
        job_id = self._submissions.mint()
        header = JobHeader(
            id=job_id,
            partition=partition_of(job_id),
            project=stored.project,
            day=created.date(),
            name=stored.name,
            workflow=stored.workflow,
            version=stored.version,
            sha256=stored.sha256,
            params_json=drafted.params_json,
            metadata_json=stored.metadata,
            create_time=created,
            request_id=rerun.request_id,
            request_digest=rerun.digest,
            max_recovery_attempts=stored.max_recovery_attempts,
            trace_context=trace_context_of(job_id, rerun.trace_context),
            tags=stored.tags,
            priority=stored.priority,
        )
        timeout_s = drafted.plan.timeout_s
        start = JobStarted(time=now, deadline=now + timeout_s if timeout_s else 0.0)
        # Whoever asked may go away; what is durable has to be served all the same.
        making = asyncio.create_task(self._make(NewJob(header, document, drafted.plan_json, "RUNNING"), start, drafted))
        self._tasks.add(making)
        making.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(making)
        except AlreadyExistsError:
            # Two calls with one request id at the same moment: the unique index let only one of them in.
            before = await self._submissions.repeated(rerun.project, rerun.request_id, rerun.digest)
            if before is None:
                raise
            return before

    async def _make(self, new: NewJob, start: JobStarted, drafted: Draft) -> LiveJob:
        header = new.header
        epoch = self._replica.epoch_of(header.partition)
        if not epoch or not self._replica.is_inside_lease:
            raise UnavailableError(OWNER_CHANGED, retry_after_s=0.1)
        try:
            written = await self._writer.write(new, start, drafted.inheritance, epoch=epoch)
        except UnavailableError:
            if not await self._stands(header, epoch):
                raise
        else:
            if not written:
                old = drafted.inheritance.old.id
                raise UnavailableError(f"job {old} was taken up again or deleted meanwhile; try again")
        reach("reply.before")
        return await self._serve(header, epoch)

    async def _stands(self, header: JobHeader, epoch: int) -> bool:
        """Return whether a job is durable after all; keeps asking while its partition is ours."""
        while True:
            try:
                return await self._writer.stands(header.id, header.partition, epoch=epoch)
            except UnavailableError as error:
                self._log.warning("rerun_in_doubt", job=header.id, error=str(error)[:200])
                if self._replica.epoch_of(header.partition) != epoch:
                    raise
                await asyncio.sleep(_RETRY_S)

    async def _serve(self, header: JobHeader, epoch: int) -> LiveJob:
        """Take a durable job into memory, unless that has been done or its partition belongs to somebody else now."""
        while self._replica.epoch_of(header.partition) == epoch:
            try:
                # If its partition was taken a moment ago, the job may be among those that are being loaded.
                await self._loaded(header.id)
                loaded = None if self._replica.find(header.id) else await self._loader.load(header.id)
            except UnavailableError as error:
                self._log.warning("rerun_not_loaded", job=header.id, error=str(error)[:200])
                await asyncio.sleep(_RETRY_S)
                continue
            if self._replica.epoch_of(header.partition) != epoch:
                break
            if loaded is not None and self._replica.find(header.id) is None:
                await self._replica.admit(loaded)
            live = self._replica.find(header.id)
            if live is not None:
                return live
            break
        raise UnavailableError(OWNER_CHANGED, retry_after_s=0.1)


def _missing(job_id: str) -> NotFoundError:
    return NotFoundError(f"there is no job {job_id[:100]}; `pixloom list` shows those there are")
