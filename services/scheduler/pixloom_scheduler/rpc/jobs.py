"""`JobService` as the scheduler serves it: everything but the reading of manifests; `verbs` has the verbs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from pixloom.errors import InvalidError, NotFoundError, PixloomError, Problem
from pixloom.telemetry.propagation import inject
from pixloom.v1 import job_pb2
from pixloom_scheduler.crash_points import reach
from pixloom_scheduler.journal.reader import AttemptPlace, JobFilter
from pixloom_scheduler.live import LiveJob
from pixloom_scheduler.rpc.requests import (
    PROJECT,
    page_size,
    read_json,
    read_page_number,
    read_page_token,
    read_tags,
    read_text,
    read_wait,
    state_names,
    write_page_token,
)
from pixloom_scheduler.rpc.verbs import JobVerbs
from pixloom_scheduler.stored_plans import plan_of
from pixloom_scheduler.submission import Submission, body_digest
from pixloom_scheduler.views import output_view

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any

    import grpc

    from pixloom_scheduler.journal.finished import FinishedJobs
    from pixloom_scheduler.journal.reader import Reader
    from pixloom_scheduler.reads import JobReads
    from pixloom_scheduler.replica import Replica
    from pixloom_scheduler.reruns import Reruns
    from pixloom_scheduler.rpc.forwarding import Owners
    from pixloom_scheduler.rpc.manifests import ManifestLister
    from pixloom_scheduler.starting import Starts
    from pixloom_scheduler.submission import Submissions
    from pixloom_scheduler.watches import Watches

    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["Jobs"]

_ANSWER_S: Final = 0.25
"""How long before its deadline a call that waits for a job's end is answered."""
_OUTCOMES: Final = ("", "OK", "PARTIAL", "FAILED", "LOST", "CANCELLED")


class Jobs(JobVerbs):
    """Serves jobs: what creates and shows them is here, the verbs are inherited."""

    def __init__(
        self,
        *,
        replica: Replica,
        submissions: Submissions,
        reads: JobReads,
        reader: Reader,
        watches: Watches,
        manifests: ManifestLister,
        starts: Starts,
        reruns: Reruns,
        finished: FinishedJobs,
        owners: Owners | None = None,
    ) -> None:
        super().__init__(
            replica=replica,
            reads=reads,
            reader=reader,
            starts=starts,
            finished=finished,
            reruns=reruns,
            owners=owners,
        )
        self._submissions = submissions
        self._watches = watches
        self._manifests = manifests

    # -- Creating and reading -------------------------------------------------------------------------------------

    async def CreateJob(self, request: job_pb2.CreateJobRequest, context: Context) -> job_pb2.CreateJobResponse:
        """Accept a job, and wait for its end if the caller wants that."""
        wait_s = read_wait(request.wait)
        which = request.WhichOneof("definition")
        if which is None:
            raise InvalidError("give either `workflow` (a name) or `spec` (a document)")
        priority = request.priority if request.HasField("priority") else 5
        if priority > 9:
            raise InvalidError(f"priority is {priority}; it ranges from 0 to 9", problems=(Problem("/priority", ""),))
        submission = Submission(
            project=PROJECT,
            workflow=read_text(request.workflow, "workflow", most=128),
            version=request.version,
            document=read_json(request.spec_json, "spec") if which == "spec_json" else None,
            params=read_json(request.params_json, "params"),
            tags=read_tags(dict(request.tags)),
            metadata=read_json(request.metadata_json, "metadata"),
            priority=priority,
            external_id=read_text(request.external_id, "external_id", most=256),
            request_id=read_text(request.request_id, "request_id", most=256),
            digest="",
            name=read_text(request.name, "name", most=256),
            start=request.start if request.HasField("start") else True,
            trace_context=inject(),
        )
        found = await self._submissions.submit(body_digest(submission))
        if wait_s and isinstance(found, LiveJob):
            # The job is accepted: the caller hears so even if its own deadline, if it has one, comes first.
            left_s = (context.time_remaining() or math.inf) - _ANSWER_S
            await self._watches.until_ended(found, wait_s=max(0.0, min(wait_s, left_s)))
        reach("reply.before")
        return job_pb2.CreateJobResponse(job=await self._reads.view(found))

    async def GetJob(self, request: job_pb2.GetJobRequest, context: Context) -> job_pb2.GetJobResponse:
        """Return a job."""
        del context
        return job_pb2.GetJobResponse(job=await self._reads.job(request.id))

    async def ListJobs(self, request: job_pb2.ListJobsRequest, context: Context) -> job_pb2.ListJobsResponse:
        """List jobs, newest first."""
        del context
        size = page_size(request.page_size)
        wanted = JobFilter(
            states=state_names(request.states),
            workflow=read_text(request.workflow, "workflow", most=128),
            tags=read_tags(dict(request.tags)) or None,
            external_id=read_text(request.external_id, "external_id", most=256),
            recoverable=request.recoverable,
            before=read_page_token(request.page_token),
            project=PROJECT,
        )
        found = await self._reader.jobs(wanted, size + 1)
        if self._owners is not None:
            # Of a job that is not in memory yet the list would show no more than its row has.
            await self._owners.until_loaded(stored.id for stored in found[:size] if stored.record is None)
        jobs = [await self._reads.view(stored) for stored in found[:size]]
        token = write_page_token(found[size - 1].id) if len(found) > size else ""
        return job_pb2.ListJobsResponse(jobs=jobs, next_page_token=token)

    async def GetJobResults(
        self, request: job_pb2.GetJobResultsRequest, context: Context
    ) -> job_pb2.GetJobResultsResponse:
        """Return what a job gave so far."""
        del context
        response = job_pb2.GetJobResultsResponse()
        live = await self._reads.durable(request.id)
        if live is not None:
            run = live.run
            response.state = job_pb2.JobState.Value(f"JOB_STATE_{run.state}")
            response.complete = run.state.is_terminal
            for index, node in enumerate(run.nodes):
                output = output_view(run, index)
                if output is not None:
                    response.nodes[node.plan.id].CopyFrom(output)
            outputs = run.plan.outputs
        else:
            stored = await self._reads.stored(request.id)
            response.state = job_pb2.JobState.Value(f"JOB_STATE_{stored.state}")
            response.complete = stored.record is not None
            for node_view in await self._reads.nodes(request.id):
                if node_view.HasField("result"):
                    response.nodes[node_view.id].CopyFrom(node_view.result)
            plan = await plan_of(stored)
            outputs = plan.outputs
        names = [node.plan.id for node in live.run.nodes] if live else [node.id for node in plan.nodes]
        for name, index in outputs.items():
            if names[index] in response.nodes:
                response.outputs[name].CopyFrom(response.nodes[names[index]])
        return response

    async def ListNodes(self, request: job_pb2.ListNodesRequest, context: Context) -> job_pb2.ListNodesResponse:
        """List the nodes of a job."""
        del context
        return job_pb2.ListNodesResponse(nodes=await self._reads.nodes(request.id))

    async def ListManifests(
        self, request: job_pb2.ListManifestsRequest, context: Context
    ) -> job_pb2.ListManifestsResponse:
        """List where the items of a node lie."""
        del context
        stored = await self._reads.stored(request.id)
        manifests, place = await self._manifests.page(
            stored,
            request.node,
            states=frozenset(request.states),
            after=read_page_number(request.page_token),
            most=page_size(request.page_size),
        )
        return job_pb2.ListManifestsResponse(manifests=manifests, next_page_token=write_page_token(place))

    async def ListItems(self, request: job_pb2.ListItemsRequest, context: Context) -> job_pb2.ListItemsResponse:
        """Refuse: items are read by the gateway, so that the scheduler never decodes a manifest."""
        del request, context
        raise PixloomError("ask the gateway for items; the scheduler lists manifests only", reason="NOT_SUPPORTED")

    async def ListAttempts(
        self, request: job_pb2.ListAttemptsRequest, context: Context
    ) -> job_pb2.ListAttemptsResponse:
        """List attempts in journal order."""
        del context
        stored = await self._reads.stored(request.id)
        plan = await plan_of(stored)
        stage = place = None
        if request.node:
            found = [node for node in plan.nodes if node.id == request.node]
            if not found:
                raise NotFoundError(f"job {request.id} has no node {request.node}")
            stage = found[0].stage
            place = plan.stages[stage].nodes.index(plan.nodes.index(found[0]))
        size = page_size(request.page_size)
        after = read_page_number(request.page_token)
        if request.attempt:
            wanted = AttemptPlace.parse(request.attempt, job_id=stored.id)
            rows = await self._reader.attempt(stored.day, wanted) if wanted is not None else []
        else:
            rows = await self._reader.attempts(stored.day, stored.id, stage=stage, after=after, most=size + 1)
        attempts = []
        for row in rows[:size]:
            stage_plan = plan.stages[row["stage"]]
            task = f"{stored.id}.{row['generation']}.{row['stage']}.{row['shard']}"
            attempt = job_pb2.Attempt(
                id=f"{task}.{row['attempt']}",
                node=request.node or plan.nodes[stage_plan.nodes[0]].id,
                task=task,
                number=row["attempt"],
                generation=row["generation"],
                executor_id=row["executor"] or "",
                outcome=job_pb2.AttemptOutcome.Value(f"ATTEMPT_OUTCOME_{_OUTCOMES[row['outcome']]}"),
                reason=row["reason"] or "",
                detail=row["detail"] or "",
                seq=row["seq"],
                items=_counts(row, place or 0),
            )
            for field, column in ((attempt.start_time, "start_time"), (attempt.end_time, "end_time")):
                if row[column] is not None:
                    field.FromDatetime(row[column])
            attempts.append(attempt)
        token = write_page_token(str(rows[size - 1]["seq"])) if len(rows) > size else ""
        return job_pb2.ListAttemptsResponse(attempts=attempts, next_page_token=token)

    async def WatchJob(
        self, request: job_pb2.WatchJobRequest, context: Context
    ) -> AsyncIterator[job_pb2.WatchJobResponse]:
        """Stream events behind a number and snapshots of progress; ends with the job."""
        del context
        async for update in self._watches.watch(request.id, request.after_seq):
            yield update


def _counts(row: dict[str, Any], place: int) -> job_pb2.ItemCounts:
    counts = row["counts"]
    if not counts:
        return job_pb2.ItemCounts(ok=row["items_out"])
    ok, filtered, rejected = counts[3 * place : 3 * place + 3]
    return job_pb2.ItemCounts(ok=ok, filtered=filtered, rejected=rejected)
