"""The blocking client."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc

from pixloom.resources import Artifact, Job
from pixloom.rpc.channel import sync_channel
from pixloom.rpc.status import from_rpc_error
from pixloom.sdk.address import default_server, grpc_address
from pixloom.sdk.api import Api
from pixloom.sdk.call import Call, SyncCaller, sent_errors
from pixloom.sdk.files import saved_to
from pixloom.sdk.upload import CHUNK_BYTES, chunks_of
from pixloom.sdk.watching import NO_EVENTS, Resumption
from pixloom.v1 import artifact_pb2, artifact_pb2_grpc, job_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from pixloom.sdk.upload import Uploadable
    from pixloom.sdk.watching import Update

__all__ = ["Client"]

R = TypeVar("R")


class Client(Api, SyncCaller):
    """Talks to a Pixloom server; safe to share between threads.

    Args:
        server: `host:port`, `grpc://host:port` or `http://host:port`; by default PIXLOOM_SERVER or 127.0.0.1:7301.
        timeout_s: Deadline of a call in seconds; streams have none.
        channel: A channel to use instead of opening one; it is not closed by the client.
    """

    def __init__(
        self, server: str | None = None, *, timeout_s: float = 30.0, channel: grpc.Channel | None = None
    ) -> None:
        self.address = "" if channel is not None else grpc_address(server or default_server())
        self._owned = sync_channel(self.address) if channel is None else None
        self._channel: grpc.Channel = self._owned or channel  # type: ignore[assignment]
        self._timeout_s = timeout_s
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; may be called twice."""
        self._closed.set()
        if self._owned is not None:
            self._owned.close()

    def invoke(self, call: Call[R]) -> R:
        """Send a call and return its result.

        Raises:
            PixloomError: What the server answered, or that it did not.
        """
        method = self._channel.unary_unary(
            call.path,
            request_serializer=type(call.request).SerializeToString,
            response_deserializer=call.response.FromString,
        )
        with sent_errors():
            response = method(call.request, timeout=self._timeout_s + call.wait_s)
        return call.parse(response)

    def is_answering(self, *, timeout_s: float = 1.0) -> bool:
        """Tell whether something accepts connections at the address within `timeout_s` seconds."""
        try:
            grpc.channel_ready_future(self._channel).result(timeout=timeout_s)
        except grpc.FutureTimeoutError:
            return False
        return True

    def watch_job(self, job_id: str, *, after_seq: int = 0, give_up_after_s: float = 60.0) -> Iterator[Update]:
        """Yield what happens to a job until it ends; resumes by itself after a broken connection.

        Args:
            job_id: Id of the job.
            after_seq: Number of the last event seen; 0 means from the beginning, 2**63 - 1 snapshots alone.
            give_up_after_s: Seconds without a connection after which the error is raised.

        Yields:
            Durable events in order, and snapshots of progress in between; the last one is the final snapshot.

        Raises:
            PixloomError: What the server answered, or that it did not.
        """
        return self._follow(Resumption(job_id, after_seq=after_seq, give_up_after_s=give_up_after_s))

    def _follow(self, resumption: Resumption, *, until: float = math.inf) -> Iterator[Update]:
        """Yield what happens to a job until it ends, or until a moment by the monotonic clock."""
        watch = job_pb2_grpc.JobServiceStub(self._channel).WatchJob
        while not resumption.is_over:
            left_s = until - time.monotonic()
            if left_s <= 0:
                return
            failure = None
            stream: Any = watch(resumption.request(), timeout=left_s if left_s < math.inf else None)
            try:
                for response in stream:
                    update = resumption.accept(response)
                    if update is not None:
                        yield update
            except grpc.RpcError as error:
                failure = from_rpc_error(error)
            finally:
                stream.cancel()
            if not resumption.is_over:
                self._closed.wait(min(resumption.delay_after(failure), max(until - time.monotonic(), 0)))

    def wait_job(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """Wait until a job ends and return it.

        Args:
            job_id: Id of the job.
            timeout_s: Longest time to wait in seconds; None means as long as it takes.

        Returns:
            The job; still unfinished if the time was up.

        Raises:
            PixloomError: What the server answered, or that it did not.
        """
        until = math.inf if timeout_s is None else time.monotonic() + timeout_s
        for _ in self._follow(Resumption(job_id, after_seq=NO_EVENTS), until=until):
            pass
        return self.get_job(job_id)

    def download_artifact(self, sha256: str, *, offset: int = 0, length: int = 0) -> Iterator[bytes]:
        """Yield the bytes of an artifact in pieces of at most 1 MiB.

        Args:
            sha256: SHA-256 of the bytes, 64 hexadecimal digits.
            offset: Index of the first byte.
            length: Number of bytes; 0 means to the end.

        Raises:
            PixloomError: What the server answered, or that it did not.
        """
        request = artifact_pb2.DownloadArtifactRequest(sha256=sha256, offset=offset, length=length)
        with sent_errors():
            for response in artifact_pb2_grpc.ArtifactServiceStub(self._channel).DownloadArtifact(request):
                yield response.data

    def read_artifact(self, sha256: str) -> bytes:
        """Return the bytes of an artifact."""
        return b"".join(self.download_artifact(sha256))

    def save_artifact(self, sha256: str, path: Path | str) -> Path:
        """Write an artifact to a file, whole or not at all, and return its path."""
        with saved_to(Path(path)) as file:
            for data in self.download_artifact(sha256):
                file.write(data)
        return Path(path)

    def upload_artifact(self, data: Uploadable) -> Artifact:
        """Store bytes and return their reference.

        Args:
            data: Bytes, or the path of a file.

        Raises:
            PixloomError: What the server answered, or that it did not.
        """
        requests = (artifact_pb2.UploadArtifactRequest(data=chunk) for chunk in chunks_of(data, CHUNK_BYTES))
        with sent_errors():
            response = artifact_pb2_grpc.ArtifactServiceStub(self._channel).UploadArtifact(requests)
        return Artifact.from_proto(response.artifact)
