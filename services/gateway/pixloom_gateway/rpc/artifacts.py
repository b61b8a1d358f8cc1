"""ArtifactService over the object store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pixloom.artifacts.store import absent
from pixloom.v1 import artifact_pb2, artifact_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pixloom.artifacts.store import ArtifactStore
    from pixloom_gateway.uploads import Uploads

__all__ = ["Artifacts"]


class Artifacts(artifact_pb2_grpc.ArtifactServiceServicer):
    """Bytes by digest."""

    def __init__(self, store: ArtifactStore, uploads: Uploads) -> None:
        self._store = store
        self._uploads = uploads

    async def GetArtifact(
        self, request: artifact_pb2.GetArtifactRequest, context: Any
    ) -> artifact_pb2.GetArtifactResponse:
        """Return what is known of an artifact."""
        del context
        found = await self._store.ahead(request.sha256)
        if found is None:
            raise absent(request.sha256)
        return artifact_pb2.GetArtifactResponse(artifact=found)

    async def DownloadArtifact(
        self, request: artifact_pb2.DownloadArtifactRequest, context: Any
    ) -> AsyncIterator[artifact_pb2.DownloadArtifactResponse]:
        """Stream bytes of an artifact."""
        del context
        async for chunk in self._store.astream(request.sha256, request.offset, request.length or None):
            yield artifact_pb2.DownloadArtifactResponse(data=chunk)

    async def UploadArtifact(
        self, request_iterator: AsyncIterator[artifact_pb2.UploadArtifactRequest], context: Any
    ) -> artifact_pb2.UploadArtifactResponse:
        """Store bytes."""
        del context

        async def chunks() -> AsyncIterator[bytes]:
            async for request in request_iterator:
                yield request.data

        return artifact_pb2.UploadArtifactResponse(artifact=await self._uploads.store(chunks()))
