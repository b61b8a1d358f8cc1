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
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pixloom.local import launcher

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Identity", "ProcessIdentity", "end", "end_leftover", "find", "identify", "spawn", "wait_exit"]

_POLL_S: Final = 0.02
_LAUNCHER_WORDS: Final = 7  # of the command line in `spawn`, before the program


class Identity(Enum):
    """As whom a process runs, see `pixloom.local.launcher`."""

    AS_IS = "--as-is"
    """As this user."""
    IN_NAMESPACE = "--in-namespace"
    """As `nobody` in a user namespace; files belong to this user."""
    AS_NOBODY = "--as-nobody"
    """As the real user `nobody`; files belong to it."""


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process that ran or runs.

    Attributes:
        pid: Process id.
        started: Boot and start time as the system tells them, opaque; only compared.
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
    return ProcessIdentity(
        pid, f"{_boot_id()} {fields[19]}", command.replace(b"\0", b" ").decode("utf-8", "replace").strip()
    )


@cache
def _boot_id() -> str:
    # Start times count from the boot, so without this the same pid and time may come again after one.
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


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
    identity: Identity = Identity.AS_IS,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, its output appended to `log`.

    Args:
        argv: Absolute program and arguments; also the command line that `ps` shows.
        env: The whole environment.
        log: File for standard output and error, made 0600.
        death_signal: What the process gets when the starting thread dies (Linux).
        identity: As whom it runs.
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
                identity.value,
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


def identify(process: subprocess.Popen[bytes]) -> ProcessIdentity | None:
    """Return who a process started by `spawn` is, or None when it has ended.

    The command is its arguments without the program: what `ps` shows ends with them before and after the launcher
    became the program, and whatever the system makes of the program's path.
    """
    words = process.args
    running = find(process.pid)
    if running is None or not isinstance(words, list):
        return None
    return replace(running, command=" ".join(words[_LAUNCHER_WORDS + 1 :]))


async def wait_exit(process: subprocess.Popen[bytes], timeout_s: float | None = None) -> bool:
    """Wait until a process of ours ended, and end what is left of its session's process group.

    Args:
        process: Started by `spawn`, so it leads a group of its own.
        timeout_s: How long to wait; None for ever.

    Returns:
        False when it still runs after `timeout_s`.
    """
    if process.returncode is not None:
        return True
    try:
        async with asyncio.timeout(timeout_s):
            await _wait_zombie(process)
    except TimeoutError:
        return False
    # The group's number cannot be given out again as long as the zombie has not been collected.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


async def _wait_zombie(process: subprocess.Popen[bytes]) -> None:
    """Return when a process ended; it is not collected where the system can tell without."""
    try:
        descriptor = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else None
    except OSError:
        descriptor = None
    if descriptor is None:
        while process.poll() is None:  # noqa: ASYNC110 - nothing here tells of the end by itself
            await asyncio.sleep(_POLL_S)
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def end(
    process: subprocess.Popen[bytes], *, ask_with: signal.Signals = signal.SIGTERM, timeout_s: float = 10.0
) -> bool:
    """Ask a process of ours to end, and kill it when it has not after `timeout_s`.

    Returns:
        Whether it ended when asked.
    """
    if process.returncode is None:
        # Not send_signal, which would collect a zombie before its group was ended. Until it is collected the pid is its.
        os.kill(process.pid, ask_with)
    if await wait_exit(process, timeout_s):
        return True
    if process.returncode is None:
        os.kill(process.pid, signal.SIGKILL)
    await wait_exit(process)
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
