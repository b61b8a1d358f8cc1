"""From a record to its bytes and pixels.

Bytes are read once and hashed while nothing else is known of them; the header is probed before anything is decoded.
Files are read below the source roots only, symlinks resolved.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from pixloom.errors import NotFoundError
from pixloom.sdk.encoding import decode_file
from pixloom.sdk.op import Image, Item, Reject
from pixloom_executor.intermediates import decode_intermediate
from pixloom_executor.probe import DEFAULT_LIMITS, Limits, check_size_bytes, fill_record, probe

if TYPE_CHECKING:
    from pathlib import Path

    from pixloom.artifacts import ArtifactStore

__all__ = ["Opener", "path_of"]

_FILE: Final = "file://"
_CAS: Final = "cas:"


def path_of(uri: str) -> bytes:
    """Return the path in a `file:///…` uri, as the bytes the file system knows it by."""
    return unquote_to_bytes(uri.removeprefix(_FILE))


class Opener:
    """Opens items of one child process."""

    def __init__(self, *, store: ArtifactStore, source_roots: tuple[Path, ...]) -> None:
        self._store = store
        self._roots = tuple(os.fsencode(os.path.realpath(root)) for root in source_roots)

    def open_image(self, record: Item, limits: Limits = DEFAULT_LIMITS) -> Image:
        """Open the image of a record and write into the record what its bytes and header say.

        Raises:
            Reject: if there are no bytes, they cannot be read, or the header is refused.
        """
        data = self._read(record, limits)
        if record.intermediate:
            vips, encoding = decode_intermediate(data)
            return Image(record, load=lambda: vips, encoding=encoding)
        header = probe(data, limits)
        if not record.sha256:
            record.sha256 = hashlib.sha256(data).hexdigest()
        elif record.uri.startswith(_FILE) and record.sha256 != hashlib.sha256(data).hexdigest():
            raise Reject("SOURCE_CHANGED", f"{record.key}: the file is not the one that was read before in this job")
        record.size_bytes = len(data)
        fill_record(record, header)
        return Image(record, load=lambda: decode_file(data, format=header.format), source_bytes=data)

    def open_bytes(self, record: Item, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """Return the file of a record; pixels between two ops are encoded as they would be delivered.

        Raises:
            Reject: if there are no bytes or they cannot be read.
        """
        if record.intermediate:
            return self.open_image(replace(record), limits).encoded().data
        return self._read(record, limits)

    def _read(self, record: Item, limits: Limits) -> bytes:
        uri = record.uri
        try:
            if uri.startswith(_FILE):
                return self._read_file(path_of(uri), limits)
            if uri.startswith(_CAS):
                return self._store.get(uri.removeprefix(_CAS))
        except (OSError, NotFoundError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise Reject("READ_ERROR", f"{record.key}: the bytes cannot be read: {reason}") from error
        if not uri:
            raise Reject("NO_BYTES", f"{record.key}: the item has no bytes, so there is no image to open")
        raise Reject("UNSUPPORTED_URI", f"{record.key}: bytes at {uri[:200]!r} cannot be opened here")

    def _read_file(self, path: bytes, limits: Limits) -> bytes:
        real = os.path.realpath(path)
        if not any(real == root or real.startswith(root.rstrip(b"/") + b"/") for root in self._roots):
            raise Reject("READ_ERROR", "the file lies outside the source roots (PIXLOOM_SOURCE_ROOTS)")
        # Opened by an opener, so that what turns out to be a folder is closed again.
        with open(real, "rb", opener=_open) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            check_size_bytes(size_bytes, limits)
            # One byte more tells a file that grows while it is read.
            data = file.read(size_bytes + 1)
        check_size_bytes(len(data), limits)
        return data


def _open(path: str | bytes, flags: int) -> int:
    """Open a file without waiting for whoever would write into a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)
