"""The supervisor's end of the template process."""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from pixloom.errors import InvalidError, MachineError
from pixloom.graph.catalogue_codec import op_from_json
from pixloom_executor.children.frames import LENGTH
from pixloom_executor.children.settings import ChildSettings, child_environment
from pixloom_executor.marker import PAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixloom.graph.catalogue import OpSpec
    from pixloom_executor.children.frames import RunFrame

__all__ = ["ChildProcess", "ForkServer"]

_START_S: Final = 60.0
_REPLY_S: Final = 20.0
_STOP_S: Final = 5.0


@dataclass(slots=True)
class ChildProcess:
    """A child as the supervisor sees it.

    Attributes:
        pid: Its process id, which stays its own until it is reaped.
        reader: Results from it.
        writer: Batches to it.
        page: The shared page it writes its position to.
    """

    pid: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    page: mmap.mmap
    _frames: list[bytes] = field(default_factory=list)

    def send(self, frame: RunFrame) -> None:
        """Send a batch, together with others that are sent before the event loop goes on."""
        if not self._frames:
            asyncio.get_running_loop().call_soon(self._flush)
        self._frames.append(frame.encode())

    def _flush(self) -> None:
        frames, self._frames = self._frames, []
        self.writer.write(b"".join(frames))

    def kill(self) -> None:
        """Kill it and whatever it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


class ForkServer:
    """Starts the template, asks it for children, and starts it again if it died."""

    def __init__(self, settings: ChildSettings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._turn = asyncio.Lock()

    async def start(self) -> list[OpSpec]:
        """Start the template and return the ops it has loaded.

        Raises:
            InvalidError: if a user's module cannot be loaded.
            MachineError: if the template does not start.
        """
        async with self._turn:
            with _explained():
                return await self._start()

    async def spawn(self) -> ChildProcess:
        """Fork a child.

        Raises:
            MachineError: if the machine has no room for another process.
            InvalidError: if the template died, and a user's module cannot be loaded any more.
        """
        async with self._turn:
            with _explained():
                if self._control is None:
                    await self._start()
                return await self._fork()

    async def reap(self, child: ChildProcess) -> int:
        """Kill what is left of a child and return its exit code, or minus the signal that ended it."""
        child.writer.close()
        with suppress(OSError):
            await child.writer.wait_closed()
        async with self._turn:
            if self._control is None:
                return -signal.SIGKILL
            try:
                return int((await self._ask({"do": "reap", "pid": child.pid})).get("code", -signal.SIGKILL))
            except MachineError:
                return -signal.SIGKILL  # children die with their template

    async def stop(self) -> None:
        """End the template and all children. Idempotent."""
        process, self._process = self._process, None
        control, self._control = self._control, None
        if control is not None:
            control.close()
        if process is not None:
            try:
                await asyncio.to_thread(process.wait, _STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                await asyncio.to_thread(process.wait)

    async def _fork(self) -> ChildProcess:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs, ExitStack() as unless_done:
            unless_done.callback(ours.close)
            page_handle = _new_page()
            try:
                page = mmap.mmap(page_handle, PAGE_BYTES)
                reply = await self._ask({"do": "spawn"}, (theirs.fileno(), page_handle))
            finally:
                os.close(page_handle)
            reader, writer = await asyncio.open_connection(sock=ours, limit=1 << 20)
            unless_done.pop_all()
            return ChildProcess(pid=reply["pid"], reader=reader, writer=writer, page=page)

    async def _start(self) -> list[OpSpec]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        with theirs, ExitStack() as unless_done:
            unless_done.callback(ours.close)
            self._process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own module; fork and exec take a moment
                [sys.executable, "-m", "pixloom_executor.children.forkserver", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env=child_environment(),
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno() if _has_handle(sys.stderr) else subprocess.DEVNULL,
            )
            unless_done.pop_all()
        self._control = ours
        reply = await self._ask({"do": "load", "settings": self._settings.to_json()}, timeout_s=_START_S)
        if "error" in reply:
            await self.stop()
            raise InvalidError(reply["error"])
        return [op_from_json(op) for op in reply["ops"]]

    async def _ask(
        self, request: dict[str, Any], handles: tuple[int, ...] = (), timeout_s: float = _REPLY_S
    ) -> dict[str, Any]:
        control = self._control
        assert control is not None  # noqa: S101 - callers hold the turn and have started it
        data = orjson.dumps(request)
        try:
            async with asyncio.timeout(timeout_s):
                socket.send_fds(control, [LENGTH.pack(len(data)) + data], handles)
                (size,) = LENGTH.unpack(await self._receive(control, LENGTH.size))
                reply: dict[str, Any] = orjson.loads(await self._receive(control, size))
        except (OSError, TimeoutError, EOFError) as error:
            await self.stop()
            raise MachineError(
                f"the process that starts children does not answer ({type(error).__name__}); see its output above"
            ) from error
        return reply

    async def _receive(self, control: socket.socket, size: int) -> bytes:
        loop = asyncio.get_running_loop()
        data = bytearray()
        while len(data) < size:
            part = await loop.sock_recv(control, size - len(data))
            if not part:
                raise EOFError
            data += part
        return bytes(data)


@contextmanager
def _explained() -> Iterator[None]:
    """Make a refusal of the system (no process, no handle, no memory) an error that callers expect."""
    try:
        yield
    except OSError as error:
        raise MachineError(f"no process can be started here: {error.strerror or type(error).__name__}") from error


def _new_page() -> int:
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("pixloom-child")
    else:
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
    os.ftruncate(handle, PAGE_BYTES)
    return handle


def _has_handle(stream: Any) -> bool:
    try:
        stream.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    return True
