"""Bytes on their way to the server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from pixloom.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CHUNK_BYTES", "Uploadable", "chunks_of"]

CHUNK_BYTES: Final = 256 * 1024
"""Size of the pieces of an upload; a message may have 1 MiB."""

Uploadable: TypeAlias = bytes | Path | str
"""Bytes, or the path of a file."""


def chunks_of(data: Uploadable, size_bytes: int) -> Iterator[bytes]:
    """Yield the bytes in pieces of at most `size_bytes`; one empty piece if there are none.

    Raises:
        InvalidError: If the file cannot be read.
    """
    if isinstance(data, bytes):
        for start in range(0, len(data) or 1, size_bytes):
            yield data[start : start + size_bytes]
        return
    try:
        with Path(data).open("rb") as file:
            yield file.read(size_bytes)
            while chunk := file.read(size_bytes):
                yield chunk
    except OSError as error:
        raise InvalidError(f"{data} cannot be read: {error.strerror}.") from error
