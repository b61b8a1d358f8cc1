"""The client for asyncio against a real server on a unix socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from pixloom import AsyncClient
from pixloom.errors import NotFoundError
from pixloom.resources import Event, JobState
from pixloom.v1 import artifact_pb2, artifact_pb2_grpc, item_pb2, job_pb2, job_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

_ENDED = job_pb2.Job(id="j1", name="a", workflow="a", state=job_pb2.JOB_STATE_COMPLETED)
_BYTES = b"0123456789" * 100_000


class _Jobs(job_pb2_grpc.JobServiceServicer):
    """One job whose stream breaks once, and items in two pages."""

    def __init__(self) -> None:
        self.watched: list[int] = []

    async def GetJob(self, request: job_pb2.GetJobRequest, context: Any) -> job_pb2.GetJobResponse:
        if request.id != "j1":
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such job")
        return job_pb2.GetJobResponse(job=_ENDED)

    async def ListItems(self, request: job_pb2.ListItemsRequest, context: Any) -> job_pb2.ListItemsResponse:
        key = request.page_token or "first"
        item = item_pb2.Item(key=key, state=item_pb2.ITEM_STATE_OK)
        return job_pb2.ListItemsResponse(items=[item], next_page_token="" if request.page_token else "second")

    async def WatchJob(self, request: job_pb2.WatchJobRequest, context: Any) -> AsyncIterator[job_pb2.WatchJobResponse]:
        self.watched.append(request.after_seq)
        yield job_pb2.WatchJobResponse(event=job_pb2.JobEvent(seq=request.after_seq + 1, type="node_ended"))
        if len(self.watched) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the server stops")
        yield job_pb2.WatchJobResponse(snapshot=job_pb2.JobSnapshot(job=_ENDED))


class _Artifacts(artifact_pb2_grpc.ArtifactServiceServicer):
    """One artifact; what is uploaded is counted."""

    async def DownloadArtifact(
        self, request: artifact_pb2.DownloadArtifactRequest, context: Any
    ) -> AsyncIterator[artifact_pb2.DownloadArtifactResponse]:
        data = _BYTES[request.offset :]
        for start in range(0, len(data), 300_000):
            yield artifact_pb2.DownloadArtifactResponse(data=data[start : start + 300_000])

    async def UploadArtifact(self, request_iterator: Any, context: Any) -> artifact_pb2.UploadArtifactResponse:
        size = 0
        async for request in request_iterator:
            size += len(request.data)
        return artifact_pb2.UploadArtifactResponse(artifact=item_pb2.ArtifactRef(sha256="1" * 64, size_bytes=size))


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[AsyncClient, _Jobs]]:
    server = grpc.aio.server()
    jobs = _Jobs()  # type: ignore[abstract]  # the other RPCs are not called
    job_pb2_grpc.add_JobServiceServicer_to_server(jobs, server)
    artifact_pb2_grpc.add_ArtifactServiceServicer_to_server(_Artifacts(), server)  # type: ignore[abstract]
    address = f"unix:{tmp_path}/s"
    server.add_insecure_port(address)
    await server.start()
    async with AsyncClient(address) as client:
        yield client, jobs
    await server.stop(None)


async def test_job_is_read(served: tuple[AsyncClient, _Jobs]) -> None:
    client, _ = served

    assert (await client.get_job("j1")).state is JobState.COMPLETED
    assert await client.is_answering()


async def test_error_is_raised_as_its_class(served: tuple[AsyncClient, _Jobs]) -> None:
    client, _ = served

    with pytest.raises(NotFoundError, match="no such job"):
        await client.get_job("j2")


async def test_items_of_all_pages_are_iterated(served: tuple[AsyncClient, _Jobs]) -> None:
    client, _ = served

    assert [item.key async for item in client.iter_items("j1", "n")] == ["first", "second"]


async def test_watch_resumes_behind_the_last_event(served: tuple[AsyncClient, _Jobs]) -> None:
    client, jobs = served

    updates = [update async for update in client.watch_job("j1")]

    assert jobs.watched == [0, 1]
    assert [update.seq for update in updates if isinstance(update, Event)] == [1, 2]


async def test_waiting_asks_for_no_events_and_returns_the_job(served: tuple[AsyncClient, _Jobs]) -> None:
    client, jobs = served

    assert (await client.wait_job("j1", timeout_s=60)).state is JobState.COMPLETED
    assert jobs.watched[0] == 2**63 - 1


async def test_artifacts_go_both_ways(served: tuple[AsyncClient, _Jobs], tmp_path: Path) -> None:
    client, _ = served

    saved = await client.save_artifact("0" * 64, tmp_path / "file")
    stored = await client.upload_artifact(saved)

    assert saved.read_bytes() == _BYTES
    assert stored.size_bytes == len(_BYTES)
    assert b"".join([data async for data in client.download_artifact("0" * 64, offset=999_990)]) == b"0123456789"
