"""The object store in a folder.

It uses plain system calls rather than obstore: a child process writes one small file per image, and a call through
obstore's runtime costs three times the write itself (measured 144 µs against 50 µs for 20 KB), starts threads in every
forked child, and has no way to fsync. The layout is obstore's, so the folder may be copied to a bucket as is.

A file is written under `tmp/` and renamed into `cas/<aa>/`, so nobody sees a part of it. The rename may reach the disk
before the bytes do; hence `sync` before a result is reported, and hence `put` compares the bytes of a file that is
there already and writes it again if a crash of the machine left it torn.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import itertools
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pixloom.artifacts.disk_sync import SyncRounds
from pixloom.artifacts.media import SNIFF_BYTES, sniff_media_type
from pixloom.artifacts.store import CHUNK_BYTES, absent, cas_key, check_digest, check_range, in_blocks
from pixloom.errors import MachineError
from pixloom.v1 import item_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from hashlib import _Hash as Hash

__all__ = ["FileStore"]

T = TypeVar("T")

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class FileStore:
    """Artifacts in a folder (an `ArtifactStore`); any number of processes may share it."""

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root)
        self._prefix = f"{self._root}{os.sep}"
        self._names = itertools.count()
        self._rounds = SyncRounds(str(self._root))

    @property
    def uri(self) -> str:
        """The folder as a URL."""
        return self._root.as_uri()

    def put(self, data: bytes, media_type: str) -> pb.ArtifactRef:
        """Store bytes; see `ArtifactStore.put`."""
        sha256 = hashlib.sha256(data).hexdigest()
        target = self._prefix + cas_key(sha256)
        ref = pb.ArtifactRef(sha256=sha256, size_bytes=len(data), media_type=media_type)
        if _holds(target, data):
            return ref
        unfinished = self._unfinished_path()
        try:
            self._write(unfinished, data)
            self._rename(unfinished, target)
        except OSError as error:
            with suppress(OSError):
                os.unlink(unfinished)  # noqa: PTH108 (a Path costs more than the call)
            raise self._machine_error("written", error) from error
        except BaseException:
            with suppress(OSError):
                os.unlink(unfinished)  # noqa: PTH108
            raise
        return ref

    def get(self, sha256: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return bytes; see `ArtifactStore.get`."""
        handle = self._open(sha256)
        try:
            size = os.fstat(handle).st_size
            count = check_range(sha256, size=size, offset=offset, length=length)
            data = _read(handle, offset, count)
        except OSError as error:
            raise self._machine_error("read", error) from error
        finally:
            os.close(handle)
        if count == size:
            check_digest(sha256, data)
        return data

    def head(self, sha256: str) -> pb.ArtifactRef | None:
        """Return size and media type; see `ArtifactStore.head`."""
        try:
            handle = os.open(self._prefix + cas_key(sha256), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._machine_error("read", error) from error
        try:
            return pb.ArtifactRef(
                sha256=sha256,
                size_bytes=os.fstat(handle).st_size,
                media_type=sniff_media_type(os.pread(handle, SNIFF_BYTES, 0)),
            )
        except OSError as error:
            raise self._machine_error("read", error) from error
        finally:
            os.close(handle)

    def path(self, sha256: str) -> Path | None:
        """Return the file; see `ArtifactStore.path`."""
        path = Path(self._prefix + cas_key(sha256))
        return path if path.is_file() else None

    async def aput(self, data: bytes, media_type: str) -> pb.ArtifactRef:
        """Store bytes in a thread."""
        return await asyncio.to_thread(self.put, data, media_type)

    async def astore(self, chunks: AsyncIterator[bytes]) -> pb.ArtifactRef:
        """Store bytes as they come; see `ArtifactStore.astore`."""
        unfinished = self._unfinished_path()
        digest, first, size = hashlib.sha256(), b"", 0
        # A list, so that a handle that came after a cancel is closed as well.
        opened: list[int] = []
        try:
            try:
                await self._tried(lambda: opened.append(self._create(unfinished)))
                async for block in in_blocks(chunks):
                    first = first or block[:SNIFF_BYTES]
                    size += len(block)
                    await self._tried(_write_hashed, opened[0], block, digest)
            finally:
                for handle in opened:
                    os.close(handle)
            ref = pb.ArtifactRef(sha256=digest.hexdigest(), size_bytes=size, media_type=sniff_media_type(first))
            # Over one that is there already: it has the same bytes, unless a crash of the machine left it torn.
            await self._tried(self._rename, unfinished, self._prefix + cas_key(ref.sha256))
        except BaseException:
            with suppress(OSError):
                os.unlink(unfinished)  # noqa: PTH108
            raise
        return ref

    async def aget(self, sha256: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return bytes, read in a thread."""
        return await asyncio.to_thread(self.get, sha256, offset, length)

    async def ahead(self, sha256: str) -> pb.ArtifactRef | None:
        """Return size and media type, read in a thread."""
        return await asyncio.to_thread(self.head, sha256)

    async def astream(self, sha256: str, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Yield chunks; see `ArtifactStore.astream`."""
        handle = await asyncio.to_thread(self._open, sha256)
        try:
            size = os.fstat(handle).st_size
            end = offset + check_range(sha256, size=size, offset=offset, length=length)
            while offset < end:
                try:
                    chunk = await asyncio.to_thread(_read, handle, offset, min(CHUNK_BYTES, end - offset))
                except OSError as error:
                    raise self._machine_error("read", error) from error
                if not chunk:
                    return
                offset += len(chunk)
                yield chunk
        finally:
            os.close(handle)

    async def sync(self, digests: Iterable[str]) -> None:
        """Return when the artifacts are on disk; calls that come together share their fsyncs."""
        keys = {cas_key(sha256) for sha256 in digests}
        if not keys:
            return
        for key, error in (await self._rounds.sync(keys)).items():
            if isinstance(error, FileNotFoundError):
                raise absent(key[-64:]) from error
            raise self._machine_error("flushed to disk", error) from error

    def discard_unfinished(self, *, before_s: float) -> int:
        """Remove what writers left behind; see `ArtifactStore.discard_unfinished`."""
        removed = 0
        try:
            with suppress(FileNotFoundError), os.scandir(f"{self._prefix}tmp") as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        if entry.stat().st_mtime < before_s:
                            os.unlink(entry.path)  # noqa: PTH108
                            removed += 1
        except OSError as error:
            raise self._machine_error("removed", error) from error
        return removed

    def _open(self, sha256: str) -> int:
        try:
            return os.open(self._prefix + cas_key(sha256), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise absent(sha256) from error
        except OSError as error:
            raise self._machine_error("read", error) from error

    async def _tried(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do a step of a write in a thread, to its end also when this is cancelled: it may use a handle closed next."""
        task = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task})
            raise
        except OSError as error:
            raise self._machine_error("written", error) from error

    def _unfinished_path(self) -> str:
        # Two children of one fork share the counter's value, hence pid; two stores of one process, hence the nonce.
        return f"{self._prefix}tmp{os.sep}{os.getpid()}-{next(self._names)}-{secrets.token_hex(4)}"

    def _create(self, path: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return os.open(path, flags, 0o644)
        except FileNotFoundError:
            os.makedirs(f"{self._prefix}tmp", exist_ok=True)  # noqa: PTH103
            return os.open(path, flags, 0o644)

    def _write(self, path: str, data: bytes) -> None:
        handle = self._create(path)
        try:
            _write_all(handle, data)
        finally:
            os.close(handle)

    def _rename(self, source: str, target: str) -> None:
        try:
            os.rename(source, target)  # noqa: PTH104
        except FileNotFoundError:
            os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
            os.rename(source, target)  # noqa: PTH104

    def _machine_error(self, action: str, error: OSError) -> MachineError:
        if error.errno in _NO_ROOM:
            return MachineError(
                f"An artifact could not be {action}: there is no room in {self._root}. "
                "Free some or set PIXLOOM_ARTIFACTS_URL to another place."
            )
        return MachineError(
            f"An artifact could not be {action} in {self._root}: {error.strerror}. Check the folder and its permissions."
        )


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _write_hashed(handle: int, data: bytes, digest: Hash) -> None:
    digest.update(data)
    _write_all(handle, data)


def _holds(path: str, data: bytes) -> bool:
    """Return whether a file is there with exactly these bytes."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if os.fstat(handle).st_size != len(data):
            return False
        view = memoryview(data)
        return all(
            _read(handle, at, CHUNK_BYTES) == view[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)
        )
    except OSError:
        return False
    finally:
        os.close(handle)


def _read(handle: int, offset: int, count: int) -> bytes:
    """Read `count` bytes, fewer only at the end of the file."""
    data = os.pread(handle, count, offset)
    if len(data) == count or not data:
        return data
    parts = [data]
    missing = count - len(data)
    while missing and (data := os.pread(handle, missing, offset + count - missing)):
        parts.append(data)
        missing -= len(data)
    return b"".join(parts)
