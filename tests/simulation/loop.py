"""An event loop in which time is a number and nothing ever waits, and processes that can be frozen or killed on it.

The clock stands still while there is something to do and jumps to the next timer when there is not. No selector waits,
no thread runs and no socket is opened, so a run is decided by the program and the random numbers it draws alone.

Every callback belongs to the *process* in whose context it was scheduled. A frozen process gets none of its callbacks
until it is thawed, as after SIGSTOP; the world goes on around it. A slow one gets them one after another, each so long
after the one before, as where others have the processor. A killed one is cancelled, and whatever its `finally`
blocks still try is refused by the parts that check `is_alive`.
"""

from __future__ import annotations

import asyncio
import contextvars
import selectors
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from contextvars import Context

__all__ = ["Process", "StuckError", "VirtualLoop", "current_process"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START_S = 1000.0
STEP_S = 1e-6
SPIN_S = 1e-4
MOST_STEPS_AT_ONCE = 400_000
"""Steps without anybody waiting after which something is spinning."""


class StuckError(AssertionError):
    """Nothing is left to do, or something does not stop doing it."""


class Process:
    """What lives and dies together.

    Attributes:
        name: Name in the event log.
        is_alive: False once it was killed.
        is_frozen: Whether its callbacks are held back.
        step_s: Time that each of its callbacks takes, seconds; 0 unless it is slow.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.is_frozen = False
        self.step_s = 0.0
        self._free_at = 0.0
        self.parked: list[Callable[[], None]] = []
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.context = contextvars.copy_context()
        self.context.run(_PROCESS.set, self)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task of this process."""
        return asyncio.get_running_loop().create_task(work, context=self.context.copy())

    def is_behind(self, now: float) -> bool:
        """Return whether what it is to do now has to wait for its turn."""
        return self.step_s > 0 or self._free_at > now

    def next_turn(self, now: float) -> float:
        """Return when it can do what comes next, after all that came before."""
        self._free_at = max(now, self._free_at) + max(self.step_s, STEP_S)
        return self._free_at

    def freeze(self) -> None:
        """Hold back what it would do."""
        self.is_frozen = True

    def thaw(self) -> None:
        """Let it go on where it was."""
        self.is_frozen = False
        parked, self.parked = self.parked, []
        for wake in parked:
            wake()

    def kill(self) -> None:
        """End it between two steps."""
        self.is_alive = False
        self.thaw()
        for task in list(self.tasks):
            task.cancel()


_PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


def current_process() -> Process:
    """Return the process that is running."""
    process = _PROCESS.get()
    if process is None:
        raise StuckError("this happens outside of any process")
    return process


class _Timeless(selectors.SelectSelector):
    """A selector that never waits: it moves the clock instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START_S
        self.steps_at_once = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Move the clock by `timeout` seconds and a little more, as every clock does: work takes time as well."""
        if timeout is None:
            raise StuckError("everybody waits and nothing will ever happen")
        self.now += timeout + STEP_S
        if timeout > SPIN_S:
            self.steps_at_once = 0
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop of a simulated world."""

    def __init__(self) -> None:
        self._timeless = _Timeless()
        self.steps = 0
        super().__init__(self._timeless)
        self.set_task_factory(_make_task)  # type: ignore[arg-type]  # coroutines are all that is ever run here

    def _make_self_pipe(self) -> None:
        """Open no socket: nobody calls from another thread."""

    def _close_self_pipe(self) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def time(self) -> float:
        """Return the virtual time, seconds."""
        return self._timeless.now

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Schedule a callback, unless its process is frozen."""
        self.steps += 1
        self._timeless.steps_at_once += 1
        if self._timeless.steps_at_once > MOST_STEPS_AT_ONCE:
            raise StuckError(f"{MOST_STEPS_AT_ONCE} steps and nobody ever waited")
        process = _PROCESS.get() if context is None else context.get(_PROCESS)
        if process is not None and process.is_frozen:
            handle = asyncio.Handle(callback, args, self, context)
            process.parked.append(lambda: self._run_parked(handle))
            return handle
        if process is not None and process.is_behind(self.time()):
            return self._call_in_turn(process, callback, args, context)
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Schedule a timer; if its process is frozen by then, it goes off when that thaws."""
        process = _PROCESS.get() if context is None else context.get(_PROCESS)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        timer: list[asyncio.TimerHandle] = []

        def fire() -> None:
            if process.is_frozen:
                process.parked.append(lambda: None if timer[0].cancelled() else self._soon(fire, timer[0]))
            elif process.is_behind(self.time()):
                self._call_in_turn(process, lambda: None if timer[0].cancelled() else callback(*args), (), context)
            else:
                callback(*args)

        timer.append(super().call_at(when, fire, context=context))
        return timer[0]

    def _call_in_turn(
        self, process: Process, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
    ) -> asyncio.TimerHandle:
        turn: list[asyncio.TimerHandle] = []

        def take() -> None:
            if process.is_frozen:
                process.parked.append(lambda: None if turn[0].cancelled() else self._soon(take, turn[0]))
            else:
                callback(*args)

        turn.append(super().call_at(process.next_turn(self.time()), take, context=context))
        return turn[0]

    def _soon(self, fire: Callable[[], None], timer: asyncio.TimerHandle) -> None:
        super().call_soon(lambda: None if timer.cancelled() else fire(), context=timer._context)  # type: ignore[attr-defined]

    def _run_parked(self, handle: asyncio.Handle) -> None:
        if not handle.cancelled():
            super().call_soon(lambda: None if handle.cancelled() else handle._run())


def _make_task(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], context: Context | None = None, **options: Any
) -> asyncio.Task[T]:
    task: asyncio.Task[T] = asyncio.Task(work, loop=loop, context=context, **options)
    process = _PROCESS.get() if context is None else context.get(_PROCESS)
    if process is not None:
        process.tasks[task] = None
        task.add_done_callback(lambda ended: _forget(process.tasks, ended))
    return task


def _forget(tasks: dict[asyncio.Task[Any], None], ended: asyncio.Task[Any]) -> None:
    tasks.pop(ended, None)
    if not ended.cancelled():
        ended.exception()


def outside() -> Mapping[Any, Any]:
    """Return a context that belongs to no process."""
    context = contextvars.copy_context()
    context.run(_PROCESS.set, None)
    return context
