"""Processes of this machine: who they are, starting them so that they die with us, and ending exactly them.

A pid alone names nothing for long: it is given out again. What is recorded is therefore pid, start time and command
line, and a process is only ever signalled when all three still agree.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pixloom.local import launcher

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ProcessIdentity", "end", "end_leftover", "find", "spawn", "wait_exit"]

_POLL_S: Final = 0.01


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process that ran or runs.

    Attributes:
        pid: Process id.
        started: Start time as the system tells it, opaque; only compared.
        command: Command line, words joined by blanks.
    """

    pid: int
    started: str
    command: str


def find(pid: int) -> ProcessIdentity | None:
    """Return who runs under `pid`, or None when nobody does (a zombie is nobody)."""
    if pid <= 0:
        return None
    return _find_linux(pid) if sys.platform == "linux" else _find_ps(pid)


def _find_linux(pid: int) -> ProcessIdentity | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None
    # The name in parentheses may hold anything; what follows the last one is plain. proc_pid_stat(5): fields 3 and 22.
    fields = stat.rpartition(")")[2].split()
    if fields[0] in {"Z", "X"}:
        return None
    return ProcessIdentity(pid, fields[19], command.replace(b"\0", b" ").decode("utf-8", "replace").strip())


def _find_ps(pid: int) -> ProcessIdentity | None:
    shown = subprocess.run(  # noqa: S603 - constant words and a number
        ["/bin/ps", "-ww", "-o", "stat=,lstart=,args=", "-p", str(pid)],
        capture_output=True,
        text=True,
        timeout=5,
        check=False,
        env={"LC_ALL": "C"},
    ).stdout.split(maxsplit=6)
    if len(shown) < 7 or shown[0].startswith("Z"):
        return None
    return ProcessIdentity(pid, " ".join(shown[1:6]), shown[6].strip())


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    death_signal: signal.Signals = signal.SIGTERM,
    as_nobody: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, its output appended to `log`.

    Args:
        argv: Absolute program and arguments; also the command line that `ps` shows.
        env: The whole environment.
        log: File for standard output and error, made 0600.
        death_signal: What the process gets when the starting thread dies (Linux).
        as_nobody: Run in a user namespace as `nobody`, see `pixloom.local.launcher`.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(  # noqa: S603 - the callers name their own programs
            [
                sys.executable,
                "-I",
                "-S",
                launcher.__file__,
                str(int(death_signal)),
                str(os.getpid()),
                "--as-nobody" if as_nobody else "--as-is",
                *argv,
            ],
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
        )
    finally:
        os.close(descriptor)


async def wait_exit(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Wait until `process` ended; False when it still runs after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while process.poll() is None:
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(_POLL_S)
    return True


async def end(
    process: subprocess.Popen[bytes], *, ask_with: signal.Signals = signal.SIGTERM, timeout_s: float = 10.0
) -> bool:
    """Ask a process of ours to end, and kill it when it has not after `timeout_s`.

    Returns:
        Whether it ended when asked.
    """
    if process.poll() is None:
        process.send_signal(ask_with)
    if await wait_exit(process, timeout_s):
        return True
    process.kill()
    await wait_exit(process, timeout_s)
    return False


def end_leftover(identity: ProcessIdentity, *, ask_with: signal.Signals, timeout_s: float = 5.0) -> bool:
    """End what an earlier run left, if the pid is still that very process; blocks.

    Args:
        identity: Who it was when it was recorded.
        ask_with: First signal; SIGKILL follows after `timeout_s`.
        timeout_s: How long to wait after each signal.

    Returns:
        Whether there was anything to end.
    """
    if find(identity.pid) != identity:
        return False
    for number in (ask_with, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(identity.pid, number)
        deadline = time.monotonic() + timeout_s
        while find(identity.pid) == identity:
            if time.monotonic() >= deadline:
                break
            time.sleep(_POLL_S)
        else:
            return True
    return True
