"""Bytes that callers send: streamed into the store up to a limit, and on disk before the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pixloom.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pixloom.artifacts.store import ArtifactStore
    from pixloom.v1 import item_pb2

__all__ = ["MAX_UPLOAD_BYTES", "Uploads"]

MAX_UPLOAD_BYTES: Final = 128 * 1024 * 1024


class Uploads:
    """Stores what comes in; a block of each upload is in memory at a time."""

    def __init__(self, store: ArtifactStore, *, max_bytes: int = MAX_UPLOAD_BYTES) -> None:
        self._store = store
        self._max_bytes = max_bytes

    async def store(self, chunks: AsyncIterator[bytes]) -> item_pb2.ArtifactRef:
        """Return the reference of the bytes once they survive a crash of the machine.

        Raises:
            InvalidError: If they are too many (reason TOO_LARGE).
            MachineError: If there is no room.
        """
        reference = await self._store.astore(self._limited(chunks))
        await self._store.sync([reference.sha256])
        return reference

    async def _limited(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in chunks:
            size += len(chunk)
            if size > self._max_bytes:
                raise InvalidError(
                    f"The artifact is larger than {self._max_bytes:,} bytes: put it into the object store "
                    "or a source folder instead.",
                    reason="TOO_LARGE",
                )
            yield chunk
