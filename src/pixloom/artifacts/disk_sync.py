"""Rounds of fsync: whoever asks while a round is under way shares the next one.

An fsync waits for the disk, not for work, and file systems answer several at once with one journal commit. So a
round flushes its files from a few threads, then every folder once, and all who wait go on together.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["SyncRounds", "sync_files"]

_THREADS: Final = 4


class SyncRounds:
    """Flushes files below a root; for one event loop at a time."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn = asyncio.Lock()
        # Keys of the round that has not begun, and the task that will flush them.
        self._keys: set[str] = set()
        self._task: asyncio.Task[dict[str, OSError]] | None = None
        self._threads = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="fsync")
        # Folders whose own entries are on disk: they need not be flushed from above again.
        self._kept: set[str] = set()

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
            return await asyncio.to_thread(sync_files, self._root, keys, threads=self._threads, kept=self._kept)


def sync_files(
    root: str, keys: Iterable[str], *, threads: ThreadPoolExecutor | None = None, kept: set[str] | None = None
) -> dict[str, OSError]:
    """Flush files and the folders above them up to the root.

    Args:
        root: The root.
        keys: Paths of the files below it, with `/`.
        threads: Threads to flush from; None flushes one file after the other.
        kept: Folders whose entries in the folder above are on disk; taken note of here.

    Returns:
        The error of each file that failed.
    """
    unique = sorted(set(keys))
    paths = [f"{root}{os.sep}{key}" for key in unique]
    outcomes = list(map(_fsync, paths) if threads is None or len(unique) == 1 else threads.map(_fsync, paths))
    failed = {key: error for key, error in zip(unique, outcomes, strict=True) if error is not None}
    known = kept if kept is not None else set()
    folders: set[str] = set()
    for key in unique:
        if key in failed:
            continue
        nearest, *above = _folders_above(key)
        folders.add(nearest)
        if nearest not in known:
            folders.update(above)
    # Deepest first: a folder's entry is worth keeping once what it leads to is there.
    for folder in sorted(folders, key=len, reverse=True):
        error = _fsync(f"{root}{os.sep}{folder}" if folder else root)
        if error is not None:
            failed.update(dict.fromkeys((key for key in unique if key.startswith(folder)), error))
    known.update(_folders_above(key)[0] for key in unique if key not in failed)
    return failed


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
