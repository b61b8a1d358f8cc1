"""The seam to the object store: immutable bytes below `cas/<aa>/<sha256>`, written once and verified when read.

A digest names content, so a write needs no lock and a repeated one changes nothing. What the store promises:

* nobody sees a part of an artifact: it appears whole or not at all;
* `get` of a whole artifact returns bytes with that digest or raises;
* after `sync` the artifacts named survive a crash of the machine. `put` alone does not promise that, because a task
  writes many artifacts and only the report of its result must wait for the disk.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import unquote, urlsplit

from pixloom.errors import InternalError, InvalidError, NotFoundError, RangeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from pixloom.v1 import item_pb2 as pb

__all__ = [
    "CHUNK_BYTES",
    "ArtifactStore",
    "absent",
    "cas_key",
    "check_digest",
    "check_range",
    "in_blocks",
    "open_store",
]

# Most bytes of a chunk of `astream`: what a gRPC message of a download may carry.
CHUNK_BYTES: Final = 1024 * 1024

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_REMOTE_SCHEMES: Final = frozenset({"s3", "gs", "az", "memory"})


class ArtifactStore(Protocol):
    """Where artifacts are kept. Safe for use from several threads and tasks."""

    @property
    def uri(self) -> str:
        """The URL it was opened with, without credentials."""

    def put(self, data: bytes, media_type: str) -> pb.ArtifactRef:
        """Store bytes and return their reference; bytes that are there already are not written again.

        Raises:
            MachineError: If there is no room or the folder cannot be written; nothing is left behind.
            UnavailableError: If the object store does not answer.
        """

    def get(self, sha256: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return an artifact or `length` bytes of it from `offset`; fewer at its end.

        Raises:
            NotFoundError: If the store does not hold it.
            RangeError: If `offset` lies beyond its end.
            InternalError: If the whole was asked for and its bytes do not have that digest.
        """

    def head(self, sha256: str) -> pb.ArtifactRef | None:
        """Return size and media type (told by the first bytes), or None if the store does not hold it."""

    def path(self, sha256: str) -> Path | None:
        """Return the file that holds the artifact, or None if it is absent or the store has no files."""

    async def aput(self, data: bytes, media_type: str) -> pb.ArtifactRef:
        """Do what `put` does without blocking the loop."""

    async def astore(self, chunks: AsyncIterator[bytes]) -> pb.ArtifactRef:
        """Store bytes as they come, a block of them in memory at a time, and return their reference.

        What `chunks` raises is passed on; like after a cancel, nothing is left behind then. Errors as `put`.
        """

    async def aget(self, sha256: str, offset: int = 0, length: int | None = None) -> bytes:
        """Do what `get` does without blocking the loop."""

    async def ahead(self, sha256: str) -> pb.ArtifactRef | None:
        """Do what `head` does without blocking the loop."""

    def astream(self, sha256: str, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Yield chunks of at most `CHUNK_BYTES`; errors as `get`, before the first chunk. Digests are not checked."""

    async def sync(self, digests: Iterable[str]) -> None:
        """Return when the artifacts survive a crash of the machine.

        Raises:
            NotFoundError: If the store does not hold one of them.
            MachineError: If the disk fails.
        """

    def discard_unfinished(self, *, before_s: float) -> int:
        """Remove what writers left behind when they were killed.

        Args:
            before_s: Only what was last written before this time (seconds since the epoch): younger ones may be alive.

        Returns:
            How many there were.

        Raises:
            MachineError: If the folder cannot be read or written.
            UnavailableError: If the object store does not answer.
        """


async def in_blocks(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the same bytes in blocks of at least `CHUNK_BYTES`, the last one aside; chunks come in any size."""
    waiting = bytearray()
    async for chunk in chunks:
        waiting += chunk
        if len(waiting) >= CHUNK_BYTES:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


def open_store(url: str) -> ArtifactStore:
    """Open the object store at a URL; nothing is read or written yet.

    Args:
        url: `file:///folder`, `s3://bucket/prefix`, `gs://…`, `az://…`, or `memory://` for one that ends with the
            process. Credentials come from the environment, as the cloud's own tools read them.

    Raises:
        InvalidError: If the URL is none of these.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        from pixloom.artifacts.file_store import FileStore

        if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
            raise InvalidError(f"{url!r} is no folder: write file:///absolute/path (PIXLOOM_ARTIFACTS_URL).")
        return FileStore(unquote(parts.path))
    if parts.scheme in _REMOTE_SCHEMES:
        from pixloom.artifacts.remote_store import RemoteStore

        if parts.scheme != "memory" and not parts.netloc:
            raise InvalidError(
                f"{url!r} names no bucket: write {parts.scheme}://bucket/prefix (PIXLOOM_ARTIFACTS_URL)."
            )
        return RemoteStore(url)
    raise InvalidError(
        f"{url!r} is no object store: write file:///…, s3://…, gs://…, az://… or memory:// (PIXLOOM_ARTIFACTS_URL)."
    )


def cas_key(sha256: str) -> str:
    """Return the key of an artifact below the root of the store.

    Raises:
        InvalidError: If it is not 64 lower-case hexadecimal digits; so no digest can name another path.
    """
    if not _SHA256.fullmatch(sha256):
        raise InvalidError(f"{sha256[:80]!r} is no digest: a sha256 has 64 lower-case hexadecimal digits.")
    return f"cas/{sha256[:2]}/{sha256}"


def absent(sha256: str) -> NotFoundError:
    """Return the error for an artifact that the store does not hold."""
    return NotFoundError(f"There is no artifact {sha256}: it was never stored or has been removed.")


def check_range(sha256: str, *, size: int, offset: int, length: int | None) -> int:
    """Return the number of bytes to read.

    Raises:
        RangeError: If the range begins beyond the end or is negative.
    """
    if offset < 0 or offset > size or (length is not None and length < 0):
        raise RangeError(
            f"Byte {offset} lies outside artifact {sha256} of {size} bytes.", metadata={"size_bytes": str(size)}
        )
    return size - offset if length is None else min(length, size - offset)


def check_digest(sha256: str, data: bytes) -> None:
    """Compare bytes with the digest they are kept under.

    Raises:
        InternalError: If they differ.
    """
    actual = hashlib.sha256(data).hexdigest()
    if actual != sha256:
        raise InternalError(
            f"Artifact {sha256} is damaged: its {len(data)} bytes have the digest {actual}. "
            "Remove it from the store and run its job again."
        )
