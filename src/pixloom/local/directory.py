"""Data directories: private files, one owner at a time, room on the disk."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import socket
from typing import TYPE_CHECKING, Final

from pixloom.errors import MachineError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "MIN_FREE_BYTES",
    "DirectoryLock",
    "last_lines",
    "make_private_directory",
    "read_or_make_secret",
    "require_free_port",
    "require_room",
    "write_private",
]

MIN_FREE_BYTES: Final = 200 * 1024 * 1024
"""Below this a start is refused: a new cluster with its first write-ahead log takes about 60 MB."""


class DirectoryLock:
    """Holds a directory for this process; the system lets go when the process ends, however it ends."""

    __slots__ = ("_descriptor", "_path", "_what")

    def __init__(self, path: Path, *, what: str) -> None:
        self._path = path
        self._what = what
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            MachineError: Another process holds it.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                raise MachineError(f"{self._path} cannot be locked: {error.strerror}.") from error
            who = f" (pid {owner})" if owner else ""
            raise MachineError(
                f"{self._what} in {self._path.parent} is already running{who}. Stop it first, or use another data directory."
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go; does nothing when the lock is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def make_private_directory(path: Path) -> None:
    """Make `path` with its parents; a new one is 0700, an existing one keeps its permissions.

    Raises:
        MachineError: It cannot be made or written to.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(
            f"The data directory {path} cannot be made: {error.strerror}. Choose another with --data-dir."
        ) from error
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise MachineError(f"The data directory {path} is not writable. Change its owner or choose another.")


def write_private(path: Path, text: str) -> None:
    """Replace the file at `path` by one with mode 0600, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise MachineError(f"{path} cannot be written: {error.strerror}. Is there room on the disk?") from error


def read_or_make_secret(path: Path) -> str:
    """Return the secret kept at `path`, made at random (256 bits) the first time."""
    try:
        secret = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        secret = ""
    except OSError as error:
        raise MachineError(f"{path} cannot be read: {error.strerror}.") from error
    if not secret:
        secret = secrets.token_hex(32)
        write_private(path, secret + "\n")
    return secret


def require_room(path: Path, *, min_free_bytes: int = MIN_FREE_BYTES) -> None:
    """Refuse to go on when the disk below `path` is nearly full.

    Args:
        path: An existing directory.
        min_free_bytes: How much must be free.

    Raises:
        MachineError: Less than that is free.
    """
    free = shutil.disk_usage(path).free
    if free < min_free_bytes:
        raise MachineError(
            f"Only {free // 1024**2} MB are free on the disk of {path}; {min_free_bytes // 1024**2} MB are needed. "
            "Free some space or choose another data directory."
        )


def require_free_port(port: int, *, what: str, option: str) -> None:
    """Refuse to go on when somebody listens on `port` of 127.0.0.1.

    Args:
        port: TCP port; 0 stands for any free one and always passes.
        what: Who wants it, for the message.
        option: The setting that changes it, for the message.

    Raises:
        MachineError: The port is in use or not allowed.
    """
    if port == 0:
        return
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
            raise MachineError(f"Port {port} for {what} {why}. Choose another with {option}, or 0 for any.") from error


def last_lines(path: Path, count: int = 5) -> str:
    """Return the last lines of a log for an error message; empty when there is none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-count:])
