"""Answers questions about jobs: from memory while they run, from the database when they have ended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from pixloom.errors import NotFoundError, UnavailableError
from pixloom.v1 import job_pb2
from pixloom_scheduler.live import LiveJob
from pixloom_scheduler.step import OWNER_CHANGED
from pixloom_scheduler.views import job_view, node_view, timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pixloom_scheduler.clock import DatabaseClock
    from pixloom_scheduler.estimates import Estimates
    from pixloom_scheduler.journal.reader import Reader, StoredJob
    from pixloom_scheduler.replica import Replica
    from pixloom_scheduler.waiting import WaitingReasons

__all__ = ["JobReads"]

DURABLE_WAIT_S: Final = 10.0
"""How long a reader waits for a commit."""


class JobReads:
    """Reads jobs and nodes as they are served."""

    def __init__(
        self,
        *,
        replica: Replica,
        reader: Reader,
        waiting: WaitingReasons,
        estimates: Estimates,
        clock: DatabaseClock,
    ) -> None:
        self._replica = replica
        self._reader = reader
        self._waiting = waiting
        self._estimates = estimates
        self._clock = clock

    async def durable(self, job_id: str) -> LiveJob | None:
        """Return a job in memory once all that it shows is durable; None if it is not in memory.

        Raises:
            UnavailableError: If another replica took the job over meanwhile.
        """
        live = self._replica.find(job_id)
        if live is not None:
            await self.until_durable(live)
        return live

    async def until_durable(self, live: LiveJob) -> None:
        """Wait until all that a job shows is durable; whoever goes on without waiting sees it so.

        Raises:
            UnavailableError: If another replica took the job over meanwhile, or the database does not answer.
        """
        self._replica.readers += 1
        try:
            async with asyncio.timeout(DURABLE_WAIT_S):
                while live.run.seq != live.committed_seq:
                    if live.is_gone:
                        raise UnavailableError(OWNER_CHANGED, retry_after_s=0.1)
                    await live.news.wait()
        except TimeoutError as error:
            raise UnavailableError(
                "the database does not answer at the moment; try again", retry_after_s=1.0
            ) from error
        finally:
            self._replica.readers -= 1

    async def stored(self, job_id: str) -> StoredJob:
        """Return a job from the database.

        Raises:
            NotFoundError: If there is none.
        """
        stored = await self._reader.job(job_id) if "\0" not in job_id else None
        if stored is None:
            raise NotFoundError(f"there is no job {job_id[:100]}; `pixloom list` shows those there are")
        return stored

    async def job(self, job_id: str) -> job_pb2.Job:
        """Return a job.

        Raises:
            NotFoundError: If there is none.
        """
        live = await self.durable(job_id)
        if live is not None:
            return self.live_job(live)
        return self.view_stored(await self.stored(job_id))

    async def view(self, found: LiveJob | StoredJob) -> job_pb2.Job:
        """Return a job that was found in memory, once all that it shows is durable, or in the database."""
        if isinstance(found, LiveJob):
            live = found
        else:
            known = self._replica.find(found.id) if found.record is None else None
            if known is None:
                return self.view_stored(found)
            live = known
        await self.until_durable(live)
        return self.live_job(live)

    def live_job(self, live: LiveJob) -> job_pb2.Job:
        """Return a job in memory."""
        now = self._clock.now()
        return job_view(live, now, left_s=self._estimates.of(live.run, now=now).left_s)

    def snapshot(self, live: LiveJob) -> job_pb2.JobSnapshot:
        """Return a job in memory with its nodes."""
        now = self._clock.now()
        outlook = self._estimates.of(live.run, now=now)
        return job_pb2.JobSnapshot(
            job=job_view(live, now, left_s=outlook.left_s), nodes=self._nodes(live, now, outlook.stages_s)
        )

    def view_stored(self, stored: StoredJob) -> job_pb2.Job:
        """Return a job as the database has it; one that still runs shows what its row says."""
        if stored.record is not None:
            return job_pb2.Job.FromString(stored.record)
        created = timestamp(stored.create_time.timestamp())
        return job_pb2.Job(
            id=stored.id,
            name=stored.name,
            workflow=stored.workflow,
            version=stored.version,
            sha256=stored.sha256,
            project=stored.project,
            generation=stored.generation,
            state=job_pb2.JobState.Value(f"JOB_STATE_{stored.state}"),
            params_json=stored.params,
            tags=stored.tags,
            metadata_json=stored.metadata,
            priority=stored.priority,
            external_id=stored.external_id,
            recovery_attempts=stored.recovery_attempts,
            max_recovery_attempts=stored.max_recovery_attempts,
            trace_id=stored.trace_context.get("traceparent", "")[3:35],
            create_time=created,
            update_time=created,
        )

    async def nodes(self, job_id: str) -> list[job_pb2.Node]:
        """Return the nodes of a job in the order of the document.

        Raises:
            NotFoundError: If there is no such job.
        """
        live = await self.durable(job_id)
        if live is not None:
            return self.live_nodes(live)
        stored = await self.stored(job_id)
        return [job_pb2.Node.FromString(record) for record in await self._reader.nodes(stored.id)]

    def live_nodes(self, live: LiveJob) -> list[job_pb2.Node]:
        """Return the nodes of a job in memory."""
        now = self._clock.now()
        return self._nodes(live, now, self._estimates.of(live.run, now=now).stages_s)

    def _nodes(self, live: LiveJob, now: float, expected: Mapping[int, float]) -> list[job_pb2.Node]:
        """Return the nodes of a job in memory.

        Args:
            live: The job.
            now: Seconds on the database's clock.
            expected: Seconds that stages are expected to take from their start.
        """
        run = live.run
        waiting = self._waiting.of(live, now=now)
        nodes = []
        for index, node in enumerate(run.nodes):
            record = live.node_records.get(index)
            if record is not None:
                nodes.append(job_pb2.Node.FromString(record))
                continue
            # Nodes that run together have no time of their own.
            expected_s = expected.get(node.plan.stage) if not node.state.is_terminal else None
            nodes.append(node_view(run, index, now=now, waiting_reason=waiting[index], expected_s=expected_s))
        return nodes
