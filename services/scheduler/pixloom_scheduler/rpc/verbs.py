"""The verbs of `JobService`: what changes a job, checked at the edge.

A verb that does not fit the state of the job is a conflict that names the state; one that already holds changes
nothing and answers as the first time. Whatever changes is journaled before it takes effect.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pixloom.errors import InvalidError, NotFoundError, PixloomError, Problem, StateConflictError, UnavailableError
from pixloom.telemetry.propagation import inject
from pixloom.v1 import job_pb2, job_pb2_grpc
from pixloom_scheduler.core.changes import CancelAccepted
from pixloom_scheduler.core.events import (
    CancelRequested,
    Event,
    PauseRequested,
    RecoverRequested,
    ResumeRequested,
    RetryRequested,
    UpdateRequested,
)
from pixloom_scheduler.core.states import JobState
from pixloom_scheduler.crash_points import reach
from pixloom_scheduler.journal.reader import JobFilter
from pixloom_scheduler.rerun_drafts import Rerun
from pixloom_scheduler.rpc.requests import PROJECT, read_json, read_tags, read_text, state_names

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    import grpc

    from pixloom_scheduler.journal.finished import FinishedJobs
    from pixloom_scheduler.journal.reader import Reader, StoredJob
    from pixloom_scheduler.live import LiveJob
    from pixloom_scheduler.reads import JobReads
    from pixloom_scheduler.replica import Replica
    from pixloom_scheduler.reruns import Reruns
    from pixloom_scheduler.rpc.forwarding import Owners
    from pixloom_scheduler.starting import Starts

    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["JobVerbs"]

T = TypeVar("T")

CANCEL_BATCH: Final = 256
"""Jobs that `CancelAllJobs` has under way at a time."""

_CHANGEABLE: Final = ("tags", "priority")
_UNFINISHED: Final = tuple(state for state in JobState if not state.is_terminal)


class JobVerbs(job_pb2_grpc.JobServiceServicer):
    """Carries verbs out."""

    def __init__(
        self,
        *,
        replica: Replica,
        reads: JobReads,
        reader: Reader,
        starts: Starts,
        finished: FinishedJobs,
        reruns: Reruns,
        owners: Owners | None,
    ) -> None:
        self._replica = replica
        self._reads = reads
        self._reader = reader
        self._starts = starts
        self._finished = finished
        self._reruns = reruns
        self._owners = owners
        # Whoever changes a job that is in nobody's memory reads it first: one at a time.
        self._finished_lock = asyncio.Lock()
        self._changing: set[asyncio.Task[Any]] = set()

    # -- Unfinished jobs ------------------------------------------------------------------------------------------

    async def StartJob(self, request: job_pb2.StartJobRequest, context: Context) -> job_pb2.StartJobResponse:
        """Start a job that was created with start = false."""
        del context
        given = read_json(request.params_json, "params")
        request_id = read_text(request.request_id, "request_id", most=256)
        live = await self._reads.durable(request.id)
        if live is None:
            stored = await self._reads.stored(request.id)
            if stored.record is None or not await self._starts.took_effect(
                stored.id,
                stored.day,
                params_json=stored.params,
                state=stored.state,
                given=given,
                request=request_id,
            ):
                raise _refusal(stored, "start")
            return job_pb2.StartJobResponse(job=self._reads.view_stored(stored))
        await self._starts.start(live, given, request=request_id)
        return job_pb2.StartJobResponse(job=await self._reads.job(request.id))

    async def PauseJob(self, request: job_pb2.PauseJobRequest, context: Context) -> job_pb2.PauseJobResponse:
        """Stop dispatching."""
        del context
        return job_pb2.PauseJobResponse(job=await self._command(request.id, PauseRequested(request.now), "pause"))

    async def ResumeJob(self, request: job_pb2.ResumeJobRequest, context: Context) -> job_pb2.ResumeJobResponse:
        """Dispatch again."""
        del context
        return job_pb2.ResumeJobResponse(job=await self._command(request.id, ResumeRequested(), "resume"))

    async def CancelJob(self, request: job_pb2.CancelJobRequest, context: Context) -> job_pb2.CancelJobResponse:
        """End a job."""
        del context
        event = CancelRequested(detail=read_text(request.reason, "reason") or "cancelled on request", now=request.now)
        return job_pb2.CancelJobResponse(job=await self._command(request.id, event, "cancel"))

    async def _command(self, job_id: str, event: Event, verb: str) -> job_pb2.Job:
        if self._replica.find(job_id) is None:
            stored = await self._reads.stored(job_id)
            if verb == "cancel" and stored.state == JobState.CANCELLED:
                return self._reads.view_stored(stored)
            raise _refusal(stored, verb)
        await self._replica.command(job_id, event)
        return await self._reads.job(job_id)

    async def CancelAllJobs(
        self, request: job_pb2.CancelAllJobsRequest, context: Context
    ) -> job_pb2.CancelAllJobsResponse:
        """Cancel every unfinished job that matches, some at a time."""
        del context
        states = state_names(request.states) or _UNFINISHED
        ended = [state for state in states if state not in _UNFINISHED]
        if ended:
            detail = f"{ended[0]} jobs have ended; name states of {', '.join(_UNFINISHED)}, or none for all of them"
            raise InvalidError(detail, problems=(Problem("/states", detail),))
        wanted = JobFilter(
            states=states,
            workflow=read_text(request.workflow, "workflow", most=128),
            tags=read_tags(dict(request.tags)) or None,
            project=PROJECT,
        )
        event = CancelRequested(detail="cancelled with others on request", now=request.now)
        cancelled, before = 0, ""
        while job_ids := await self._reader.job_ids(wanted, before=before, most=CANCEL_BATCH):
            answers = await asyncio.gather(*(self._cancel_if_unfinished(job_id, event) for job_id in job_ids))
            cancelled += sum(answers)
            before = job_ids[-1]
        return job_pb2.CancelAllJobsResponse(cancelled=cancelled)

    async def _cancel_if_unfinished(self, job_id: str, event: CancelRequested) -> bool:
        """Return whether a job was cancelled that had not been before; it may have ended since it was found."""
        try:
            if self._owners is not None and await self._owners.cancel_elsewhere(job_id, event):
                return True
            changes = await self._replica.command(job_id, event)
        except StateConflictError:
            return False
        return any(isinstance(change, CancelAccepted) for change in changes)

    # -- Any job --------------------------------------------------------------------------------------------------

    async def UpdateJob(self, request: job_pb2.UpdateJobRequest, context: Context) -> job_pb2.UpdateJobResponse:
        """Change tags or priority."""
        del context
        tags, priority = _read_update(request)
        if self._replica.find(request.job.id) is None:
            changed = await self._one_at_a_time(self._update_finished(request.job.id, tags, priority))
            if changed is not None:
                return job_pb2.UpdateJobResponse(job=changed)
        return job_pb2.UpdateJobResponse(job=await self._update_live(request.job.id, tags, priority))

    async def _update_live(self, job_id: str, tags: dict[str, str] | None, priority: int | None) -> job_pb2.Job:
        live = await self._reads.durable(job_id)
        if live is not None and tags == live.header.tags:
            tags = None
        await self._replica.command(job_id, UpdateRequested(tags=tags, priority=priority))
        return await self._reads.job(job_id)

    async def _one_at_a_time(self, change: Coroutine[Any, Any, T]) -> T:
        """Let a change of a job that has ended run to its end, also when whoever asked goes away; nobody else may begin.

        A transaction that goes on alone would meet what others do to the job meanwhile.
        """

        async def work() -> T:
            async with self._finished_lock:
                return await change

        task = asyncio.create_task(work())
        self._changing.add(task)
        task.add_done_callback(self._changing.discard)
        return await asyncio.shield(task)

    async def _update_finished(
        self, job_id: str, tags: dict[str, str] | None, priority: int | None
    ) -> job_pb2.Job | None:
        """Change a job that has ended and left memory; None if somebody has taken it up again."""
        if self._replica.find(job_id) is not None:
            return None
        stored = await self._reads.stored(job_id)
        if stored.record is None:
            raise _away(job_id)
        found = job_pb2.Job.FromString(stored.record)
        if priority is not None and priority != found.priority:
            raise _refusal(stored, "change the priority of")
        if tags is None:
            return found
        record = await self._finished.retag(stored, tags, epoch=self._epoch(stored))
        if record is None:
            raise _missing(job_id)
        return job_pb2.Job.FromString(record)

    async def DeleteJob(self, request: job_pb2.DeleteJobRequest, context: Context) -> job_pb2.DeleteJobResponse:
        """Delete a job that has ended, with everything the database has of it."""
        del context
        await self._one_at_a_time(self._delete(request))
        return job_pb2.DeleteJobResponse()

    async def _delete(self, request: job_pb2.DeleteJobRequest) -> None:
        live = await self._reads.durable(request.id)
        if live is not None:
            if not live.run.state.is_terminal:
                raise _conflict(request.id, live.run.state, "delete", "; cancel it first")
            # First nothing more can happen to it, then what has happened is written: no row comes too late.
            self._replica.forget(request.id)
            await self._reads.until_durable(live)
        try:
            stored = await self._reads.stored(request.id)
        except NotFoundError:
            if request.allow_missing:
                return
            raise
        if stored.record is None:
            raise _away(request.id)
        deleted = await self._finished.delete(stored, epoch=self._epoch(stored))
        if not deleted and not request.allow_missing:
            raise _missing(request.id)

    def _epoch(self, stored: StoredJob) -> int:
        stamp = self._replica.stamps.get(stored.partition)
        if stamp is None or not self._replica.is_inside_lease:
            raise _away(stored.id)
        return stamp.epoch

    # -- Jobs that have ended -------------------------------------------------------------------------------------

    async def RecoverJob(self, request: job_pb2.RecoverJobRequest, context: Context) -> job_pb2.RecoverJobResponse:
        """Let a job that failed or was cancelled go on in its next generation."""
        del context
        live = await self._recall(request.id, "recover")
        again = _indexes(live, [request.from_node] if request.from_node else [], pointer="/from")
        call = read_text(request.request_id, "request_id", most=256)
        event = RecoverRequested(most=live.header.max_recovery_attempts, again=again, request=call)
        await self._replica.command(request.id, event)
        return job_pb2.RecoverJobResponse(job=await self._reads.job(request.id))

    async def RetryJob(self, request: job_pb2.RetryJobRequest, context: Context) -> job_pb2.RetryJobResponse:
        """Try failed nodes and rejected items again in the job's next generation."""
        del context
        live = await self._recall(request.id, "retry")
        reasons = tuple(read_text(reason, "reasons", most=128) for reason in request.reasons)
        nodes = _indexes(live, request.nodes, pointer="/nodes")
        call = read_text(request.request_id, "request_id", most=256)
        await self._replica.command(request.id, RetryRequested(nodes=nodes, reasons=reasons, request=call))
        return job_pb2.RetryJobResponse(job=await self._reads.job(request.id))

    async def RerunJob(self, request: job_pb2.RerunJobRequest, context: Context) -> job_pb2.RerunJobResponse:
        """Create a new job from an old one."""
        del context
        found = await self._reruns.rerun(
            Rerun(
                project=PROJECT,
                job_id=request.id,
                from_node=read_text(request.from_node, "from"),
                given=read_json(request.params_json, "params"),
                request_id=read_text(request.request_id, "request_id", most=256),
                trace_context=inject(),
            )
        )
        reach("reply.before")
        return job_pb2.RerunJobResponse(job=await self._reads.view(found))

    async def _recall(self, job_id: str, verb: str) -> LiveJob:
        """Return a job that may have ended long ago, in memory.

        Raises:
            NotFoundError: If there is none.
            StateConflictError: If it has not ended.
        """
        live = await self._reads.durable(job_id)
        if live is None:
            async with self._finished_lock:
                stored = await self._reads.stored(job_id)
                live = await self._replica.recall(job_id)
            if live is None:
                raise _refusal(stored, verb)
        return live


def _read_update(request: job_pb2.UpdateJobRequest) -> tuple[dict[str, str] | None, int | None]:
    """Return the tags and the priority that a request gives; None for what it leaves alone."""
    paths = set(request.update_mask.paths)
    unknown = sorted(paths - set(_CHANGEABLE))
    if unknown or not paths:
        what = f"{unknown[0]} cannot be changed" if unknown else "update_mask is empty"
        detail = f"{what}; name `tags`, `priority` or both"
        raise InvalidError(detail, problems=(Problem("/update_mask", detail),))
    priority = request.job.priority if "priority" in paths else None
    if priority is not None and priority > 9:
        detail = f"priority is {priority}; it ranges from 0 to 9"
        raise InvalidError(detail, problems=(Problem("/priority", detail),))
    return read_tags(dict(request.job.tags)) if "tags" in paths else None, priority


def _refusal(stored: StoredJob, verb: str) -> PixloomError:
    """Return why a job that is not in memory is left alone: it has ended, or somebody else owns it."""
    return _away(stored.id) if stored.record is None else _conflict(stored.id, stored.state, verb)


def _conflict(job_id: str, state: str, verb: str, remedy: str = "") -> StateConflictError:
    return StateConflictError(
        f"job {job_id} is {state}: it is not possible to {verb} it now{remedy}", metadata={"state": str(state)}
    )


def _missing(job_id: str) -> NotFoundError:
    return NotFoundError(f"there is no job {job_id[:100]}; `pixloom list` shows those there are")


def _away(job_id: str) -> UnavailableError:
    return UnavailableError(f"this scheduler does not own job {job_id} at the moment; try again", retry_after_s=0.5)


def _indexes(live: LiveJob, names: Iterable[str], *, pointer: str) -> tuple[int, ...]:
    """Return the places of nodes given by id, which stand at a JSON pointer in what was asked for."""
    places = {node.plan.id: index for index, node in enumerate(live.run.nodes)}
    missing = [name for name in names if name not in places]
    if missing:
        detail = f"job {live.header.id} has no node {missing[0][:100]}; it has {', '.join(list(places)[:20])}"
        raise InvalidError(detail, problems=(Problem(pointer, detail),))
    return tuple(sorted(places[name] for name in names))
