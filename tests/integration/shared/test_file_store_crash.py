"""The file store when processes die, disks fill and machines crash."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from pixloom.artifacts.disk_sync import AVOIDED_S, MANY_FILES, SLOW_FLUSH_S, DiskSync
from pixloom.artifacts.file_store import FileStore
from pixloom.artifacts.file_system import FileSystem
from pixloom.errors import InternalError, MachineError

if TYPE_CHECKING:
    from pathlib import Path

DATA = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(DATA).hexdigest()
LIMIT = 65_536


def _run(script: str, root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(root)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _everything_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_writer_killed_in_the_middle_of_a_write_leaves_nothing_visible(tmp_path: Path) -> None:
    # Beyond the limit on file sizes the kernel kills the writer, after exactly so many bytes.
    done = _run(
        f"""
        import resource, signal, sys
        from pixloom.artifacts.file_store import FileStore
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT}, {LIMIT}))
        FileStore(sys.argv[1]).put(bytes(range(256)) * 4096, "x/y")
        """,
        tmp_path,
    )
    assert done.returncode == -signal.SIGXFSZ
    store = FileStore(tmp_path)
    (left,) = (tmp_path / "tmp").iterdir()
    assert left.stat().st_size == LIMIT
    assert (store.head(DIGEST), store.path(DIGEST)) == (None, None)
    assert store.discard_unfinished(before_s=left.stat().st_mtime) == 0
    assert store.discard_unfinished(before_s=left.stat().st_mtime + 1) == 1
    assert store.put(DATA, "x/y").sha256 == DIGEST
    assert _everything_below(tmp_path) == [f"cas/{DIGEST[:2]}/{DIGEST}"]


def test_file_too_large_for_the_machine_is_a_machine_error_and_leaves_nothing(tmp_path: Path) -> None:
    done = _run(
        f"""
        import resource, sys
        from pixloom.artifacts.file_store import FileStore
        from pixloom.errors import MachineError
        resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT}, {LIMIT}))
        try:
            FileStore(sys.argv[1]).put(bytes(range(256)) * 4096, "x/y")
        except MachineError as error:
            print(error.message)
        """,
        tmp_path,
    )
    assert "no room" in done.stdout
    assert _everything_below(tmp_path) == []


def test_full_disk_is_a_machine_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    written: list[int] = []

    def write_a_part_then_fail(handle: int, data: memoryview) -> int:
        if written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(write(handle, data[:1000]))
        return written[0]

    store = FileStore(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write_a_part_then_fail)
        with pytest.raises(MachineError, match=r"no room in .*PIXLOOM_ARTIFACTS_URL"):
            store.put(DATA, "x/y")
    assert written == [1000]
    assert _everything_below(tmp_path) == []
    assert store.put(DATA, "x/y").size_bytes == len(DATA)


def test_folder_that_cannot_be_made_is_a_machine_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = FileStore(tmp_path / "file" / "artifacts")
    with pytest.raises(MachineError, match="Check the folder"):
        store.put(DATA, "x/y")


@pytest.mark.parametrize("torn", [b"", DATA[:-1], b"\x00" * len(DATA)], ids=["empty", "short", "zeros"])
def test_file_torn_by_a_crash_of_the_machine_is_found_and_mended(tmp_path: Path, torn: bytes) -> None:
    store = FileStore(tmp_path)
    store.put(DATA, "x/y")
    path = store.path(DIGEST)
    assert path is not None
    path.write_bytes(torn)
    with pytest.raises(InternalError, match="damaged"):
        store.get(DIGEST)
    store.put(DATA, "x/y")
    assert store.get(DIGEST) == DATA


def test_bytes_that_are_there_are_not_written_again(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.put(DATA, "x/y")
    path = store.path(DIGEST)
    assert path is not None
    before = path.stat()
    store.put(DATA, "x/y")
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The inodes that were flushed, in order."""
    found: list[int] = []
    fsync = os.fsync

    def record(handle: int) -> None:
        found.append(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", record)
    return found


async def test_sync_flushes_each_file_and_every_folder_above_it_once(tmp_path: Path, flushed: list[int]) -> None:
    store = FileStore(tmp_path)
    digests = [store.put(bytes([number]), "x/y").sha256 for number in range(20)]
    flushed.clear()
    await store.sync(digests * 3)
    files = [tmp_path / "cas" / digest[:2] / digest for digest in digests]
    folders = {path.parent for path in files} | {tmp_path / "cas", tmp_path}
    assert sorted(flushed) == sorted(path.stat().st_ino for path in {*files, *folders})


async def test_calls_that_come_together_share_their_flushes(tmp_path: Path, flushed: list[int]) -> None:
    store = FileStore(tmp_path)
    digests = [store.put(bytes([number]), "x/y").sha256 for number in range(10)]
    flushed.clear()
    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(store.sync(digests))
    path = store.path(digests[0])
    assert path is not None
    assert flushed.count(path.stat().st_ino) == 1


async def test_caller_that_gives_up_takes_nothing_from_the_others(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    digest = store.put(DATA, "x/y").sha256
    impatient, patient = asyncio.create_task(store.sync([digest])), asyncio.create_task(store.sync([digest]))
    asyncio.get_running_loop().call_soon(impatient.cancel)
    await patient
    assert impatient.cancelled()


async def test_sync_that_fails_is_a_machine_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileStore(tmp_path)
    digest = store.put(DATA, "x/y").sha256

    def fail(handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(MachineError, match="flushed to disk"):
        await store.sync([digest])


class Clock:
    """Monotonic seconds that pass when told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def _put(store: FileStore, numbers: range) -> list[str]:
    return [f"cas/{ref.sha256[:2]}/{ref.sha256}" for ref in (store.put(bytes([n]), "x/y") for n in numbers)]


def _opened(tmp_path: Path, clock: Clock) -> tuple[FileStore, DiskSync]:
    """Return a store and what flushes it, which has flushed many files before."""
    store, disk = FileStore(tmp_path), DiskSync(str(tmp_path), clock=clock)
    assert disk.sync(_put(store, range(MANY_FILES))) == {}
    if FileSystem.of(str(tmp_path)) is None:
        # Overlays, FUSE and other systems than Linux: each file is flushed by itself there, as the tests above show.
        pytest.skip("the file system of temporary files cannot be flushed as a whole")
    return store, disk


def test_many_files_are_flushed_with_their_file_system(tmp_path: Path, flushed: list[int]) -> None:
    store, disk = _opened(tmp_path, Clock())
    assert len(flushed) > MANY_FILES  # the first time each by itself: failures before the handle was open
    flushed.clear()
    assert disk.sync(_put(store, range(50, 80))) == {}
    assert flushed == []
    assert disk.sync(_put(store, range(80, 81))) == {}
    assert flushed != []


def test_files_are_flushed_by_themselves_when_their_file_system_reports_a_failure(
    tmp_path: Path, flushed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, disk = _opened(tmp_path, Clock())
    keys = _put(store, range(50, 80))

    def fail(_: FileSystem) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(FileSystem, "flush", fail)
    flushed.clear()
    assert disk.sync(keys) == {}
    assert {(tmp_path / key).stat().st_ino for key in keys} <= set(flushed)


def test_file_that_is_missing_fails_alone_among_many(tmp_path: Path) -> None:
    store, disk = _opened(tmp_path, Clock())
    keys = _put(store, range(50, 80))
    (tmp_path / keys[3]).unlink()
    assert [(key, type(error)) for key, error in disk.sync(keys).items()] == [(keys[3], FileNotFoundError)]


def test_file_system_that_others_keep_busy_is_left_alone_for_a_while(
    tmp_path: Path, flushed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    store, disk = _opened(tmp_path, clock)
    flush = FileSystem.flush

    def flush_slowly(file_system: FileSystem) -> None:
        flush(file_system)
        clock.now_s += 2 * SLOW_FLUSH_S

    monkeypatch.setattr(FileSystem, "flush", flush_slowly)
    flushed.clear()
    assert disk.sync(_put(store, range(50, 80))) == {}
    assert flushed == []
    assert disk.sync(_put(store, range(80, 110))) == {}
    assert len(flushed) > 30
    flushed.clear()
    clock.now_s += AVOIDED_S
    assert disk.sync(_put(store, range(110, 140))) == {}
    assert flushed == []


def test_folder_that_is_not_there_has_no_file_system(tmp_path: Path) -> None:
    assert FileSystem.of(str(tmp_path / "absent")) is None


def test_file_system_that_may_leave_work_undone_is_not_trusted() -> None:
    assert FileSystem.of("/proc") is None


@pytest.mark.parametrize("url", ["file", "memory"])
def test_stores_work_in_children_forked_from_a_process_that_opened_them(tmp_path: Path, url: str) -> None:
    done = _run(
        f"""
        import os, pathlib, sys
        from pixloom.artifacts import open_store
        store = open_store(pathlib.Path(sys.argv[1]).as_uri() if {url!r} == "file" else "memory://")
        children = []
        for number in range(3):
            child = os.fork()
            if child == 0:
                ref = store.put(bytes([number]) * 20_000, "x/y")
                os._exit(0 if store.get(ref.sha256) == bytes([number]) * 20_000 else 1)
            children.append(child)
        print([os.waitpid(child, 0)[1] for child in children])
        """,
        tmp_path,
    )
    assert (done.stdout.strip(), done.stderr) == ("[0, 0, 0]", "")
