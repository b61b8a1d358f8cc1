"""The whole of Pixloom on one machine: PostgreSQL, NATS, scheduler, gateway and executors as child processes.

Order of a start: refuse what cannot work (ports, room on the disk, a directory in use) before anything is written; end
what an abrupt end of the last run left; start both servers side by side, then all services at once, since each waits
for the ones it needs; be ready when the gateway says so. A stop goes the other way round and is complete: gateway,
executors, scheduler, then NATS and PostgreSQL.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from pixloom.errors import InternalError, MachineError, NotFoundError
from pixloom.local.directory import (
    MIN_FREE_BYTES,
    DirectoryLock,
    last_lines,
    make_private_directory,
    require_free_port,
    require_room,
)
from pixloom.local.nats import EmbeddedNats
from pixloom.local.options import LocalStackOptions, PartSpec, Wiring, default_parts
from pixloom.local.partitions import free_partitions
from pixloom.local.ports import HeldPorts
from pixloom.local.postgres import EmbeddedPostgres
from pixloom.local.readiness import ask_ready
from pixloom.local.startable import Startable
from pixloom.local.supervision import ServicePart, Supervisor, clean_up_records

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

__all__ = ["LocalStack"]

_MAX_EXITS_BEFORE_READY: Final = 3
_USAGE: Final = 2  # exit code of a part whose settings are not valid; trying again does not help
_MAX_LOG_BYTES: Final = 10 * 1024 * 1024
_KEPT_LOGS: Final = 3


class LocalStack(Startable):
    """One stack in one data directory.

    Attributes:
        options: What was asked for.
    """

    def __init__(
        self,
        options: LocalStackOptions,
        *,
        make_parts: Callable[[LocalStackOptions, Wiring], Sequence[PartSpec]] = default_parts,
        announce: Callable[[str], None] = lambda _: None,
        min_free_bytes: int = MIN_FREE_BYTES,
    ) -> None:
        """Name the place; nothing is touched before `start`.

        Args:
            options: What is asked for.
            make_parts: Returns the services to run, the gateway among them.
            announce: Shows one line to people.
            min_free_bytes: Room on the disk below which a start is refused.
        """
        self.options = options
        self._make_parts = make_parts
        self._show = announce
        self._min_free_bytes = min_free_bytes
        self._dir = options.data_dir.absolute()
        self._logs = self._dir / "logs"
        self._lock = DirectoryLock(self._dir / "up.lock", what="pixloom up")
        self._wiring: Wiring | None = None
        self._ports = HeldPorts()
        self._supervisors: dict[str, Supervisor] = {}

    @property
    def wiring(self) -> Wiring:
        """The addresses of this stack; valid once it was started.

        Raises:
            InternalError: It was not.
        """
        if self._wiring is None:
            raise InternalError("The stack was not started, so it has no addresses yet.")
        return self._wiring

    @property
    def http_url(self) -> str:
        """Base of the REST address."""
        return f"http://127.0.0.1:{self.wiring.http_port}"

    @property
    def grpc_address(self) -> str:
        """Address of the gateway's gRPC, host:port."""
        return f"127.0.0.1:{self.wiring.grpc_port}"

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts in the order in which they were started."""
        return tuple(self._supervisors)

    def pid(self, part: str) -> int | None:
        """Return the pid of a part, None while it does not run."""
        return self._supervisor(part).pid

    def log(self, part: str) -> Path:
        """Return where a part writes its log."""
        return self._logs / f"{part}.log"

    def kill(self, part: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to a part, which is started again if it ends from it.

        Returns:
            The pid that got it.
        """
        return self._supervisor(part).kill(number)

    async def wait_replaced(self, part: str, pid: int, *, timeout_s: float = 60.0) -> int:
        """Wait until another process than `pid` runs for a part, and return its pid.

        Raises:
            TimeoutError: It took longer than `timeout_s`.
        """
        return await self._supervisor(part).wait_replaced(pid, timeout_s)

    async def stop_part(self, part: str) -> None:
        """Stop one part and leave it stopped until `start_part` or the end of the stack."""
        await self._supervisor(part).stop()

    async def start_part(self, part: str) -> None:
        """Start a part that `stop_part` stopped; its address stays the same."""
        await self._supervisor(part).start()

    async def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Return once the gateway says that jobs can run, such as after a part was killed.

        Raises:
            MachineError: It did not within `timeout_s`.
        """
        await self._wait_ready(time.monotonic() + timeout_s, timeout_s=timeout_s)

    async def start(self) -> None:
        """Start everything and return when the stack is ready.

        Raises:
            MachineError: The machine is at fault; everything was stopped again, the message says what to do.
        """
        begun = time.monotonic()
        try:
            await self._prepare()
            # The servers have limits of their own; making a cluster takes long on a slow disk.
            database_url, nats_url = await self._start_servers()
            deadline = time.monotonic() + self.options.ready_timeout_s
            self._wiring = self._wire(database_url=database_url, nats_url=nats_url)
            await self._start_services(self._wiring)
            await self._wait_ready(
                deadline,
                timeout_s=self.options.ready_timeout_s,
                refuse=self._refuse_parts_that_do_not_stay_up,
            )
        except BaseException:
            await self.stop()
            raise
        self._announce(f"Ready in {time.monotonic() - begun:.1f} s at {self.http_url} (gRPC {self.grpc_address}).")

    async def stop(self) -> None:
        """Stop everything and leave no process behind; does nothing when it is stopped."""
        supervisors, self._supervisors = self._supervisors, {}
        failed: list[BaseException] = []
        for names in _stop_order(list(supervisors)):
            results = await asyncio.gather(*(supervisors[name].stop() for name in names), return_exceptions=True)
            failed += [result for result in results if isinstance(result, BaseException)]
        self._ports.release()
        self._lock.release()
        if failed:
            raise failed[0]

    def _announce(self, line: str) -> None:
        # Whoever read the lines may be gone (`pixloom up | head`); the parts are watched over all the same.
        with contextlib.suppress(OSError):
            self._show(line)

    def _supervisor(self, part: str) -> Supervisor:
        try:
            return self._supervisors[part]
        except KeyError:
            known = ", ".join(self._supervisors) or "none"
            raise NotFoundError(f"The stack has no part {part}; it has: {known}.") from None

    async def _prepare(self) -> None:
        if not self._dir.exists():
            # Nothing can be left over in a directory that is not there, so refusals come before it is made.
            self._refuse_what_cannot_work()
        make_private_directory(self._dir)
        self._lock.acquire()
        for folder in (self._logs, self._dir / "run", self._dir / "artifacts"):
            make_private_directory(folder)
        ended = await asyncio.to_thread(clean_up_records, self._dir / "run")
        if ended:
            self._announce(f"Ended {ended} processes that an earlier run left in {self._dir}.")
        self._refuse_what_cannot_work()

    def _refuse_what_cannot_work(self) -> None:
        existing = next(path for path in (self._dir, *self._dir.parents) if path.exists())
        require_room(existing, min_free_bytes=self._min_free_bytes)
        require_free_port(self.options.http_port, what="REST", option="--http-port")
        require_free_port(self.options.grpc_port, what="gRPC", option="--grpc-port")

    async def _start_servers(self) -> tuple[str, str]:
        postgres = EmbeddedPostgres(self._dir / "postgres", log=self._fresh_log("postgres"))
        nats = EmbeddedNats(self._dir / "nats", log=self._fresh_log("nats"))
        # The order in which they enter is the order in which `parts` names them.
        starts = []
        if self.options.database_url is None:
            starts.append(
                self._add("postgres", postgres, describe=lambda: postgres.where, ask_with=signal.SIGINT).start()
            )
        if self.options.nats_url is None:
            starts.append(self._add("nats", nats, describe=lambda: nats.where).start())
        results = await asyncio.gather(*starts, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return self.options.database_url or postgres.url, self.options.nats_url or nats.url

    def _wire(self, *, database_url: str, nats_url: str) -> Wiring:
        """Choose the ports that were left open, and keep them for the parts as long as the stack is there."""
        wanted = (self.options.http_port, self.options.grpc_port, *([0] * self.options.schedulers))
        free = iter(self._ports.take(wanted.count(0)))
        http, grpc, *schedulers = (port or next(free) for port in wanted)
        return Wiring(database_url, nats_url, scheduler_ports=tuple(schedulers), http_port=http, grpc_port=grpc)

    async def _start_services(self, wiring: Wiring) -> None:
        for spec in self._make_parts(self.options, wiring):
            part = ServicePart(spec, log=self._fresh_log(spec.name))
            died = partial(self._free_partitions, spec.address) if spec.name.startswith("scheduler") else None
            await self._add(spec.name, part, describe=partial(str, spec.address), died=died).start()

    def _add(
        self,
        name: str,
        server: EmbeddedPostgres | EmbeddedNats | ServicePart,
        *,
        describe: Callable[[], str],
        ask_with: signal.Signals = signal.SIGTERM,
        died: Callable[[int], Awaitable[None]] | None = None,
    ) -> Supervisor:
        supervisor = self._supervisors[name] = Supervisor(
            name,
            server,
            run_dir=self._dir / "run",
            describe=describe,
            announce=self._announce,
            ask_with=ask_with,
            died=died,
        )
        return supervisor

    async def _free_partitions(self, address: str, pid: int) -> None:
        # Should the database be away, the leases of the dead scheduler end by themselves.
        with contextlib.suppress(OSError):
            await free_partitions(self.wiring.database_url, pid=pid, address=address)

    async def _wait_ready(
        self, deadline: float, *, timeout_s: float, refuse: Callable[[], None] = lambda: None
    ) -> None:
        while True:
            refuse()
            state, missing = await ask_ready(self.wiring.http_port)
            if state == 200:
                return
            if time.monotonic() > deadline:
                raise MachineError(
                    f"The stack was not ready after {timeout_s:g} s; missing: {missing}. The logs are in {self._logs}."
                )
            await asyncio.sleep(0.02)

    def _refuse_parts_that_do_not_stay_up(self) -> None:
        for supervisor in self._supervisors.values():
            if supervisor.exits >= _MAX_EXITS_BEFORE_READY or supervisor.last_exit == _USAGE:
                log = self.log(supervisor.name)
                raise MachineError(
                    f"{supervisor.name} does not stay up. Its log {log} ends with:\n{last_lines(log, 15)}"
                )

    def _fresh_log(self, part: str) -> Path:
        """Return the log of a part, the old one moved aside when it is large."""
        log = self.log(part)
        with contextlib.suppress(FileNotFoundError):
            if log.stat().st_size > _MAX_LOG_BYTES:
                for number in range(_KEPT_LOGS - 1, 0, -1):
                    with contextlib.suppress(FileNotFoundError):
                        log.with_suffix(f".log.{number}").rename(log.with_suffix(f".log.{number + 1}"))
                log.rename(log.with_suffix(".log.1"))
        return log


def _stop_order(names: list[str]) -> list[list[str]]:
    """Return the parts to stop, those of one list side by side."""
    last = ["nats", "postgres"]
    executors = [name for name in names if name.startswith("executor")]
    schedulers = [name for name in names if name.startswith("scheduler")]
    first = [name for name in names if name not in (*last, *executors, *schedulers)]
    return [first, executors, schedulers, *([name] for name in last if name in names)]
