"""Bytes that callers send: collected up to a limit, stored, and on disk before the answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from pixloom.artifacts.media import SNIFF_BYTES, sniff_media_type
from pixloom.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pixloom.artifacts.store import ArtifactStore
    from pixloom.v1 import item_pb2

__all__ = ["MAX_UPLOAD_BYTES", "Uploads"]

MAX_UPLOAD_BYTES: Final = 128 * 1024 * 1024
# The store takes whole artifacts, so uploads are held in memory: only so many at once.
_AT_ONCE: Final = 4


class Uploads:
    """Stores what comes in; at most a few uploads at once, the others wait."""

    def __init__(self, store: ArtifactStore, *, max_bytes: int = MAX_UPLOAD_BYTES) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def store(self, chunks: AsyncIterator[bytes]) -> item_pb2.ArtifactRef:
        """Return the reference of the bytes once they survive a crash of the machine.

        Raises:
            InvalidError: If they are too many (reason TOO_LARGE).
            MachineError: If there is no room.
        """
        async with self._turns:
            data = bytearray()
            async for chunk in chunks:
                data += chunk
                if len(data) > self._max_bytes:
                    raise InvalidError(
                        f"The artifact is larger than {self._max_bytes:,} bytes: put it into the object store "
                        "or a source folder instead.",
                        reason="TOO_LARGE",
                    )
            content = bytes(data)
            del data
            reference = await self._store.aput(content, sniff_media_type(content[:SNIFF_BYTES]))
            await self._store.sync([reference.sha256])
            return reference
