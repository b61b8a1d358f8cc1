"""The life of a child: take a batch, run its tasks, send their results; end when the socket closes."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pixloom.artifacts import open_store
from pixloom_executor.chain import ChainRunner
from pixloom_executor.children.frames import LENGTH, ResultFrame, RunFrame
from pixloom_executor.children.isolation import limit_resources, reset_signals
from pixloom_executor.marker import PageMarker

if TYPE_CHECKING:
    import mmap
    import socket

    from pixloom_executor.children.settings import ChildSettings
    from pixloom_executor.registry import Registry

__all__ = ["EXIT_OUT_OF_MEMORY", "serve"]

EXIT_OUT_OF_MEMORY: Final = 77
_FLUSH_RESULTS: Final = 64
# Every flush costs a sync of its files, a report and a commit; a batch is meant to last about this long.
_FLUSH_NS: Final = 400_000_000


def serve(*, connection: socket.socket, page: mmap.mmap, settings: ChildSettings, registry: Registry) -> None:
    """Run batches until the supervisor closes the socket."""
    reset_signals()
    scratch = Path(settings.scratch_dir) / f"child-{os.getpid()}"
    scratch.mkdir(parents=True, exist_ok=True)
    os.environ["TMPDIR"] = str(scratch)
    limit_resources(settings)
    gc.set_threshold(50_000, 20, 50)  # messages and records have no cycles
    marker = PageMarker(page)
    runner = ChainRunner(
        registry=registry,
        store=open_store(settings.artifacts_url),
        source_roots=tuple(map(Path, settings.source_roots)),
        scratch_dir=scratch,
        marker=marker,
    )
    try:
        while (data := _receive(connection)) is not None:
            _run(RunFrame.decode(data), connection, runner, marker)
    except MemoryError:
        os._exit(EXIT_OUT_OF_MEMORY)
    finally:
        runner.close()
        scratch.rmdir()


def _run(frame: RunFrame, connection: socket.socket, runner: ChainRunner, marker: PageMarker) -> None:
    batch, number = frame.batch, frame.number
    results: list[bytes] = []
    flushed_ns = time.monotonic_ns()
    for place, task in enumerate(batch.tasks):
        # Published before it is asked: who ends the batch asks for a stop first and then looks what is running.
        marker.begin_task(number, place)
        if marker.stop_requested(number):
            break
        result = runner.run_task(
            batch, task, alone=frame.alone.get(task.shard, ()), verdicts=frame.verdicts.get(task.shard, {})
        )
        results.append(result.SerializeToString())
        is_due = len(results) >= _FLUSH_RESULTS or time.monotonic_ns() - flushed_ns > _FLUSH_NS
        if is_due and place + 1 < len(batch.tasks):
            connection.sendall(ResultFrame(number, results, sorted(runner.take_digests())).encode())
            results = []
            flushed_ns = time.monotonic_ns()
    marker.end_batch()
    connection.sendall(ResultFrame(number, results, sorted(runner.take_digests()), done=True).encode())


def _receive(connection: socket.socket) -> bytes | None:
    head = _receive_exactly(connection, LENGTH.size)
    return None if head is None else _receive_exactly(connection, LENGTH.unpack(head)[0])


def _receive_exactly(connection: socket.socket, size: int) -> bytes | None:
    buffer = bytearray(size)
    view, place = memoryview(buffer), 0
    while place < size:
        received = connection.recv_into(view[place:])
        if not received:
            return None
        place += received
    view.release()
    return bytes(buffer)
