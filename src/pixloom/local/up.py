"""`pixloom up`: a local stack in the foreground until somebody interrupts it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import webbrowser
from typing import TYPE_CHECKING, Final

from pixloom.local.stack import LocalStack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pixloom.local.options import LocalStackOptions

__all__ = ["up"]

INTERRUPTED: Final = 130
"""Exit code after Ctrl-C (128 + SIGINT)."""


async def up(options: LocalStackOptions, *, announce: Callable[[str], None], open_browser: bool = False) -> int:
    """Run a stack until SIGINT, SIGTERM or SIGHUP, then stop all of it.

    A signal during the start ends the start; a second Ctrl-C while stopping changes nothing, since stopping has
    deadlines of its own.

    Args:
        options: What is asked for.
        announce: Shows one line to people.
        open_browser: Show the documentation of the API once ready, if there is a screen.

    Returns:
        The exit code: 130 after Ctrl-C, 0 after another signal.

    Raises:
        MachineError: The machine is at fault; nothing is left running.
    """
    received: list[signal.Signals] = []
    signalled = asyncio.Event()

    def receive(number: signal.Signals) -> None:
        received.append(number)
        signalled.set()

    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, receive, number)
    stack = LocalStack(options, announce=announce)
    try:
        start = asyncio.create_task(stack.start())
        waiting = asyncio.create_task(signalled.wait())
        await asyncio.wait({start, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if start.done():
            await start
            first = next(part for part in stack.parts if part.startswith("scheduler"))
            for line in await asyncio.to_thread(_refused_files, stack.log(first)):
                announce(line)
            announce("Ctrl-C stops it and keeps the data.")
            if open_browser:
                _open_browser(f"{stack.http_url}/api/docs")
            await waiting
        else:
            start.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await start
        announce("Stopping …")
    finally:
        waiting.cancel()
        await stack.stop()
        for number in numbers:
            loop.remove_signal_handler(number)
    announce("Stopped.")
    return INTERRUPTED if received[0] == signal.SIGINT else 0


def _refused_files(log: Path) -> list[str]:
    """Return a line for each workflow file that the running scheduler has refused and not loaded since."""
    lines: dict[str, str] = {}
    for text in log.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(text)
        except json.JSONDecodeError:
            continue
        match entry.get("event"):
            case "scheduler_stopped" | "scheduler_failed":
                lines.clear()
            case "workflow_loaded":
                lines.pop(entry["file"], None)
            case "workflow_file_refused":
                lines[entry["file"]] = f"{entry['file']} is not loaded: {entry['pointer']}: {entry['problem']}"
            case "workflow_file_unreadable":
                lines[entry["file"]] = f"{entry['file']} cannot be read: {entry['problem']}"
            case _:
                pass
    return list(lines.values())


def _open_browser(url: str) -> None:
    """Open a browser where there is a screen; a text browser would take over the terminal."""
    if sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(url)
