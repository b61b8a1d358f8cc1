"""Submits jobs and waits for them, as any gRPC client would."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.duration_pb2 import Duration

from pixloom.sdk.watching import NO_EVENTS
from pixloom.v1 import job_pb2, job_pb2_grpc

if TYPE_CHECKING:
    import grpc

__all__ = ["Finished", "cancel_job", "run_job", "run_small_job", "started_after", "submit", "until_tasks_done"]

_MOST_WAIT = Duration(seconds=60)


@dataclass(frozen=True, slots=True)
class Finished:
    """A job that ended.

    Attributes:
        job: The job.
        nodes: Its nodes.
        elapsed_s: Seconds from the call that submitted it until the last message of its watch.
    """

    job: job_pb2.Job
    nodes: list[job_pb2.Node]
    elapsed_s: float


async def run_small_job(channel: grpc.aio.Channel, document: dict[str, Any]) -> float:
    """Submit a document in a call that waits for the job's end and return its seconds; not COMPLETED raises."""
    stub = job_pb2_grpc.JobServiceStub(channel)
    spec = json.dumps(document).encode()
    begin = time.perf_counter()
    answer = await stub.CreateJob(job_pb2.CreateJobRequest(spec_json=spec, wait=_MOST_WAIT))
    elapsed = time.perf_counter() - begin
    if answer.job.state != job_pb2.JOB_STATE_COMPLETED:
        raise RuntimeError(f"{document['name']} did not complete: {answer.job.state} {answer.job.error}")
    return elapsed


async def run_job(channel: grpc.aio.Channel, document: dict[str, Any]) -> Finished:
    """Submit a document, watch it to its end and return it; anything but COMPLETED raises."""
    stub = job_pb2_grpc.JobServiceStub(channel)
    spec = json.dumps(document).encode()
    begin = time.perf_counter()
    created = await stub.CreateJob(job_pb2.CreateJobRequest(spec_json=spec))
    snapshot = job_pb2.JobSnapshot()
    async for update in stub.WatchJob(job_pb2.WatchJobRequest(id=created.job.id, after_seq=NO_EVENTS)):
        if update.HasField("snapshot"):
            snapshot = update.snapshot
    elapsed = time.perf_counter() - begin
    if snapshot.job.state != job_pb2.JOB_STATE_COMPLETED:
        raise RuntimeError(f"{document['name']} did not complete: {snapshot.job.state} {snapshot.job.error}")
    return Finished(snapshot.job, list(snapshot.nodes), elapsed)


async def submit(channel: grpc.aio.Channel, document: dict[str, Any], *, start: bool = True) -> str:
    """Submit a document and return the id of the job."""
    stub = job_pb2_grpc.JobServiceStub(channel)
    created = await stub.CreateJob(job_pb2.CreateJobRequest(spec_json=json.dumps(document).encode(), start=start))
    return created.job.id


async def until_tasks_done(channel: grpc.aio.Channel, job_id: str, *, done: int) -> None:
    """Watch a job until `done` tasks of it have ended."""
    watch = job_pb2_grpc.JobServiceStub(channel).WatchJob(job_pb2.WatchJobRequest(id=job_id))
    async for update in watch:
        if update.snapshot.job.tasks.done >= done:
            watch.cancel()
            return
    raise RuntimeError(f"job {job_id} ended before {done} tasks were done")


async def started_after(channel: grpc.aio.Channel, document: dict[str, Any]) -> float:
    """Run a one-node job and return the seconds from the call that submits it until its op began in a child."""
    begin = time.time()
    finished = await run_job(channel, document)
    node = finished.nodes[0].id
    stub = job_pb2_grpc.JobServiceStub(channel)
    listed = await stub.ListAttempts(job_pb2.ListAttemptsRequest(id=finished.job.id, node=node))
    return listed.attempts[0].start_time.ToNanoseconds() / 1e9 - begin


async def cancel_job(channel: grpc.aio.Channel, job_id: str) -> None:
    """Cancel a job and wait for its end."""
    stub = job_pb2_grpc.JobServiceStub(channel)
    await stub.CancelJob(job_pb2.CancelJobRequest(id=job_id, now=True))
    async for _ in stub.WatchJob(job_pb2.WatchJobRequest(id=job_id)):
        pass
