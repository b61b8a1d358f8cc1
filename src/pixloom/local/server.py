"""What the embedded servers have in common: one process in a data directory, started and stopped again and again.

A start that follows a crash keeps the lock and the address, since clients hold on to them; any other start begins with
both free, and a failure of it leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pixloom.errors import MachineError
from pixloom.local.directory import DirectoryLock, last_lines, make_private_directory, require_room
from pixloom.local.processes import end, find, wait_exit
from pixloom.local.startable import Startable

if TYPE_CHECKING:
    import signal
    import subprocess
    from pathlib import Path

__all__ = ["EmbeddedServer", "read_pid_file"]


class EmbeddedServer(Startable):
    """One server in a data directory.

    `start` and `stop` may be called again and again; its address stays the same after the first start.

    Attributes:
        name: As people know it.
        word: What its files are called.
        stop_with: Signal that asks it to stop in an orderly way.
        crash_with: Signal that stops it as in a crash.
        stop_s: Seconds after which it is killed if it has not stopped.
        start_s: Seconds that a start may take unless told otherwise.
    """

    name: ClassVar[str]
    word: ClassVar[str]
    stop_with: ClassVar[signal.Signals]
    crash_with: ClassVar[signal.Signals]
    stop_s: ClassVar[float]
    start_s: ClassVar[float]

    def __init__(self, data_dir: Path, *, log: Path | None) -> None:
        """Name the place; nothing is touched before `start`.

        Args:
            data_dir: Directory for all that it keeps; made when missing.
            log: Where the server writes; default a file in the data directory.
        """
        self._data_dir = data_dir.absolute()
        self._log = log or self._data_dir / f"{self.word}.log"
        self._lock = DirectoryLock(self._data_dir / f"{self.word}.lock", what=self.name)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The server process; None before the first `start` and after `stop`."""
        return self._process

    @property
    @abstractmethod
    def where(self) -> str:
        """Where it listens, for people; without the password."""

    async def start(self, *, timeout_s: float | None = None) -> None:
        """Start the server and return once it can be used.

        Args:
            timeout_s: Deadline of the start, recovery from a crash included; default `start_s`.

        Raises:
            MachineError: The machine is at fault; the message says how and what to do.
        """
        crashed = self._process
        if crashed is not None:
            if find(crashed.pid) is not None:
                return
            await wait_exit(crashed)
        deadline = time.monotonic() + (self.start_s if timeout_s is None else timeout_s)
        make_private_directory(self._data_dir)
        if crashed is None:
            self._lock.acquire()
        try:
            if crashed is None:
                require_room(self._data_dir)
            await asyncio.to_thread(self._clean_up)
            await self._launch(deadline)
        except BaseException:
            if crashed is None:
                await self.stop(immediate=True)
            elif self._process is not None:
                # Clients hold on to the address, so it is kept for the next attempt.
                await end(self._process, ask_with=self.crash_with, timeout_s=self.stop_s)
            raise

    async def stop(self, *, immediate: bool = False) -> None:
        """Stop the server and let go of the directory; does nothing when it is stopped.

        Args:
            immediate: Stop as in a crash; the next start recovers.
        """
        process, self._process = self._process, None
        if process is not None:
            await end(process, ask_with=self.crash_with if immediate else self.stop_with, timeout_s=self.stop_s)
        self._forget(process)
        self._lock.release()

    @abstractmethod
    def _clean_up(self) -> None:
        """End the server that an earlier run left here, and take away what would keep a new one from starting."""

    @abstractmethod
    async def _launch(self, deadline: float) -> None:
        """Set `_process` to a server that can be used, by `deadline` of the monotonic clock."""

    @abstractmethod
    def _forget(self, process: subprocess.Popen[bytes] | None) -> None:
        """Remove what stands for a running server, after `process` has ended; None if there was none."""

    def _failure(self, what: str) -> MachineError:
        return MachineError(f"{what} in {self._data_dir}. Its log {self._log} ends with:\n{last_lines(self._log)}")


def read_pid_file(path: Path) -> list[str]:
    """Return the lines of a file in which a server has written its pid; none when there is no such file.

    Raises:
        MachineError: It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise MachineError(f"{path} cannot be read: {error.strerror}. Does another user own it?") from error
