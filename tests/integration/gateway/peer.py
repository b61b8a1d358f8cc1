"""A scheduler in memory that serves the same protos: it stores workflows and jobs and ends them when told to."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from dataclasses import dataclass, field
from typing import Any

import orjson

from pixloom.errors import (
    AlreadyExistsError,
    InvalidError,
    NotFoundError,
    PixloomError,
    Problem,
    StateConflictError,
    VersionConflictError,
)
from pixloom.graph.document import parse_json
from pixloom.rpc.server import build_server, listen, publish_services
from pixloom.v1 import (
    executor_admin_pb2,
    executor_admin_pb2_grpc,
    item_pb2,
    job_pb2,
    job_pb2_grpc,
    op_pb2,
    op_pb2_grpc,
    workflow_pb2,
    workflow_pb2_grpc,
)

SERVICES = [f"pixloom.v1.{name}" for name in ("WorkflowService", "JobService", "OpService", "ExecutorAdminService")]
FINAL = {job_pb2.JOB_STATE_COMPLETED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED}
NOT_FINAL = set(job_pb2.JobState.values()) - FINAL


def _parsed(data: Any) -> Any:
    document = parse_json(data)
    if not isinstance(document.get("name"), str):
        raise InvalidError(
            "The workflow is not valid.",
            reason="INVALID_WORKFLOW",
            problems=(Problem("/name", "a workflow needs a name", "MISSING"),),
        )
    digest = hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return document, digest


class Workflows(workflow_pb2_grpc.WorkflowServiceServicer):
    def __init__(self, peer: Any) -> None:
        self.peer = peer
        self.versions: dict[str, list[workflow_pb2.Workflow]] = {}

    async def CreateWorkflow(self, request: Any, context: Any) -> Any:
        document, digest = _parsed(request.spec_json)
        name = document["name"]
        known = self.versions.get(name)
        if known is not None and known[-1].sha256 != digest:
            raise AlreadyExistsError(f"Workflow {name} exists with other content.")
        return workflow_pb2.CreateWorkflowResponse(workflow=self._add(name, digest, request.spec_json))

    def _add(self, name: Any, digest: Any, spec: Any) -> Any:
        versions = self.versions.setdefault(name, [])
        if not versions or versions[-1].sha256 != digest:
            entry = workflow_pb2.Workflow(name=name, version=len(versions) + 1, sha256=digest, spec_json=spec)
            entry.update_time.GetCurrentTime()
            versions.append(entry)
        return versions[-1]

    def _get(self, name: Any) -> Any:
        if name not in self.versions:
            raise NotFoundError(f"There is no workflow {name}.")
        return self.versions[name]

    async def GetWorkflow(self, request: Any, context: Any) -> Any:
        versions = self._get(request.name)
        if request.version > len(versions):
            raise NotFoundError(f"Workflow {request.name} has no version {request.version}.")
        return workflow_pb2.GetWorkflowResponse(workflow=versions[request.version - 1 if request.version else -1])

    async def ListWorkflows(self, request: Any, context: Any) -> Any:
        response = workflow_pb2.ListWorkflowsResponse()
        for name in sorted(self.versions):
            entry = response.workflows.add()
            entry.CopyFrom(self.versions[name][-1])
            entry.ClearField("spec_json")
        return response

    async def UpdateWorkflow(self, request: Any, context: Any) -> Any:
        _, digest = _parsed(request.spec_json)
        known = self.versions.get(request.name)
        if known is None and not request.allow_missing:
            raise NotFoundError(f"There is no workflow {request.name}.")
        if request.if_match and known and known[-1].sha256 != request.if_match:
            raise VersionConflictError(f"Workflow {request.name} is at another version.")
        before = len(known or ())
        entry = self._add(request.name, digest, request.spec_json)
        return workflow_pb2.UpdateWorkflowResponse(workflow=entry, changed=entry.version > before)

    async def DeleteWorkflow(self, request: Any, context: Any) -> Any:
        known = self.versions.get(request.name)
        if known and request.if_match and known[-1].sha256 != request.if_match:
            raise VersionConflictError(f"Workflow {request.name} is at another version.")
        self.versions.pop(request.name, None)
        return workflow_pb2.DeleteWorkflowResponse()

    async def ValidateWorkflow(self, request: Any, context: Any) -> Any:
        try:
            _, digest = _parsed(request.spec_json)
        except InvalidError as error:
            problems = [
                workflow_pb2.Problem(pointer=entry.pointer, detail=entry.detail, reason=entry.reason)
                for entry in error.problems
            ]
            return workflow_pb2.ValidateWorkflowResponse(problems=problems)
        return workflow_pb2.ValidateWorkflowResponse(sha256=digest)

    async def PlanWorkflow(self, request: Any, context: Any) -> Any:
        stage = workflow_pb2.StagePlan(index=0, nodes=["a", "b"], pool="cpu", shard_size=64)
        stage.cost.FromMilliseconds(250)
        return workflow_pb2.PlanWorkflowResponse(stages=[stage])

    async def ListWorkflowVersions(self, request: Any, context: Any) -> Any:
        response = workflow_pb2.ListWorkflowVersionsResponse()
        for known in reversed(self._get(request.name)):
            entry = response.versions.add()
            entry.CopyFrom(known)
            entry.ClearField("spec_json")
        return response


@dataclass
class Journal:
    job: job_pb2.Job
    events: list[job_pb2.JobEvent] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    nodes: list[job_pb2.Node] = field(default_factory=list)
    attempts: list[job_pb2.Attempt] = field(default_factory=list)
    manifests: dict[str, list[job_pb2.NodeManifest]] = field(default_factory=dict)


class Jobs(job_pb2_grpc.JobServiceServicer):
    def __init__(self, peer: Any) -> None:
        self.peer = peer
        self.jobs: dict[str, Journal] = {}
        self.by_request: dict[str, str] = {}
        self.watchers = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self.watched = asyncio.Event()
        self.seen_requests: list[job_pb2.CreateJobRequest] = []
        self.seen_metadata: list[dict[str, str | bytes]] = []
        self.seen_verbs: list[Any] = []
        self._numbers = itertools.count(1)

    def journal(self, job_id: Any) -> Any:
        if job_id not in self.jobs:
            raise NotFoundError(f"There is no job {job_id}.")
        return self.jobs[job_id]

    async def emit(self, job_id: Any, kind: Any, *, state: Any = "", node: Any = "") -> None:
        journal = self.journal(job_id)
        async with journal.changed:
            journal.job.seq += 1
            journal.events.append(
                job_pb2.JobEvent(seq=journal.job.seq, type=kind, state=state, node=node, generation=1)
            )
            if kind == "job_ended":
                journal.job.state = job_pb2.JobState.Value(f"JOB_STATE_{state}")
            journal.changed.notify_all()

    async def CreateJob(self, request: Any, context: Any) -> Any:
        self.seen_requests.append(request)
        self.seen_metadata.append(dict(context.invocation_metadata()))
        if self.peer.fault is not None:
            raise self.peer.fault
        if request.request_id in self.by_request:
            return job_pb2.CreateJobResponse(job=self.jobs[self.by_request[request.request_id]].job)
        workflow = request.workflow
        if request.WhichOneof("definition") == "spec_json":
            document, _ = _parsed(request.spec_json)
            workflow = document["name"]
        started = not request.HasField("start") or request.start
        job = job_pb2.Job(
            id=f"j{next(self._numbers)}",
            name=request.name or workflow,
            workflow=workflow,
            generation=1,
            state=job_pb2.JOB_STATE_RUNNING if started else job_pb2.JOB_STATE_PENDING,
            params_json=request.params_json,
            metadata_json=request.metadata_json,
            tags=request.tags,
            priority=request.priority if request.HasField("priority") else 5,
            external_id=request.external_id,
        )
        job.create_time.GetCurrentTime()
        self.jobs[job.id] = Journal(job)
        if request.request_id:
            self.by_request[request.request_id] = job.id
        await self.emit(job.id, "job_created")
        return job_pb2.CreateJobResponse(job=job)

    async def GetJob(self, request: Any, context: Any) -> Any:
        return job_pb2.GetJobResponse(job=self.journal(request.id).job)

    async def ListJobs(self, request: Any, context: Any) -> Any:
        found = [entry.job for entry in reversed(self.jobs.values())]
        found = [
            job
            for job in found
            if (not request.states or job.state in request.states)
            and (not request.workflow or job.workflow == request.workflow)
            and (not request.external_id or job.external_id == request.external_id)
            and all(job.tags.get(key) == value for key, value in request.tags.items())
            and (not request.recoverable or job.state in FINAL - {job_pb2.JOB_STATE_COMPLETED})
        ]
        start = int(request.page_token or 0)
        page = found[start : start + (request.page_size or 100)]
        end = start + len(page)
        return job_pb2.ListJobsResponse(jobs=page, next_page_token=str(end) if end < len(found) else "")

    async def UpdateJob(self, request: Any, context: Any) -> Any:
        self.seen_verbs.append(request)
        job = self.journal(request.job.id).job
        if "tags" in request.update_mask.paths:
            job.ClearField("tags")
            job.tags.update(request.job.tags)
        if "priority" in request.update_mask.paths:
            job.priority = request.job.priority
        return job_pb2.UpdateJobResponse(job=job)

    async def DeleteJob(self, request: Any, context: Any) -> Any:
        self.seen_verbs.append(request)
        if request.allow_missing and request.id not in self.jobs:
            return job_pb2.DeleteJobResponse()
        journal = self.journal(request.id)
        if journal.job.state not in FINAL:
            state = job_pb2.JobState.Name(journal.job.state).removeprefix("JOB_STATE_")
            raise StateConflictError(f"Job {request.id} is {state}; cancel it first.", metadata={"state": state})
        del self.jobs[request.id]
        return job_pb2.DeleteJobResponse()

    def _verb(self, request: Any, *, fits: set[Any] | frozenset[Any]) -> Any:
        """Note a verb and return its job, if the state fits."""
        self.seen_verbs.append(request)
        if self.peer.fault is not None:
            raise self.peer.fault
        job = self.journal(request.id).job
        if job.state not in fits:
            state = job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_")
            raise StateConflictError(f"Job {request.id} is {state}.", metadata={"state": state})
        return job

    async def StartJob(self, request: Any, context: Any) -> Any:
        job = self._verb(request, fits=NOT_FINAL)
        if job.state == job_pb2.JOB_STATE_PENDING:
            job.state = job_pb2.JOB_STATE_RUNNING
            if request.params_json:
                job.params_json = request.params_json
        return job_pb2.StartJobResponse(job=job)

    async def PauseJob(self, request: Any, context: Any) -> Any:
        job = self._verb(request, fits=NOT_FINAL)
        job.state = job_pb2.JOB_STATE_PAUSED
        return job_pb2.PauseJobResponse(job=job)

    async def ResumeJob(self, request: Any, context: Any) -> Any:
        job = self._verb(request, fits=NOT_FINAL)
        job.state = job_pb2.JOB_STATE_RUNNING
        return job_pb2.ResumeJobResponse(job=job)

    async def RecoverJob(self, request: Any, context: Any) -> Any:
        job = self._verb(request, fits=FINAL)
        job.generation, job.state = job.generation + 1, job_pb2.JOB_STATE_RECOVERING
        return job_pb2.RecoverJobResponse(job=job)

    async def RetryJob(self, request: Any, context: Any) -> Any:
        job = self._verb(request, fits=FINAL)
        job.generation, job.state = job.generation + 1, job_pb2.JOB_STATE_RUNNING
        return job_pb2.RetryJobResponse(job=job)

    async def ListItems(self, request: Any, context: Any) -> Any:
        raise InvalidError("The gateway lists items.", reason="NOT_SUPPORTED")

    async def CancelJob(self, request: Any, context: Any) -> Any:
        self._verb(request, fits=NOT_FINAL)
        await self.emit(request.id, "job_ended", state="CANCELLED")
        return job_pb2.CancelJobResponse(job=self.journal(request.id).job)

    async def CancelAllJobs(self, request: Any, context: Any) -> Any:
        self.seen_verbs.append(request)
        open_ = [key for key, entry in self.jobs.items() if entry.job.state not in FINAL]
        for key in open_:
            await self.emit(key, "job_ended", state="CANCELLED")
        return job_pb2.CancelAllJobsResponse(cancelled=len(open_))

    async def RerunJob(self, request: Any, context: Any) -> Any:
        self.seen_verbs.append(request)
        old = self.journal(request.id).job
        return await self.CreateJob(
            job_pb2.CreateJobRequest(workflow=old.workflow, request_id=request.request_id), context
        )

    async def WatchJob(self, request: Any, context: Any) -> Any:
        journal = self.journal(request.id)
        self.watchers += 1
        self.idle.clear()
        self.watched.set()
        context.add_done_callback(lambda _: self._unwatched())
        seen = request.after_seq
        while True:
            # One moment's events and the snapshot of the same moment: what a test emits meanwhile is the next turn's.
            events = [event for event in journal.events if event.seq > seen]
            snapshot = job_pb2.JobSnapshot(job=journal.job, nodes=journal.nodes)
            for event in events:
                seen = event.seq
                yield job_pb2.WatchJobResponse(event=event)
            yield job_pb2.WatchJobResponse(snapshot=snapshot)
            if snapshot.job.state in FINAL:
                return
            async with journal.changed:
                after = seen
                await journal.changed.wait_for(lambda: journal.job.seq > after)  # noqa: B023 - awaited in its own turn

    def _unwatched(self) -> None:
        self.watchers -= 1
        if self.watchers == 0:
            self.idle.set()

    async def GetJobResults(self, request: Any, context: Any) -> Any:
        job = self.journal(request.id).job
        response = job_pb2.GetJobResultsResponse(complete=job.state in FINAL, state=job.state)
        response.outputs["n"].CopyFrom(
            job_pb2.Output(kind=job_pb2.OUTPUT_KIND_VALUE, value_json=b'{"a":[1,null]}', node="x")
        )
        return response

    async def ListNodes(self, request: Any, context: Any) -> Any:
        return job_pb2.ListNodesResponse(nodes=self.journal(request.id).nodes)

    async def ListAttempts(self, request: Any, context: Any) -> Any:
        found = self.journal(request.id).attempts
        if request.attempt:
            found = [attempt for attempt in found if attempt.id == request.attempt]
        start = int(request.page_token or 0)
        page = found[start : start + 1]
        end = start + len(page)
        return job_pb2.ListAttemptsResponse(attempts=page, next_page_token=str(end) if end < len(found) else "")

    async def ListManifests(self, request: Any, context: Any) -> Any:
        found = self.journal(request.id).manifests.get(request.node)
        if found is None:
            raise NotFoundError(f"Job {request.id} has no node {request.node}.")
        start = int(request.page_token or 0)
        page = found[start : start + request.page_size]
        end = start + len(page)
        return job_pb2.ListManifestsResponse(manifests=page, next_page_token=str(end) if end < len(found) else "")


class Ops(op_pb2_grpc.OpServiceServicer):
    op = op_pb2.Op(
        name="image.thumbnail@1",
        kind=op_pb2.OP_KIND_ITEM,
        output=op_pb2.PORT_TYPE_IMAGE,
        params_schema_json=b'{"type":"object"}',
        inputs=[op_pb2.Port(name="images", type=op_pb2.PORT_TYPE_IMAGE)],
    )

    async def ListOps(self, request: Any, context: Any) -> Any:
        return op_pb2.ListOpsResponse(ops=[self.op])

    async def GetOp(self, request: Any, context: Any) -> Any:
        if request.name not in {"image.thumbnail", "image.thumbnail@1"}:
            raise NotFoundError(f"There is no op {request.name}; did you mean image.thumbnail?")
        return op_pb2.GetOpResponse(op=self.op)


class Executors(executor_admin_pb2_grpc.ExecutorAdminServiceServicer):
    def __init__(self) -> None:
        self.executors = {"e1": executor_admin_pb2.Executor(id="e1", pools=["cpu"], slots=2)}

    async def ListExecutors(self, request: Any, context: Any) -> Any:
        return executor_admin_pb2.ListExecutorsResponse(executors=self.executors.values())

    async def DrainExecutor(self, request: Any, context: Any) -> Any:
        if request.id not in self.executors:
            raise NotFoundError(f"There is no executor {request.id}.")
        self.executors[request.id].draining = True
        return executor_admin_pb2.DrainExecutorResponse(executor=self.executors[request.id])


class SchedulerPeer:
    def __init__(self) -> None:
        self.fault: PixloomError | Exception | None = None
        self.workflows = Workflows(self)
        self.jobs = Jobs(self)
        self.executors = Executors()
        self.server: Any = None
        self.health: Any = None

    async def start(self, address: Any, *, tracer_provider: Any = None) -> None:
        self.server = build_server(tracer_provider=tracer_provider)
        workflow_pb2_grpc.add_WorkflowServiceServicer_to_server(self.workflows, self.server)
        job_pb2_grpc.add_JobServiceServicer_to_server(self.jobs, self.server)
        op_pb2_grpc.add_OpServiceServicer_to_server(Ops(), self.server)
        executor_admin_pb2_grpc.add_ExecutorAdminServiceServicer_to_server(self.executors, self.server)
        self.health = await publish_services(self.server, SERVICES)
        listen(self.server, address)
        await self.server.start()
        await self.serving(True)

    async def serving(self, yes: Any) -> None:
        from grpc_health.v1 import health_pb2

        state = health_pb2.HealthCheckResponse
        await self.health.set("", state.SERVING if yes else state.NOT_SERVING)

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.stop(None)
            self.server = None


def item(ordinal: Any, key: Any, *, state: Any = "OK", reason: Any = "", node: Any = "") -> Any:
    return item_pb2.Item(
        ordinal=[ordinal],
        key=key,
        state=item_pb2.ItemState.Value(f"ITEM_STATE_{state}"),
        reason=reason,
        node=node,
        attributes_json=b'{"sharp":0.5}',
    )
