"""Accepts jobs: definition, params, plan and identity; then one commit."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from pixloom.errors import AlreadyExistsError, PixloomError, UnavailableError
from pixloom_scheduler.core.model import JobRun
from pixloom_scheduler.job import JobHeader, partition_of
from pixloom_scheduler.journal.batch import NewJob
from pixloom_scheduler.live import LiveJob
from pixloom_scheduler.traces import trace_context_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixloom_scheduler.clock import DatabaseClock
    from pixloom_scheduler.journal.definitions import Definitions
    from pixloom_scheduler.journal.reader import Reader, StoredJob
    from pixloom_scheduler.planning import Planned, Planning
    from pixloom_scheduler.replica import Replica

__all__ = ["Submission", "Submissions", "body_digest"]


@dataclass(frozen=True, slots=True)
class Submission:
    """A request to run something, its parts read but not checked.

    Attributes:
        project: Project of the caller.
        workflow: Name of a stored workflow; empty if `document` is given.
        version: Its version; 0 means the newest.
        document: A document; None if `workflow` is given.
        params: Params as given.
        tags: Tags as given.
        metadata: Metadata as given.
        priority: 0 to 9.
        external_id: The caller's own id.
        request_id: Id of the call.
        digest: Digest of the call's body.
        name: Name of the job; empty means the workflow's.
        start: Whether to start it at once.
        trace_context: W3C headers of the call.
    """

    project: str
    workflow: str
    version: int
    document: dict[str, Any] | None
    params: dict[str, Any]
    tags: dict[str, str]
    metadata: dict[str, Any]
    priority: int
    external_id: str
    request_id: str
    digest: str
    name: str
    start: bool
    trace_context: dict[str, str]


class Submissions:
    """Turns requests into durable jobs."""

    def __init__(
        self,
        *,
        replica: Replica,
        definitions: Definitions,
        reader: Reader,
        planning: Planning,
        clock: DatabaseClock,
        new_id: Callable[[], str],
    ) -> None:
        self._replica = replica
        self._definitions = definitions
        self._reader = reader
        self._planning = planning
        self._clock = clock
        self._new_id = new_id
        self._turn = 0
        self._queued: dict[tuple[str, str], asyncio.Task[LiveJob]] = {}

    async def submit(self, submission: Submission) -> LiveJob | StoredJob:
        """Accept a job and return it once it is durable; a repeated request returns the first job.

        Raises:
            InvalidError: If document or params are not valid.
            NotFoundError: If there is no such workflow.
            AlreadyExistsError: If the request id came with another body before.
        """
        before = await self.repeated(submission.project, submission.request_id, submission.digest)
        if before is not None:
            return before
        version, document, sha256 = 0, submission.document, ""
        if document is None:
            definition = await self._definitions.get(submission.project, submission.workflow, submission.version)
            version, document, sha256 = definition.version, orjson.loads(definition.spec), definition.sha256
        # A job that waits to be started may be given the params it lacks then.
        planned = await self._planning.of(document, submission.params, complete=submission.start)
        header = self._header(submission, planned, version=version, sha256=sha256 or planned.sha256)
        run = JobRun.of(header.id, header.partition, planned.plan, priority=header.priority)
        state = "RUNNING" if submission.start else "PENDING"
        new = NewJob(header, planned.document_json, planned.plan_json, state)
        try:
            return await self._queue(new, LiveJob(header, run), start=submission.start)
        except PixloomError:
            # Two calls with one request id at the same moment: the unique index let only one of them in.
            before = await self.repeated(submission.project, submission.request_id, submission.digest)
            if before is None:
                raise
            return before

    async def _queue(self, new: NewJob, live: LiveJob, *, start: bool) -> LiveJob:
        """Make a job durable, even if its caller gives up meanwhile.

        Raises:
            UnavailableError: If a job of the same request was in the queue already, and has been dealt with.
        """
        header = live.header
        request = (header.project, header.request_id)
        first = self._queued.get(request)
        if first is not None:
            await asyncio.wait({first})
            raise UnavailableError("the same request was under way already; try again", retry_after_s=0.1)
        queued = asyncio.create_task(self._replica.submit(new, live, start=start), name="submission")
        if header.request_id:
            self._queued[request] = queued
            queued.add_done_callback(lambda _: self._queued.pop(request))
        # Nobody may be waiting: then an error is no surprise worth a log line.
        queued.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(queued)

    async def repeated(self, project: str, request_id: str, digest: str) -> LiveJob | StoredJob | None:
        """Return the job that a call made when it came before; None if it is new or has no id.

        Raises:
            AlreadyExistsError: If the id came with another body.
        """
        before = await self._reader.job_by_request(project, request_id) if request_id else None
        if before is None:
            return None
        if before.request_digest != digest:
            raise AlreadyExistsError(
                f"request_id {request_id} was used for another job ({before.id}); choose a new one"
            )
        return self._replica.find(before.id) or before

    def mint(self) -> str:
        """Return the id of a new job, in a partition that this replica serves.

        Raises:
            UnavailableError: If it serves none.
        """
        return f"{self._new_id()[:-2]}{self._next_partition():02x}"

    def _header(self, submission: Submission, planned: Planned, *, version: int, sha256: str) -> JobHeader:
        spec = planned.spec
        job_id = self.mint()
        created = datetime.fromtimestamp(self._clock.now(), UTC)
        return JobHeader(
            id=job_id,
            partition=partition_of(job_id),
            project=submission.project,
            day=created.date(),
            name=submission.name or spec.name,
            workflow=spec.name,
            version=version,
            sha256=sha256,
            params_json=planned.params_json,
            metadata_json=orjson.dumps({**spec.metadata, **submission.metadata}),
            create_time=created,
            external_id=submission.external_id,
            request_id=submission.request_id,
            request_digest=submission.digest,
            max_recovery_attempts=spec.max_recovery_attempts,
            trace_context=trace_context_of(job_id, submission.trace_context),
            tags={**spec.tags, **submission.tags},
            priority=submission.priority,
        )

    def _next_partition(self) -> int:
        owned = self._replica.open_partitions()
        if not owned:
            raise UnavailableError("this scheduler owns no partition at the moment", retry_after_s=1.0)
        self._turn += 1
        return owned[self._turn % len(owned)]


def body_digest(submission: Submission) -> Submission:
    """Return the submission with the digest of what makes it the same request."""
    body = (
        submission.workflow,
        submission.version,
        submission.document,
        submission.params,
        submission.tags,
        submission.metadata,
        submission.priority,
        submission.external_id,
        submission.name,
        submission.start,
    )
    encoded = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    return replace(submission, digest=hashlib.sha256(encoded).hexdigest())
