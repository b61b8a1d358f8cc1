"""One slot of the pool: a child, the batches it has been sent, and what to do when it is lost."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections import deque
from typing import TYPE_CHECKING, Final

import structlog

from pixloom.errors import PixloomError
from pixloom.v1 import executor_pb2 as pb
from pixloom_executor.children.child import EXIT_OUT_OF_MEMORY
from pixloom_executor.children.frames import LENGTH, ResultFrame
from pixloom_executor.children.oom_kills import cause_of_kill, count_oom_kills
from pixloom_executor.marker import read_position, request_stop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pixloom.artifacts import ArtifactStore
    from pixloom_executor.children.batch_run import BatchRun
    from pixloom_executor.children.fork_client import ChildProcess, ForkServer

__all__ = ["Slot"]

# A second batch is sent ahead only while batches are short: it must not wait behind a long one in the wrong slot.
_SHORT_BATCH_S: Final = 1.5
_LONG_TASK_S: Final = 0.6
_URGENT_AHEAD: Final = (2, 8)
_AHEAD_S: Final = 0.004
"""Urgent batches that are sent ahead: at least two, and more of them while they take about this long together."""
_ASK_AGAIN_S: Final = 0.005
_WATCH_S: Final = (0.02, 1.0)
_RESPAWN_S: Final = (0.05, 2.0)
_ENDED: Final = "was ended because the task was cancelled"

_log = structlog.get_logger("pixloom.executor.children")


class Slot:
    """Feeds one child after another.

    Args:
        fork_server: Where children come from.
        store: The artifact store, for making results durable.
        scratch_dir: Folder below which children have their own.
        on_room: Called when another batch may be submitted.
    """

    def __init__(
        self, *, fork_server: ForkServer, store: ArtifactStore, scratch_dir: Path, on_room: Callable[[], None]
    ) -> None:
        self._fork_server = fork_server
        self._store = store
        self._scratch_dir = scratch_dir
        self._on_room = on_room
        self._runs: deque[BatchRun] = deque()
        self._child: ChildProcess | None = None
        self._number = 0
        self._killed: tuple[str, str] | None = None
        self._batch_s = 1.0
        self._working = asyncio.Event()

    @property
    def load(self) -> int:
        """Number of batches it has been given and not finished."""
        return len(self._runs)

    @property
    def has_room(self) -> bool:
        """Whether another batch may be submitted."""
        return not self._runs or (len(self._runs) == 1 and self.is_brisk)

    @property
    def is_brisk(self) -> bool:
        """Whether it ends batches so soon that another one may wait for it."""
        return self._batch_s < _SHORT_BATCH_S and not self.is_held_up

    @property
    def is_held_up(self) -> bool:
        """Whether a task takes so long that nobody knows when it is free."""
        if self._child is None or not self._runs:
            return False
        position = read_position(self._child.page)
        is_on = any(run.number == position.batch for run in self._runs)
        return is_on and time.monotonic_ns() - position.task_start_ns > _LONG_TASK_S * 1e9

    @property
    def urgent_load(self) -> int:
        """Number of urgent batches it has been given and not finished."""
        return sum(run.urgent for run in self._runs)

    @property
    def has_urgent_room(self) -> bool:
        """Whether another urgent batch may be submitted."""
        least, most = _URGENT_AHEAD
        return self.urgent_load < max(least, min(most, int(_AHEAD_S / max(self._batch_s, 1e-6))))

    def submit(self, run: BatchRun) -> None:
        """Take a batch; it starts when those before it have ended, or have made way for it."""
        self._runs.append(run)
        self._working.set()
        if self._child is not None:
            self._send(self._child, run)
        if run.urgent:
            self._make_way()

    def _make_way(self) -> None:
        """Ask batches that are not urgent to stop after the task they are on; they go on behind the urgent one.

        They are asked together: one that was left out would run to its end before the urgent one has its turn. Urgent
        batches one after another must not starve the rest, so the first of those that made way finishes a task before
        they are asked again.
        """
        if self._child is None or not any(run.urgent for run in self._runs):
            return
        position = read_position(self._child.page)
        ordinary = [run for run in self._runs if not (run.urgent or run.stopping or run.is_yielding)]
        if not ordinary:
            return
        first = ordinary[0]
        if first.has_yielded and not (first.number == position.batch and position.task > 0):
            asyncio.get_running_loop().call_later(_ASK_AGAIN_S, self._make_way)
            return
        for run in ordinary:
            run.is_yielding = True
            request_stop(self._child.page, run.number)

    def take_back(self, run: BatchRun) -> None:
        """Take back what has not started of a batch; its tasks are delivered CANCELLED."""
        child = self._child
        if child is None or run.stopping or not run.has_pending:
            return
        request_stop(child.page, run.number)
        position = read_position(child.page)
        if position.batch == run.number:
            # The task it is on goes on, and results of those before it may still be on their way.
            run.cancel_pending(after=position.task)
            return
        # The child still answers for it, without results, once it comes to it.
        run.stopping = True
        run.cancel_pending()
        if not run.done.done():
            run.done.set_result(None)

    def end(self, run: BatchRun, *, running: bool) -> bool:
        """End a batch if it is here: tasks not started, and if `running` also the one that is."""
        if run not in self._runs:
            return False
        child = self._child
        if child is None:
            self._finish(run)
            return True
        run.cancelled = run.cancelled or running
        run.stopping = True
        request_stop(child.page, run.number)
        if running and read_position(child.page).batch == run.number:
            self._kill("CANCELLED", _ENDED)
        return True

    def runs(self) -> tuple[BatchRun, ...]:
        """Return the batches it has been given and not finished."""
        return tuple(self._runs)

    async def serve(self) -> None:
        """Feed children until cancelled."""
        delay_s = _RESPAWN_S[0]
        while True:
            try:
                child = await self._fork_server.spawn()
            except PixloomError as error:
                _log.error("child not started", error=str(error), retry_s=delay_s)
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _RESPAWN_S[1])
                continue
            code = -signal.SIGKILL
            has_answered = False
            try:
                self._child, self._killed = child, None
                for run in self._runs:
                    self._send(child, run)
                has_answered = await self._read(child)
            finally:
                self._child = None
                child.kill()
                code = await asyncio.shield(self._fork_server.reap(child))
                await asyncio.to_thread(shutil.rmtree, self._scratch_dir / f"child-{child.pid}", ignore_errors=True)
            if has_answered or self._has_worked(child):
                delay_s = _RESPAWN_S[0]
                self._after_loss(child, code)
            else:
                # It never came to work, and the next one may not either: no room for its folder, a store that is away.
                self._after_failed_start(child, code)
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _RESPAWN_S[1])

    async def watch(self) -> None:
        """Kill the child when an item or a task takes longer than it may, until cancelled."""
        while True:
            await self._working.wait()
            shortest_s = min((run.shortest_limit_ns for run in self._runs), default=0) / 1e9
            await asyncio.sleep(min(max(shortest_s / 4, _WATCH_S[0]), _WATCH_S[1]))
            child = self._child
            if child is None or self._killed is not None:
                continue
            position = read_position(child.page)
            now_ns = time.monotonic_ns()
            run = next((run for run in self._runs if run.number == position.batch), None)
            if run is None:
                continue
            if run.cancelled:  # it started at the very moment when it was ended
                self._kill("CANCELLED", _ENDED)
            elif position.deadline_ns and now_ns > position.deadline_ns:
                self._kill("TIMEOUT", "took longer than the time limit and was ended")
            elif run.deadline_ns and now_ns > position.task_start_ns + run.deadline_ns:
                self._kill("TIMEOUT", f"was ended at the task's deadline of {run.deadline_ns / 1e9:g} s")

    def _kill(self, reason: str, detail: str) -> None:
        if self._child is not None and self._killed is None:
            self._killed = (reason, detail)
            self._child.kill()

    def _send(self, child: ChildProcess, run: BatchRun) -> None:
        self._number += 1
        run.sent_s, run.is_yielding = time.monotonic(), False
        child.send(run.frame(self._number))

    async def _read(self, child: ChildProcess) -> bool:
        """Take results until the child's socket closes; return whether any came."""
        ended_s = 0.0
        has_answered = False
        while True:
            try:
                (size,) = LENGTH.unpack(await child.reader.readexactly(LENGTH.size))
                frame = ResultFrame.decode(await child.reader.readexactly(size))
            except (asyncio.IncompleteReadError, ConnectionError):
                return has_answered
            has_answered = True
            if not self._runs or frame.number != self._runs[0].number:
                _log.error("child reports another batch", number=frame.number, pid=child.pid)
                return has_answered
            run = self._runs[0]
            await self._take(run, frame)
            if frame.done:
                now_s = time.monotonic()
                took_s = now_s - max(run.sent_s, ended_s)
                ended_s = now_s
                self._batch_s += (took_s - self._batch_s) / 4
                if run.is_yielding and run.has_pending and not run.stopping:
                    self._go_on_later(child, run)
                else:
                    self._finish(run)

    async def _take(self, run: BatchRun, frame: ResultFrame) -> None:
        results = [pb.TaskResult.FromString(result) for result in frame.results]
        ordinary = pb.OrdinaryResults.FromString(frame.ordinary)
        try:
            if frame.digests:
                await self._store.sync(frame.digests)
        except PixloomError as error:
            shards = [*(result.shard for result in results), *ordinary.shards]
            _log.error("results not durable", error=str(error), tasks=len(shards))
            run.take_failed(shards, reason=error.reason, detail=str(error))
        else:
            run.take(results)
            run.take_ordinary(ordinary)

    def _go_on_later(self, child: ChildProcess, run: BatchRun) -> None:
        """Send what is left of a batch that has made way."""
        self._runs.remove(run)
        self._runs.append(run)
        run.has_yielded = True
        self._send(child, run)

    def _finish(self, run: BatchRun) -> None:
        run.cancel_pending()
        self._runs.remove(run)
        if not self._runs:
            self._working.clear()
        if not run.done.done():
            run.done.set_result(None)
        self._on_room()

    def _has_worked(self, child: ChildProcess) -> bool:
        return self._killed is not None or read_position(child.page).batch > 0

    def _after_failed_start(self, child: ChildProcess, code: int) -> None:
        reason, detail = _cause(code)
        _log.error("child did not start to work", reason=reason, detail=detail, pid=child.pid)
        if self._runs:
            self._runs[0].blame_start(reason, detail)
        self._finish_ended()

    def _after_loss(self, child: ChildProcess, code: int) -> None:
        position = read_position(child.page)
        reason, detail = self._killed or _cause(code)
        if reason != "CANCELLED":
            _log.warning("child lost", reason=reason, detail=detail, pid=child.pid, batch=position.batch)
        for run in tuple(self._runs):
            if reason != "CANCELLED" and run.number == position.batch:
                run.blame(position, reason, detail)
        self._finish_ended()

    def _finish_ended(self) -> None:
        """Finish batches that the next child need not see."""
        for run in tuple(self._runs):
            if run.cancelled or run.stopping or not run.has_pending:
                self._finish(run)


def _cause(code: int) -> tuple[str, str]:
    """Return reason and detail of a child that ended by itself."""
    if code == EXIT_OUT_OF_MEMORY:
        return "OUT_OF_MEMORY", "ran out of the memory it may have"
    if code == -signal.SIGKILL:
        return cause_of_kill(count_oom_kills())
    if code < 0:
        return "CRASHED", f"died by signal {signal.Signals(-code).name}"
    return "CRASHED", f"exited with code {code}"
