"""Rounds of fsync: whoever asks while a round is under way shares the next one.

An fsync waits for the disk, not for work, and file systems answer several at once with one journal commit. So a
round flushes its files from a few threads, then every folder once, and all who wait go on together. A round of many
files flushes the whole file system instead where that is known to do (`file_system`): it takes a fraction of the time,
unless others have written a lot. After a round that took long because of them, files are flushed by themselves again
for a while.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from pixloom.artifacts.file_system import FileSystem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["AVOIDED_S", "MANY_FILES", "SLOW_FLUSH_S", "DiskSync", "SyncRounds"]

_THREADS: Final = 4
MANY_FILES: Final = 8
"""Files of a round from which on the whole file system is flushed."""
SLOW_FLUSH_S: Final = 1.0
AVOIDED_S: Final = 60.0
"""How long the file system is not flushed as a whole after that took longer than `SLOW_FLUSH_S`."""


class SyncRounds:
    """Flushes files below a root; for one event loop at a time."""

    def __init__(self, root: str) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn = asyncio.Lock()
        # Keys of the round that has not begun, and the task that will flush them.
        self._keys: set[str] = set()
        self._task: asyncio.Task[dict[str, OSError]] | None = None
        self._disk = DiskSync(root)

    async def sync(self, keys: set[str]) -> dict[str, OSError]:
        """Return when the files below the root are on disk, with the error of each of them that failed."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._turn, self._keys, self._task = loop, asyncio.Lock(), set(), None
        if self._task is None:
            self._task = loop.create_task(self._run())
        self._keys |= keys
        # Shielded: a caller that gives up must not take the round from the others.
        failed = await asyncio.shield(self._task)
        return {key: failed[key] for key in keys & failed.keys()}

    async def _run(self) -> dict[str, OSError]:
        async with self._turn:
            keys, self._keys, self._task = self._keys, set(), None
            return await asyncio.to_thread(self._disk.sync, keys)


class DiskSync:
    """Flushes sets of files below a root, one set at a time.

    Args:
        root: The root.
        clock: Monotonic seconds.
    """

    def __init__(self, root: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._clock = clock
        self._threads = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="fsync")
        # Folders whose own entries are on disk: they need not be flushed from above again.
        self._kept: set[str] = set()
        self._file_system: FileSystem | None = None
        self._is_opened = False
        self._avoided_until_s = 0.0

    def sync(self, keys: Iterable[str]) -> dict[str, OSError]:
        """Flush files and the folders above them up to the root.

        Args:
            keys: Paths of the files below the root, with `/`.

        Returns:
            The error of each file that failed.
        """
        unique = sorted(set(keys))
        outside = unique
        if len(unique) >= MANY_FILES:
            if self._file_system is not None and self._clock() >= self._avoided_until_s:
                outside = self._flush_whole(self._file_system, unique)
            elif not self._is_opened:
                # Failed writes are told to handles that were open at the time: this one serves from the next set on.
                self._file_system, self._is_opened = FileSystem.of(self._root), True
        return self._flush_each(outside) if outside else {}

    def _flush_whole(self, file_system: FileSystem, keys: list[str]) -> list[str]:
        """Flush the file system; return the keys that are still to be flushed by themselves."""
        outside = [key for key in keys if not self._is_on(file_system, key)]
        begin_s = self._clock()
        try:
            file_system.flush()
        except OSError:
            # A write of somebody failed: flushing each file says whether it was one of these.
            return keys
        if self._clock() - begin_s > SLOW_FLUSH_S:
            self._avoided_until_s = self._clock() + AVOIDED_S
        self._kept.update(_folders_above(key)[0] for key in set(keys).difference(outside))
        return outside

    def _is_on(self, file_system: FileSystem, key: str) -> bool:
        try:
            return os.stat(self._path(key)).st_dev == file_system.device  # noqa: PTH116 (a Path costs more)
        except OSError:
            return False  # flushed by itself, which raises what is wrong

    def _flush_each(self, keys: list[str]) -> dict[str, OSError]:
        paths = [self._path(key) for key in keys]
        outcomes = list(map(_fsync, paths) if len(paths) == 1 else self._threads.map(_fsync, paths))
        failed = {key: error for key, error in zip(keys, outcomes, strict=True) if error is not None}
        folders: set[str] = set()
        for key in keys:
            if key in failed:
                continue
            nearest, *above = _folders_above(key)
            folders.add(nearest)
            if nearest not in self._kept:
                folders.update(above)
        # Deepest first: a folder's entry is worth keeping once what it leads to is there.
        for folder in sorted(folders, key=len, reverse=True):
            error = _fsync(self._path(folder) if folder else self._root)
            if error is not None:
                failed.update(dict.fromkeys((key for key in keys if key.startswith(folder)), error))
        self._kept.update(_folders_above(key)[0] for key in keys if key not in failed)
        return failed

    def _path(self, key: str) -> str:
        return f"{self._root}{os.sep}{key}"


def _folders_above(key: str) -> list[str]:
    parts = key.split("/")[:-1]
    return ["/".join(parts[:depth]) for depth in range(len(parts), -1, -1)]


def _flush(handle: int) -> None:
    # macOS: fsync leaves the bytes in the drive's cache; only this command of fcntl(2) empties it.
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is None:
        os.fsync(handle)
    else:
        fcntl.fcntl(handle, full)


def _fsync(path: str) -> OSError | None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _flush(handle)
        finally:
            os.close(handle)
    except OSError as error:
        return error
    return None
