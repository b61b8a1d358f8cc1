"""What a local stack is asked for, and what its parts are told."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pixloom.errors import InvalidError
from pixloom.settings import SchedulerSettings, load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LocalStackOptions", "PartSpec", "Wiring", "default_parts"]

DEFAULT_DATA_DIR: Final = Path(".pixloom")
MAX_SCHEDULERS: Final = 16
"""One for each partition of the jobs; more would have nothing to do."""


@dataclass(frozen=True, slots=True)
class LocalStackOptions:
    """What a local stack is asked for.

    Attributes:
        data_dir: Where everything lies that outlives the stack.
        http_port: REST port of the gateway on 127.0.0.1; 0 for any free one.
        grpc_port: gRPC port of the gateway on 127.0.0.1; 0 for any free one.
        executors: Number of executors; None for one per core.
        schedulers: Number of schedulers, which share the jobs.
        workflows_dir: Folder of workflow files; None for the default of the scheduler.
        source_roots: Folders that source ops may read.
        export_roots: Folders that export ops may write to.
        imports: Python modules with ops of the user's own.
        database_url: External PostgreSQL; None to run one.
        nats_url: External NATS; None to run one.
        artifacts_url: Object store; None for the folder `artifacts` in the data directory.
        ready_timeout_s: How long the services may take to become ready once PostgreSQL and NATS run.
    """

    data_dir: Path = DEFAULT_DATA_DIR
    http_port: int = 7300
    grpc_port: int = 7301
    executors: int | None = 2
    schedulers: int = 1
    workflows_dir: Path | None = None
    source_roots: tuple[Path, ...] = ()
    export_roots: tuple[Path, ...] = ()
    imports: tuple[str, ...] = ()
    database_url: str | None = field(default=None, repr=False)
    nats_url: str | None = field(default=None, repr=False)
    artifacts_url: str | None = None
    ready_timeout_s: float = 60.0

    @classmethod
    def from_settings(
        cls, *, source_roots: tuple[Path, ...] = (), export_roots: tuple[Path, ...] = (), **given: Any
    ) -> LocalStackOptions:
        """Return options that respect environment and `pixloom.toml`.

        Args:
            source_roots: Folders to read in addition to `PIXLOOM_SOURCE_ROOTS`.
            export_roots: Folders to write to in addition to `PIXLOOM_EXPORT_ROOTS`.
            given: Other options by name; they win over the settings, and None is ignored except for `executors`.

        Raises:
            InvalidError: A setting or an option is not valid.
        """
        settings = load_settings(SchedulerSettings)
        named = {name: value for name, value in given.items() if value is not None or name == "executors"}
        for name in ("database_url", "nats_url", "artifacts_url", "workflows_dir"):
            if name in settings.model_fields_set:
                named.setdefault(name, getattr(settings, name))
        return cls(
            source_roots=(*settings.source_roots, *source_roots),
            export_roots=(*settings.export_roots, *export_roots),
            **named,
        ).checked()

    def checked(self) -> LocalStackOptions:
        """Return these options.

        Raises:
            InvalidError: A port or a count is out of range, or both ports are the same.
        """
        for name, port in (("--http-port", self.http_port), ("--grpc-port", self.grpc_port)):
            if not 0 <= port <= 65535:
                raise InvalidError(f"{name} is {port}; use 1 to 65535, or 0 for any free port.")
        if self.http_port == self.grpc_port != 0:
            raise InvalidError(f"--http-port and --grpc-port are both {self.http_port}; give each its own.")
        if self.executors is not None and not 0 <= self.executors <= 256:
            raise InvalidError(f"--executors is {self.executors}; use 0 to 256, or auto.")
        if not 1 <= self.schedulers <= MAX_SCHEDULERS:
            raise InvalidError(f"--schedulers is {self.schedulers}; use 1 to {MAX_SCHEDULERS}.")
        return self

    @property
    def executor_count(self) -> int:
        """Number of executors with `auto` resolved."""
        return _cores() if self.executors is None else self.executors


@dataclass(frozen=True, slots=True)
class Wiring:
    """Addresses that the parts of one stack share.

    Attributes:
        database_url: PostgreSQL, password included.
        nats_url: NATS, password included.
        scheduler_ports: gRPC of each scheduler on 127.0.0.1.
        http_port: REST of the gateway on 127.0.0.1.
        grpc_port: gRPC of the gateway on 127.0.0.1.
    """

    database_url: str = field(repr=False)
    nats_url: str = field(repr=False)
    scheduler_ports: tuple[int, ...]
    http_port: int
    grpc_port: int

    @property
    def scheduler_port(self) -> int:
        """Port of the first scheduler."""
        return self.scheduler_ports[0]


@dataclass(frozen=True, slots=True)
class PartSpec:
    """How to start one part.

    Attributes:
        name: Unique in the stack; names its log and its record.
        argv: Absolute program and arguments.
        env: The whole environment.
        address: What to show to people, or blank.
        drain_s: How long it may take to end after SIGTERM.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    address: str = ""
    drain_s: float = 10.0


def default_parts(options: LocalStackOptions, wiring: Wiring) -> tuple[PartSpec, ...]:
    """Return schedulers, executors and gateway; each is told only what it needs."""
    inherited = {
        name: value for name, value in os.environ.items() if name not in {"PIXLOOM_DATABASE_URL", "PIXLOOM_NATS_URL"}
    }
    schedulers = {
        "scheduler" if options.schedulers == 1 else f"scheduler-{number}": f"127.0.0.1:{port}"
        for number, port in enumerate(wiring.scheduler_ports, start=1)
    }
    shared = {
        **inherited,
        "PIXLOOM_ARTIFACTS_URL": options.artifacts_url or (options.data_dir.absolute() / "artifacts").as_uri(),
        "PIXLOOM_SOURCE_ROOTS": _path_list(options.source_roots),
        "PIXLOOM_EXPORT_ROOTS": _path_list(options.export_roots),
        "PIXLOOM_SCHEDULER_ADDRESSES": ",".join(schedulers.values()),
    }
    scheduler_env = {
        **shared,
        "PIXLOOM_DATABASE_URL": wiring.database_url,
        "PIXLOOM_NATS_URL": wiring.nats_url,
    }
    if options.workflows_dir is not None:
        scheduler_env["PIXLOOM_WORKFLOWS_DIR"] = str(options.workflows_dir.absolute())
    count = options.executor_count
    executor_env = {
        **shared,
        "PIXLOOM_NATS_URL": wiring.nats_url,
        "PIXLOOM_EXECUTOR_SLOTS": os.environ.get("PIXLOOM_EXECUTOR_SLOTS") or str(max(1, _cores() // max(1, count))),
    }
    if options.imports:
        executor_env["PIXLOOM_EXECUTOR_IMPORTS"] = ",".join(options.imports)
    http, grpc = f"127.0.0.1:{wiring.http_port}", f"127.0.0.1:{wiring.grpc_port}"
    gateway_env = {**shared, "PIXLOOM_GATEWAY_HTTP_LISTEN": http, "PIXLOOM_GATEWAY_GRPC_LISTEN": grpc}
    return (
        *(
            PartSpec(
                name,
                _module("pixloom_scheduler"),
                # They are found where they listen, whatever is advertised of others by the environment.
                {**scheduler_env, "PIXLOOM_SCHEDULER_LISTEN": address, "PIXLOOM_SCHEDULER_ADVERTISE": address},
                address,
            )
            for name, address in schedulers.items()
        ),
        PartSpec("gateway", _module("pixloom_gateway"), gateway_env, f"http://{http}, gRPC {grpc}"),
        *(PartSpec(f"executor-{number}", _module("pixloom_executor"), executor_env) for number in range(1, count + 1)),
    )


def _module(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", name)


def _path_list(paths: tuple[Path, ...]) -> str:
    return os.pathsep.join(dict.fromkeys(str(path.absolute()) for path in paths))


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
