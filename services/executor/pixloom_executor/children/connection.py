"""The child's end of its socket: batches come in, results go out.

Each frame costs both sides about the same, whatever it holds: a system call, a wake-up, and for each result that comes
alone a report and a commit. So results of batches that took no time may wait for those of the next ones, for as long as
these are there already.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Final

from pixloom_executor.children.frames import LENGTH

if TYPE_CHECKING:
    from pixloom_executor.children.frames import ResultFrame

__all__ = ["ChildConnection"]

_CHUNK: Final = 64 * 1024
_HOLD_NS: Final = 2_000_000


class ChildConnection:
    """Reads and writes frames.

    Args:
        connected: A connected stream socket, blocking.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._received = bytearray()
        self._held: list[bytes] = []
        self._held_since_ns = 0

    def receive(self) -> bytes | None:
        """Return the next frame without its length, waiting for it; None when the other side has closed.

        Nothing is held back while it waits.
        """
        if self._held and not self._is_frame_there():
            self.flush()
        self.flush_if_due()
        if not self._fill(LENGTH.size):
            return None
        (size,) = LENGTH.unpack_from(self._received)
        if not self._fill(LENGTH.size + size):
            return None
        frame = bytes(memoryview(self._received)[LENGTH.size : LENGTH.size + size])
        del self._received[: LENGTH.size + size]
        return frame

    def send(self, frame: ResultFrame) -> None:
        """Send a frame, behind those that were held."""
        self.hold(frame)
        self.flush()

    def hold(self, frame: ResultFrame) -> None:
        """Send a frame together with the next ones: after 2 ms or when nothing more has come, if not flushed before."""
        if not self._held:
            self._held_since_ns = time.monotonic_ns()
        self._held.append(frame.encode())

    def flush(self) -> None:
        """Send what is held."""
        if self._held:
            self._socket.sendall(b"".join(self._held))
            self._held.clear()

    def flush_if_due(self) -> None:
        """Send what has been held for 2 ms."""
        if self._held and time.monotonic_ns() - self._held_since_ns > _HOLD_NS:
            self.flush()

    def _is_frame_there(self) -> bool:
        """Receive what has come; return whether that is a frame at least."""
        while not self._has_frame():
            try:
                data = self._socket.recv(_CHUNK, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            if not data:
                return False
            self._received += data
        return True

    def _has_frame(self) -> bool:
        received = self._received
        return len(received) >= LENGTH.size and len(received) >= LENGTH.size + LENGTH.unpack_from(received)[0]

    def _fill(self, size: int) -> bool:
        """Receive until so many bytes are there; return whether they are."""
        while len(self._received) < size:
            data = self._socket.recv(max(_CHUNK, size - len(self._received)))
            if not data:
                return False
            self._received += data
        return True
