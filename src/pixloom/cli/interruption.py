"""Running something until it ends or somebody interrupts it: Ctrl-C, SIGTERM and SIGHUP end it in good order."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

from pixloom.exits import ExitCode

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["run_interruptibly"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_interruptibly(work: Coroutine[Any, Any, int]) -> int:
    """Run `work` and return its exit code, or 130 if a signal cancelled it and it has cleaned up.

    A second signal while it cleans up changes nothing: what it does there has deadlines of its own.
    """
    return asyncio.run(_supervise(work))


async def _supervise(work: Coroutine[Any, Any, int]) -> int:
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(work)
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            task.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, interrupt)
    try:
        return await task
    except asyncio.CancelledError:
        if interrupted:
            return ExitCode.INTERRUPTED
        raise
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
