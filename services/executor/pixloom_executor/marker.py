"""Where a child process says what it is doing, so that others know when it cannot say it any more.

A page of memory shared with the supervisor holds a few 64-bit numbers. Only the child writes the first seven, only the
supervisor the others; a reader of a dead child sees what was written last, and a reader of a live one what will soon
be true.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import mmap

__all__ = ["NO_MARKER", "PAGE_BYTES", "Marker", "PageMarker", "Position", "read_position", "request_stop"]

PAGE_BYTES: Final = 4096

_BATCH, _TASK, _ITEM, _CALL, _DEADLINE, _DONE, _TASK_START, _STOP = range(8)
_STOPS: Final = 16
"""Batches in a row that can be asked to stop at the same time; a child is never sent so many ahead."""


class Marker(Protocol):
    """Takes note of what a task is doing."""

    def enter(self, index: int, call: int, timeout_ns: int) -> int:
        """An op starts on the input item `index` (-1: on all of them); return the monotonic time in nanoseconds."""
        ...

    def leave(self) -> None:
        """No op is running now."""
        ...


class _NoMarker:
    """Takes no note."""

    def enter(self, index: int, call: int, timeout_ns: int) -> int:  # noqa: ARG002
        return time.monotonic_ns()

    def leave(self) -> None:
        return


NO_MARKER: Final[Marker] = _NoMarker()


class PageMarker:
    """Writes into the shared page; for the child."""

    def __init__(self, page: mmap.mmap) -> None:
        self._words = memoryview(page).cast("Q")
        self._words[_ITEM] = 0

    def begin_task(self, batch: int, task: int) -> None:
        """A task of a batch starts."""
        words = self._words
        words[_ITEM] = 0
        words[_DEADLINE] = 0
        words[_TASK] = task
        # Before the batch: whoever sees the new one between two lines must not take its start for that of the last.
        words[_TASK_START] = time.monotonic_ns()
        words[_BATCH] = batch

    def enter(self, index: int, call: int, timeout_ns: int) -> int:
        """An op starts on an item."""
        now = time.monotonic_ns()
        words = self._words
        words[_CALL] = call
        words[_ITEM] = index + 2
        words[_DEADLINE] = now + timeout_ns
        return now

    def leave(self) -> None:
        """No op is running now."""
        words = self._words
        words[_DEADLINE] = 0
        words[_ITEM] = 0
        words[_DONE] += 1

    def end_batch(self) -> None:
        """No task is running now."""
        self._words[_BATCH] = 0

    def stop_requested(self, batch: int) -> bool:
        """Whether tasks of the batch that have not started should not start."""
        return bool(self._words[_STOP + batch % _STOPS] == batch)


@dataclass(frozen=True, slots=True)
class Position:
    """What a child was doing.

    Attributes:
        batch: Number of the batch; 0 between batches.
        task: Place of the task in the batch.
        in_op: Whether an op was running.
        item: Index of the input item; None for an op that runs on all of them.
        call: Place of the op in the chain.
        deadline_ns: Monotonic time by which the op must end; 0 if none is running.
        task_start_ns: Monotonic time at which the task started.
        done: Number of items finished so far.
    """

    batch: int
    task: int
    in_op: bool
    item: int | None
    call: int
    deadline_ns: int
    task_start_ns: int
    done: int


def read_position(page: mmap.mmap) -> Position:
    """Return what the child that writes the page was doing last."""
    with memoryview(page) as view, view.cast("Q") as words:
        item = words[_ITEM]
        return Position(
            batch=words[_BATCH],
            task=words[_TASK],
            in_op=item > 0,
            item=item - 2 if item > 1 else None,
            call=words[_CALL],
            deadline_ns=words[_DEADLINE],
            task_start_ns=words[_TASK_START],
            done=words[_DONE],
        )


def request_stop(page: mmap.mmap, batch: int) -> None:
    """Ask the child not to start further tasks of a batch."""
    with memoryview(page) as view, view.cast("Q") as words:
        words[_STOP + batch % _STOPS] = batch
