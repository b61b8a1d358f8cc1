"""Keeping one server or service alive: start, notice its end, start again with back-off, record its pid.

Who does what: a `Server` knows how to start and stop one process; a `Supervisor` owns a server from the first start to
`stop`, and is the only one that restarts it. The record of a running process lies in the data directory from its start
until it was stopped, so that the next run can end what an abrupt end of this one left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import time
from typing import TYPE_CHECKING, Final, Protocol

import orjson

from pixloom.errors import MachineError
from pixloom.local.directory import write_private
from pixloom.local.processes import end, end_leftover, find, identify, spawn, wait_exit

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from pixloom.local.options import PartSpec
    from pixloom.local.processes import ProcessIdentity

__all__ = ["Server", "ServicePart", "Supervisor", "clean_up_records"]

MAX_BACKOFF_S: Final = 5.0
_FIRST_BACKOFF_S: Final = 0.1
_HEALTHY_AFTER_S: Final = 30.0


class Server(Protocol):
    """One process that can be started and stopped again and again."""

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The process, None when stopped."""

    async def start(self) -> None:
        """Start it; returns when it answers, or when it was launched if nobody can tell."""

    async def stop(self) -> None:
        """Stop it; does nothing when it is stopped."""


class ServicePart:
    """A service started as a child process."""

    __slots__ = ("_log", "_process", "_spec")

    def __init__(self, spec: PartSpec, *, log: Path) -> None:
        self._spec = spec
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The process, None when stopped."""
        return self._process

    async def start(self) -> None:
        """Launch it."""
        self._process = spawn(self._spec.argv, env=self._spec.env, log=self._log)

    async def stop(self) -> None:
        """Let it drain, then end it."""
        process, self._process = self._process, None
        if process is not None:
            await end(process, ask_with=signal.SIGTERM, timeout_s=self._spec.drain_s)


class Supervisor:
    """Owns one server from its first start to `stop`.

    Attributes:
        exits: How often the process ended on its own.
        last_exit: Exit code of the last such end; negative for a signal.
    """

    __slots__ = (
        "_announce",
        "_ask_with",
        "_changed",
        "_describe",
        "_died",
        "_record",
        "_server",
        "_watch",
        "exits",
        "last_exit",
        "name",
    )

    def __init__(
        self,
        name: str,
        server: Server,
        *,
        run_dir: Path,
        describe: Callable[[], str],
        announce: Callable[[str], None],
        ask_with: signal.Signals = signal.SIGTERM,
        died: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        """Take over a server that is not running.

        Args:
            name: Name of the part.
            server: The server.
            run_dir: Where the record of its process goes.
            describe: Returns its address for people, valid once it runs.
            announce: Shows one line to people.
            ask_with: Signal that asks the process to end; for the next run, should this one end abruptly.
            died: Told the pid of a process that ended on its own, before another one is started.
        """
        self.name = name
        self.exits = 0
        self.last_exit: int | None = None
        self._server = server
        self._record = run_dir / f"{name}.json"
        self._describe = describe
        self._announce = announce
        self._changed = asyncio.Event()
        self._ask_with = ask_with
        self._died = died
        self._watch: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Pid of the running process; None while there is none."""
        process = self._server.process
        return None if process is None or process.returncode is not None else process.pid

    async def start(self) -> None:
        """Start the server and watch over it until `stop`.

        Raises:
            MachineError: The machine is at fault.
        """
        await self._launch("up")
        # Not a task group: the watch lives from start to stop, which need not be called by one task.
        self._watch = asyncio.create_task(self._keep_alive(), name=f"supervise {self.name}")

    async def stop(self) -> None:
        """Stop watching, then stop the server; does nothing when it is stopped."""
        watch, self._watch = self._watch, None
        try:
            if watch is not None:
                watch.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watch
        finally:
            await self._server.stop()
            self._record.unlink(missing_ok=True)
            self._changed.set()

    def kill(self, number: signal.Signals) -> int:
        """Send a signal to the process.

        Args:
            number: The signal, SIGKILL for a crash.

        Returns:
            The pid that got it.

        Raises:
            MachineError: It is not running.
        """
        pid = self.pid
        if pid is None:
            raise MachineError(f"{self.name} is not running, so it cannot be sent {number.name}.")
        os.kill(pid, number)
        return pid

    async def wait_replaced(self, pid: int, timeout_s: float) -> int:
        """Wait until another process than `pid` runs.

        Returns:
            Its pid.

        Raises:
            TimeoutError: It took longer than `timeout_s`.
        """
        async with asyncio.timeout(timeout_s):
            while (now := self.pid) is None or now == pid:
                self._changed.clear()
                await self._changed.wait()
            return now

    async def _launch(self, verb: str) -> None:
        begun = time.monotonic()
        await self._server.start()
        process = self._server.process
        if process is None:
            return
        identity = identify(process)
        if identity is not None:
            content = {**dataclasses.asdict(identity), "signal": int(self._ask_with)}
            write_private(self._record, orjson.dumps(content).decode())
        took_s = time.monotonic() - begun
        self._announce(f"{self.name:<12} {verb:<9} pid {process.pid:<8} {took_s:5.2f} s  {self._describe()}".rstrip())
        self._changed.set()

    async def _keep_alive(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while (process := self._server.process) is not None:
            begun = time.monotonic()
            await wait_exit(process)
            self.exits += 1
            self.last_exit = process.returncode
            self._changed.set()
            if self._died is not None:
                await self._died(process.pid)
            if time.monotonic() - begun >= _HEALTHY_AFTER_S:
                backoff_s = _FIRST_BACKOFF_S
            how = _describe_exit(process.returncode)
            self._announce(f"{self.name:<12} {how}; starting it again in {backoff_s:.1f} s")
            await self._restart(backoff_s)
            backoff_s = min(MAX_BACKOFF_S, backoff_s * 2)

    async def _restart(self, backoff_s: float) -> None:
        while True:
            await asyncio.sleep(backoff_s)
            try:
                await self._launch("restarted")
            except (MachineError, OSError) as error:
                backoff_s = min(MAX_BACKOFF_S, backoff_s * 2)
                self._announce(f"{self.name:<12} could not be started; next attempt in {backoff_s:.1f} s: {error}")
            else:
                return


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def clean_up_records(run_dir: Path) -> int:
    """End the processes that an earlier run recorded and left running, and forget the records; blocks.

    Returns:
        How many were still running.
    """
    leftovers: list[tuple[ProcessIdentity, signal.Signals]] = []
    records = sorted(run_dir.glob("*.json"))
    for record in records:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            content = orjson.loads(record.read_bytes())
            running = find(int(content["pid"]))
            if (
                running is not None
                and running.started == content["started"]
                and running.command.endswith(content["command"])
            ):
                leftovers.append((running, signal.Signals(content["signal"])))
    for running, ask_with in leftovers:
        # All are asked at once; waiting for each then costs the time of the slowest.
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.pid, ask_with)
    for running, ask_with in leftovers:
        end_leftover(running, ask_with=ask_with)
    for record in records:
        record.unlink(missing_ok=True)
    return len(leftovers)
