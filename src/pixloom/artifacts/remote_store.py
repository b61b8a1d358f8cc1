"""The object store in a bucket (S3, GCS, Azure) or in memory, through obstore."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import obstore
from obstore import exceptions
from obstore.store import MemoryStore, from_url

from pixloom.artifacts.media import SNIFF_BYTES, sniff_media_type
from pixloom.artifacts.store import CHUNK_BYTES, absent, cas_key, check_digest, check_range, in_blocks
from pixloom.errors import UnavailableError
from pixloom.v1 import item_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from obstore.store import ObjectStore

__all__ = ["RemoteStore"]

# Each is a way to the bucket and back: one after another, a report with 64 thumbnails would wait for seconds.
_CHECKS_AT_ONCE: Final = 32


class RemoteStore:
    """Artifacts in a bucket (an `ArtifactStore`).

    The connection is made in the process that first uses it and made anew after a fork, because the threads behind
    it do not survive one; a template process that only forks therefore must not use the store itself.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._url = url
        self._uri = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
        self._pid = -1
        self._connected: ObjectStore | None = None

    @property
    def uri(self) -> str:
        """The URL without credentials."""
        return self._uri

    @property
    def _store(self) -> ObjectStore:
        pid = os.getpid()
        if self._connected is None or self._pid != pid:
            self._connected = MemoryStore() if self._url.startswith("memory:") else from_url(self._url)
            self._pid = pid
        return self._connected

    def put(self, data: bytes, media_type: str) -> pb.ArtifactRef:
        """Store bytes; see `ArtifactStore.put`."""
        ref = _ref_of(data, media_type)
        try:
            obstore.put(self._store, cas_key(ref.sha256), data, mode="create")
        except exceptions.AlreadyExistsError:
            return ref
        except exceptions.BaseError as error:
            raise self._unavailable("written", error) from error
        return ref

    async def aput(self, data: bytes, media_type: str) -> pb.ArtifactRef:
        """Store bytes; see `ArtifactStore.put`."""
        ref = _ref_of(data, media_type)
        try:
            await obstore.put_async(self._store, cas_key(ref.sha256), data, mode="create")
        except exceptions.AlreadyExistsError:
            return ref
        except exceptions.BaseError as error:
            raise self._unavailable("written", error) from error
        return ref

    async def astore(self, chunks: AsyncIterator[bytes]) -> pb.ArtifactRef:
        """Store bytes as they come; see `ArtifactStore.astore`.

        The key is known when the last byte has come, so they go to a key of their own and are copied by the store.
        """
        unfinished = f"tmp/{secrets.token_hex(16)}"
        digest, first, size = hashlib.sha256(), b"", 0

        try:
            async with obstore.open_writer_async(self._store, unfinished) as writer:
                async for block in in_blocks(chunks):
                    first = first or block[:SNIFF_BYTES]
                    size += len(block)
                    digest.update(block)
                    await writer.write(block)
            ref = pb.ArtifactRef(sha256=digest.hexdigest(), size_bytes=size, media_type=sniff_media_type(first))
            await obstore.copy_async(self._store, unfinished, cas_key(ref.sha256))
        except exceptions.BaseError as error:
            raise self._unavailable("written", error) from error
        finally:
            with suppress(exceptions.BaseError, FileNotFoundError):
                await obstore.delete_async(self._store, unfinished)
        return ref

    def get(self, sha256: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return bytes; see `ArtifactStore.get`."""
        key = cas_key(sha256)
        try:
            if offset == 0 and length is None:
                data = bytes(obstore.get(self._store, key).bytes())
                check_digest(sha256, data)
                return data
            size = int(obstore.head(self._store, key)["size"])
            count = check_range(sha256, size=size, offset=offset, length=length)
            return bytes(obstore.get_range(self._store, key, start=offset, length=count)) if count else b""
        except (FileNotFoundError, exceptions.NotFoundError) as error:
            raise absent(sha256) from error
        except exceptions.BaseError as error:
            raise self._unavailable("read", error) from error

    async def aget(self, sha256: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return bytes; see `ArtifactStore.get`."""
        key = cas_key(sha256)
        try:
            if offset == 0 and length is None:
                data = bytes(await (await obstore.get_async(self._store, key)).bytes_async())
                check_digest(sha256, data)
                return data
            size = int((await obstore.head_async(self._store, key))["size"])
            count = check_range(sha256, size=size, offset=offset, length=length)
            return bytes(await obstore.get_range_async(self._store, key, start=offset, length=count)) if count else b""
        except (FileNotFoundError, exceptions.NotFoundError) as error:
            raise absent(sha256) from error
        except exceptions.BaseError as error:
            raise self._unavailable("read", error) from error

    def head(self, sha256: str) -> pb.ArtifactRef | None:
        """Return size and media type; see `ArtifactStore.head`."""
        key = cas_key(sha256)
        try:
            size = int(obstore.head(self._store, key)["size"])
            first = bytes(obstore.get_range(self._store, key, start=0, length=min(size, SNIFF_BYTES))) if size else b""
        except (FileNotFoundError, exceptions.NotFoundError):
            return None
        except exceptions.BaseError as error:
            raise self._unavailable("read", error) from error
        return pb.ArtifactRef(sha256=sha256, size_bytes=size, media_type=sniff_media_type(first))

    async def ahead(self, sha256: str) -> pb.ArtifactRef | None:
        """Return size and media type; see `ArtifactStore.head`."""
        key = cas_key(sha256)
        try:
            size = int((await obstore.head_async(self._store, key))["size"])
            wanted = min(size, SNIFF_BYTES)
            first = bytes(await obstore.get_range_async(self._store, key, start=0, length=wanted)) if size else b""
        except (FileNotFoundError, exceptions.NotFoundError):
            return None
        except exceptions.BaseError as error:
            raise self._unavailable("read", error) from error
        return pb.ArtifactRef(sha256=sha256, size_bytes=size, media_type=sniff_media_type(first))

    def path(self, sha256: str) -> Path | None:
        """Return None: a bucket has no files."""
        cas_key(sha256)  # a digest that is none is refused here as everywhere
        return None

    async def astream(self, sha256: str, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Yield chunks; see `ArtifactStore.astream`."""
        ref = await self.ahead(sha256)
        if ref is None:
            raise absent(sha256)
        end = offset + check_range(sha256, size=ref.size_bytes, offset=offset, length=length)
        while offset < end:
            chunk = await self.aget(sha256, offset, min(CHUNK_BYTES, end - offset))
            offset += len(chunk)
            yield chunk

    async def sync(self, digests: Iterable[str]) -> None:
        """Check that the artifacts are there, many at once: a bucket keeps what it has acknowledged."""
        gate = asyncio.Semaphore(_CHECKS_AT_ONCE)
        checks = [self._require(sha256, gate) for sha256 in dict.fromkeys(digests)]
        for found in await asyncio.gather(*checks, return_exceptions=True):
            if isinstance(found, BaseException):
                raise found

    async def _require(self, sha256: str, gate: asyncio.Semaphore) -> None:
        async with gate:
            try:
                await obstore.head_async(self._store, cas_key(sha256))
            except (FileNotFoundError, exceptions.NotFoundError) as error:
                raise absent(sha256) from error
            except exceptions.BaseError as error:
                raise self._unavailable("checked", error) from error

    def discard_unfinished(self, *, before_s: float) -> int:
        """Remove what writers left behind; see `ArtifactStore.discard_unfinished`."""
        try:
            found = [
                entry["path"]
                for page in obstore.list(self._store, prefix="tmp")
                for entry in page
                if entry["last_modified"].timestamp() < before_s
            ]
            if found:
                obstore.delete(self._store, found)
        except exceptions.BaseError as error:
            raise self._unavailable("removed", error) from error
        return len(found)

    def _unavailable(self, action: str, error: Any) -> UnavailableError:
        return UnavailableError(
            f"An artifact could not be {action}: the object store {self._uri} answered with {type(error).__name__}. "
            "Check PIXLOOM_ARTIFACTS_URL, the credentials and the network."
        )


def _ref_of(data: bytes, media_type: str) -> pb.ArtifactRef:
    return pb.ArtifactRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data), media_type=media_type)
