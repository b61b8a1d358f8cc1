"""The pool of children that an executor's supervisor runs its batches in."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from pixloom.artifacts import open_store
from pixloom.errors import InternalError, PixloomError
from pixloom_executor.children.batch_run import BatchRun
from pixloom_executor.children.fork_client import ForkServer
from pixloom_executor.children.slot import Slot

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixloom.artifacts import ArtifactStore
    from pixloom.graph.catalogue import OpSpec
    from pixloom.v1 import executor_pb2 as pb
    from pixloom_executor.children.settings import ChildSettings

__all__ = ["ChildPool"]

_UNFINISHED_S: Final = 24 * 3600.0
"""An artifact that nobody has written to for so long will not be finished."""

_log = structlog.get_logger("pixloom.executor.children")


class ChildPool:
    """Runs lease batches in child processes; one event loop may use it.

    Args:
        slots: Number of children, at least 1.
        settings: How children run.
    """

    def __init__(self, *, slots: int, settings: ChildSettings) -> None:
        self._settings = settings
        self._fork_server = ForkServer(settings)
        self._store = open_store(settings.artifacts_url)
        self._slots = [
            Slot(
                fork_server=self._fork_server,
                store=self._store,
                scratch_dir=Path(settings.scratch_dir),
                on_room=self._dispatch,
            )
            for _ in range(slots)
        ]
        self._urgent: deque[BatchRun] = deque()
        self._waiting: deque[BatchRun] = deque()
        self._serving: asyncio.Task[None] | None = None

    @property
    def busy(self) -> int:
        """Number of slots that are working."""
        return sum(1 for slot in self._slots if slot.load)

    @property
    def batches(self) -> int:
        """Number of batches that are worth having: one for each slot, and one more where they are short."""
        return sum(2 if slot.is_brisk else 1 for slot in self._slots)

    @property
    def urgent_batches(self) -> int:
        """Number of urgent batches that are worth having beside those: none where a task takes long."""
        return sum(not slot.is_held_up for slot in self._slots)

    async def start(self) -> list[OpSpec]:
        """Load the ops, start the children and return the ops that they serve, built-in and imported.

        Raises:
            InvalidError: if a module with users' ops cannot be loaded.
            MachineError: if processes cannot be started.
        """
        await asyncio.to_thread(_clear, Path(self._settings.scratch_dir))
        await asyncio.to_thread(_discard_unfinished, self._store)
        specs = await self._fork_server.start()
        self._serving = asyncio.get_running_loop().create_task(self._serve(), name="children")
        self._serving.add_done_callback(self._give_up)
        return specs

    async def watch(self) -> None:
        """Wait for as long as children are served.

        Raises:
            InternalError: if the pool is not running or a defect has stopped it: it can run no batch any more.
        """
        if self._serving is not None:
            await asyncio.wait([self._serving])
        raise self._stopped()

    async def run(
        self,
        batch: pb.LeaseBatch,
        deliver: Callable[[pb.TaskResult], None],
        *,
        urgent: bool = False,
        deliver_ordinary: Callable[[pb.OrdinaryResults], None] | None = None,
    ) -> None:
        """Run the tasks of a batch one after another in one child and return when each has a result.

        A batch waits until a slot is free; batches start in the order of the calls, urgent ones first. One that has
        begun lets an urgent one go ahead after the task it is on. Cancelling the caller ends it.

        Args:
            batch: The granted tasks, with paged inputs put in place. It must not be changed before this returns.
            deliver: Takes each result once its artifacts are durable. Must not raise or block.
            urgent: Whether it goes ahead of others.
            deliver_ordinary: Takes ordinary results in the same way, many at a time; by default `deliver` takes each.

        Raises:
            InternalError: if the pool is not running or a defect has stopped it.
        """
        if self._serving is None or self._serving.done():
            raise self._stopped()
        done = asyncio.get_running_loop().create_future()
        run = BatchRun(batch=batch, deliver=deliver, done=done, urgent=urgent, deliver_ordinary=deliver_ordinary)
        (self._urgent if urgent else self._waiting).append(run)
        self._dispatch()
        try:
            await run.done
        except asyncio.CancelledError:
            self._end(run, running=True)
            raise

    def end(self, predicate: Callable[[pb.LeaseBatch], bool], *, running: bool = True) -> None:
        """End batches; tasks of theirs without result are delivered with the outcome CANCELLED.

        Args:
            predicate: Tells which batches.
            running: Also end the task that is running, by killing its child; otherwise it is finished.
        """
        for run in self._runs():
            if predicate(run.batch):
                self._end(run, running=running)

    def take_back(self) -> None:
        """Take back what waits behind tasks that take long, also in their own batch: another executor may be free.

        Tasks that have not started are delivered with the outcome CANCELLED.
        """
        for slot in self._slots:
            if slot.is_held_up:
                for run in slot.runs():
                    slot.take_back(run)
        if all(slot.is_held_up for slot in self._slots):
            for waiting in (self._urgent, self._waiting):
                while waiting:
                    _close(waiting.popleft())

    async def stop(self) -> None:
        """End all children and the template; batches that are under way end CANCELLED. Idempotent."""
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.cancel()
            await asyncio.wait([serving])
        await self._fork_server.stop()
        runs = self._runs()
        self._urgent.clear()
        self._waiting.clear()
        for run in runs:
            _close(run)

    def _runs(self) -> list[BatchRun]:
        return [*self._urgent, *self._waiting, *(run for slot in self._slots for run in slot.runs())]

    def _end(self, run: BatchRun, *, running: bool) -> None:
        for waiting in (self._urgent, self._waiting):
            if run in waiting:
                waiting.remove(run)
                _close(run)
                return
        for slot in self._slots:
            if slot.end(run, running=running):
                return

    def _dispatch(self) -> None:
        while self._urgent:
            slot = min(self._slots, key=lambda slot: (slot.urgent_load, slot.load))
            if not slot.has_urgent_room:
                break
            slot.submit(self._urgent.popleft())
        while self._waiting:
            slot = min(self._slots, key=lambda slot: slot.load)
            if not slot.has_room:
                return
            slot.submit(self._waiting.popleft())

    def _give_up(self, serving: asyncio.Task[None]) -> None:
        """After a defect, let nobody wait for what will never be finished."""
        if serving.cancelled() or serving.exception() is None:
            return
        for run in self._runs():
            if not run.done.done():
                run.done.set_exception(self._stopped())

    def _stopped(self) -> InternalError:
        serving = self._serving
        if serving is None or serving.cancelled() or not serving.done():
            return InternalError("the pool of children is not running; start it before batches are run")
        error = InternalError("the pool of children has stopped; see the log")
        error.__cause__ = serving.exception()
        return error

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as group:
            for slot in self._slots:
                group.create_task(slot.serve())
                group.create_task(slot.watch())


def _clear(scratch_dir: Path) -> None:
    """Make the folder, without what children left there whose supervisor was killed."""
    scratch_dir.mkdir(parents=True, exist_ok=True)
    for folder in scratch_dir.glob("child-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _discard_unfinished(store: ArtifactStore) -> None:
    """Remove what children never finished because they were killed as they wrote it, here or elsewhere."""
    try:
        discarded = store.discard_unfinished(before_s=time.time() - _UNFINISHED_S)
    except PixloomError as error:
        _log.warning("unfinished artifacts not discarded", error=str(error))
    else:
        if discarded:
            _log.info("unfinished artifacts discarded", files=discarded)


def _close(run: BatchRun) -> None:
    run.cancel_pending()
    if not run.done.done():
        run.done.set_result(None)
