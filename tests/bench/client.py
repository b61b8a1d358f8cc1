"""Submits jobs and waits for them, as any gRPC client would."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pixloom.v1 import job_pb2, job_pb2_grpc

if TYPE_CHECKING:
    import grpc

__all__ = ["Finished", "run_job"]


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


async def run_job(channel: grpc.aio.Channel, document: dict[str, Any]) -> Finished:
    """Submit a document, watch it to its end and return it; anything but COMPLETED raises."""
    stub = job_pb2_grpc.JobServiceStub(channel)
    spec = json.dumps(document).encode()
    begin = time.perf_counter()
    created = await stub.CreateJob(job_pb2.CreateJobRequest(spec_json=spec))
    snapshot = job_pb2.JobSnapshot()
    async for update in stub.WatchJob(job_pb2.WatchJobRequest(id=created.job.id)):
        if update.HasField("snapshot"):
            snapshot = update.snapshot
    elapsed = time.perf_counter() - begin
    if snapshot.job.state != job_pb2.JOB_STATE_COMPLETED:
        raise RuntimeError(f"{document['name']} did not complete: {snapshot.job.state} {snapshot.job.error}")
    return Finished(snapshot.job, list(snapshot.nodes), elapsed)
