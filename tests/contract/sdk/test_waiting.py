"""Waiting for a job with a time limit, against a real server whose job gives no news."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from pixloom import Client
from pixloom.resources import JobState
from pixloom.v1 import job_pb2, job_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PAUSED = job_pb2.Job(id="j1", name="a", workflow="a", state=job_pb2.JOB_STATE_PAUSED)
_SILENT_S = 30.0
"""How long the job would give no news; far beyond the time limit of the call."""


class _Jobs(job_pb2_grpc.JobServiceServicer):
    """One paused job, shown once and then no more."""

    def __init__(self) -> None:
        self.ends = threading.Event()

    def GetJob(self, request: job_pb2.GetJobRequest, context: Any) -> job_pb2.GetJobResponse:
        return job_pb2.GetJobResponse(job=_PAUSED)

    def WatchJob(self, request: job_pb2.WatchJobRequest, context: Any) -> Iterator[job_pb2.WatchJobResponse]:
        yield job_pb2.WatchJobResponse(snapshot=job_pb2.JobSnapshot(job=_PAUSED))
        self.ends.wait(_SILENT_S)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    jobs = _Jobs()  # type: ignore[abstract]  # what is not asked for is not served
    server = grpc.server(ThreadPoolExecutor(4))
    job_pb2_grpc.add_JobServiceServicer_to_server(jobs, server)
    address = f"unix:{tmp_path}/s"
    server.add_insecure_port(address)
    server.start()
    with Client(address) as made:
        yield made
    jobs.ends.set()
    server.stop(None).wait()


def test_the_time_limit_holds_for_a_job_that_gives_no_news(client: Client) -> None:
    began = time.monotonic()

    job = client.wait_job("j1", timeout_s=0.3)

    assert job.state is JobState.PAUSED
    assert time.monotonic() - began < _SILENT_S / 2
