"""The template: a process with one thread that has imported every op and forks children on request.

It is started with the number of a socket to the supervisor, and answers each request with one reply:

    {"do": "load", "settings": {…}}     → {"ops": […]} or {"error": "…"}
    {"do": "spawn"} with socket, page   → {"pid": …}
    {"do": "reap", "pid": …}            → {"code": …}, the exit code, or minus the signal

A dead child stays a zombie until it is reaped, so that its process id cannot mean another process meanwhile. When the
socket closes, the template kills all children and exits.
"""

from __future__ import annotations

import array
import gc
import importlib
import mmap
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import Any, Final

import orjson

from pixloom.errors import PixloomError
from pixloom.graph.catalogue_codec import op_to_json
from pixloom_executor.children.frames import LENGTH
from pixloom_executor.children.isolation import die_with_parent, reset_signals
from pixloom_executor.children.settings import ChildSettings
from pixloom_executor.marker import PAGE_BYTES
from pixloom_executor.registry import Registry

__all__ = ["main"]

_REQUEST_BYTES: Final = 1 << 20
# Loaded once here instead of in every child. pyarrow is kept to one thread by its environment variables.
_PRELOADED: Final = ("numpy", "pyvips", "simplejpeg", "pyarrow.parquet", "pixloom_executor.children.child")


class Template:
    """Forks children on request."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: set[int] = set()
        self._settings: ChildSettings | None = None
        self._registry = Registry()

    def serve(self) -> None:
        """Answer requests until the supervisor closes the socket."""
        while (received := self._receive()) is not None:
            request, handles = received
            match request["do"]:
                case "load":
                    reply = self._load(request["settings"])
                case "spawn":
                    reply = self._spawn(*handles)
                case "reap":
                    reply = self._reap(request["pid"])
                case unknown:
                    reply = {"error": f"there is no request {unknown!r}"}
            data = orjson.dumps(reply)
            self._control.sendall(LENGTH.pack(len(data)) + data)

    def end_children(self) -> None:
        """Kill and reap all children."""
        for pid in tuple(self._children):
            self._reap(pid)

    def _load(self, settings: dict[str, Any]) -> dict[str, Any]:
        self._settings = ChildSettings.from_json(settings)
        try:
            self._registry = Registry.load(self._settings.imports)
            for name in _PRELOADED:
                importlib.import_module(name)
            _tame_libvips()
            ops = [op_to_json(spec) for spec in self._registry.specs()]
        except PixloomError as error:
            return {"error": str(error)}
        # Objects that live for ever are left alone by collections in children, so their pages stay shared.
        gc.collect()
        gc.freeze()
        return {"ops": ops}

    def _spawn(self, connection: int, page: int) -> dict[str, Any]:
        template = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._become_child(template, connection, page)
        self._children.add(pid)
        with suppress(OSError):  # the child does the same; whoever comes first
            os.setpgid(pid, pid)
        os.close(connection)
        os.close(page)
        return {"pid": pid}

    def _become_child(self, template: int, connection: int, page: int) -> None:
        code = 1
        try:
            os.setpgid(0, 0)
            die_with_parent(template)
            self._control.close()
            from pixloom_executor.children.child import serve

            assert self._settings is not None  # noqa: S101 - loaded before anything is spawned
            serve(
                connection=socket.socket(fileno=connection),
                page=mmap.mmap(page, PAGE_BYTES),
                settings=self._settings,
                registry=self._registry,
            )
            code = 0
        except (BrokenPipeError, ConnectionResetError):
            code = 0  # the supervisor is gone
        except BaseException:  # noqa: BLE001 - a child never returns into the template
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _reap(self, pid: int) -> dict[str, Any]:
        if pid not in self._children:
            return {"error": f"there is no child {pid}"}
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _, state = os.waitpid(pid, 0)
        self._children.discard(pid)
        return {"code": os.waitstatus_to_exitcode(state)}

    def _receive(self) -> tuple[dict[str, Any], list[int]] | None:
        room = socket.CMSG_LEN(4 * array.array("i").itemsize)
        data, ancillary, _, _ = self._control.recvmsg(_REQUEST_BYTES, room)
        handles = array.array("i")
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                handles.frombytes(payload[: len(payload) - len(payload) % handles.itemsize])
        for handle in handles:
            os.set_inheritable(handle, False)
        while data and (len(data) < LENGTH.size or len(data) < LENGTH.size + LENGTH.unpack_from(data)[0]):
            more = self._control.recv(_REQUEST_BYTES)
            if not more:
                return None
            data += more
        return (orjson.loads(data[LENGTH.size :]), list(handles)) if data else None


def _tame_libvips() -> None:
    import pyvips

    pyvips.block_untrusted_set(True)
    pyvips.cache_set_max(0)
    pyvips.cache_set_max_mem(0)
    pyvips.cache_set_max_files(0)


def main() -> None:
    """Serve the socket whose number is the only argument."""
    die_with_parent(os.getppid())
    reset_signals()
    # SIGTERM to the whole group must not take children from a supervisor that drains.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    template = Template(socket.socket(fileno=int(sys.argv[1])))
    try:
        with suppress(BrokenPipeError, ConnectionResetError):  # the supervisor is gone
            template.serve()
    finally:
        template.end_children()


if __name__ == "__main__":
    main()
