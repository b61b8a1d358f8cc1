"""The life of a child: take a batch, run its tasks, send their results; end when the socket closes."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pixloom.artifacts import open_store
from pixloom_executor.chain import ChainRunner
from pixloom_executor.children.connection import ChildConnection
from pixloom_executor.children.frames import ResultFrame, RunFrame
from pixloom_executor.children.isolation import limit_resources, reset_signals
from pixloom_executor.marker import PageMarker
from pixloom_executor.ordinary import OrdinaryColumns, tasks_of

if TYPE_CHECKING:
    import mmap
    import socket

    from pixloom_executor.children.settings import ChildSettings
    from pixloom_executor.registry import Registry

__all__ = ["EXIT_OUT_OF_MEMORY", "serve"]

EXIT_OUT_OF_MEMORY: Final = 77
_FLUSH_RESULTS: Final = 64
_FLUSH_ORDINARY: Final = 256
# Every flush costs a sync of its files, a report and a commit; a batch is meant to last about this long.
_FLUSH_NS: Final = 400_000_000
_QUICK_NS: Final = 1_000_000
_MOST_KNOWN: Final = 1024


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
    work = _Work(ChildConnection(connection), runner, marker)
    try:
        while work.run_next():
            pass
    except MemoryError:
        os._exit(EXIT_OUT_OF_MEMORY)
    finally:
        runner.close()
        scratch.rmdir()


class _Work:
    """Takes batches one after another."""

    def __init__(self, connection: ChildConnection, runner: ChainRunner, marker: PageMarker) -> None:
        self._connection = connection
        self._runner = runner
        self._marker = marker
        # Ops with their params, by how long the last batch with them took.
        self._took_ns: dict[tuple[tuple[str, bytes], ...], int] = {}

    def run_next(self) -> bool:
        """Wait for a batch, run it and send its results; False if there are no more."""
        data = self._connection.receive()
        if data is None:
            return False
        frame = RunFrame.decode(data)
        ops = tuple((call.op, call.params_json) for call in frame.batch.calls)
        if self._took_ns.get(ops, _QUICK_NS) >= _QUICK_NS:
            # Nobody knows how long this one takes: what is there goes out before.
            self._connection.flush()
        started_ns = time.monotonic_ns()
        last = self._run(frame)
        took_ns = time.monotonic_ns() - started_ns
        if len(self._took_ns) >= _MOST_KNOWN:
            self._took_ns.clear()
        self._took_ns[ops] = took_ns
        if took_ns < _QUICK_NS:
            self._connection.hold(last)
        else:
            self._connection.send(last)
        return True

    def _run(self, frame: RunFrame) -> ResultFrame:
        """Run the tasks of a batch and return the last of their results; those before were sent."""
        batch, number = frame.batch, frame.number
        marker, runner = self._marker, self._runner
        # Spans of tasks are written from their results.
        ordinary = OrdinaryColumns() if frame.columns and not batch.trace_tasks else None
        results: list[bytes] = []
        flushed_ns = time.monotonic_ns()
        tasks = tasks_of(batch)
        for place, task in enumerate(tasks):
            # Published before it is asked: who ends the batch asks for a stop first and then looks what is running.
            marker.begin_task(number, place)
            if marker.stop_requested(number):
                break
            result = runner.run_task(
                batch,
                task,
                alone=frame.alone.get(task.shard, ()),
                verdicts=frame.verdicts.get(task.shard, {}),
                ordinary=ordinary,
            )
            if result is not None:
                results.append(result.SerializeToString())
            # What the batch before gave waits for this one only as long as this one takes no time.
            self._connection.flush_if_due()
            is_due = (
                len(results) >= _FLUSH_RESULTS
                or (ordinary is not None and len(ordinary) >= _FLUSH_ORDINARY)
                or time.monotonic_ns() - flushed_ns > _FLUSH_NS
            )
            if is_due and place + 1 < len(tasks):
                self._connection.send(self._frame(number, results, ordinary))
                results = []
                flushed_ns = time.monotonic_ns()
        marker.end_batch()
        last = self._frame(number, results, ordinary)
        last.done = True
        return last

    def _frame(self, number: int, results: list[bytes], ordinary: OrdinaryColumns | None) -> ResultFrame:
        columns = ordinary.take() if ordinary is not None else b""
        return ResultFrame(number, results, sorted(self._runner.take_digests()), ordinary=columns)
