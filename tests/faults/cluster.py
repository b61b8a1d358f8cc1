"""The parts of a stack as processes that can be killed, stopped and cut off one by one.

It is the stack of `pixloom up` with three executors of one slot each. Links that a case wants to disturb go through a
proxy: `postgres` and `nats` of the schedulers, `nats` of the executors, `scheduler` as executors see it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

import asyncpg
import psutil

from pixloom.local.options import LocalStackOptions, PartSpec, Wiring, default_parts
from pixloom.local.stack import LocalStack
from pixloom.sdk.aio import AsyncClient
from tests.faults.proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

__all__ = ["EXECUTORS", "LINKS", "Cluster"]

EXECUTORS = 3
LINKS = ("postgres", "nats", "scheduler")
REPOSITORY = Path(__file__).parents[2]


class Cluster:
    """A running stack.

    Args:
        folder: Where its data goes.
        schedulers: Number of schedulers.
        proxied: Links that go through a proxy.
        environment: Variables of parts by the beginning of their names, such as `scheduler`; may be changed later, a
            part takes them when it is started.

    Attributes:
        stack: The processes.
        client: Speaks gRPC with the gateway.
        proxies: Proxies by link.
        schedulers: Names of the schedulers.
        executors: Names of the executors.
        addresses: Where each scheduler listens; known once the stack was started.
        environment: As given.
        lines: What the stack has announced.
    """

    def __init__(
        self,
        folder: Path,
        *,
        schedulers: int = 1,
        executors: int = EXECUTORS,
        proxied: tuple[str, ...] = (),
        environment: Mapping[str, Mapping[str, str]] | None = None,
        artifacts: Path | None = None,
    ) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self.proxies = {link: FaultProxy() for link in proxied}
        self.environment: dict[str, dict[str, str]] = {
            part: dict(variables) for part, variables in (environment or {}).items()
        }
        self.photos = folder / "photos"
        self.photos.mkdir(parents=True, exist_ok=True)
        self.schedulers = (
            ("scheduler",) if schedulers == 1 else tuple(f"scheduler-{number}" for number in range(1, schedulers + 1))
        )
        self.addresses: dict[str, str] = {}
        self.executors = tuple(f"executor-{number}" for number in range(1, executors + 1))
        options = LocalStackOptions(
            data_dir=folder / "data",
            http_port=0,
            grpc_port=0,
            executors=executors,
            workflows_dir=folder / "workflows",
            source_roots=(self.photos,),
            imports=("tests.faults.ops",),
            artifacts_url=artifacts.as_uri() if artifacts is not None else None,
            ready_timeout_s=120.0,
            schedulers=schedulers,
        )
        self.artifacts = artifacts or options.data_dir.absolute() / "artifacts"
        self.stack = LocalStack(options, make_parts=self._parts, announce=self.lines.append)
        self._client: AsyncClient | None = None

    @property
    def client(self) -> AsyncClient:
        """The client; valid while the stack runs."""
        assert self._client is not None
        return self._client

    async def __aenter__(self) -> Self:
        try:
            for proxy in self.proxies.values():
                await proxy.listen()
            await self.stack.start()
        except BaseException:
            await self.__aexit__()
            raise
        self._client = AsyncClient(self.stack.grpc_address)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.__aexit__(None, None, None)
        await self.stack.stop()
        for proxy in self.proxies.values():
            await proxy.__aexit__()

    # -- What the stack runs ----------------------------------------------------------------------------------------

    def _parts(self, options: LocalStackOptions, wiring: Wiring) -> tuple[PartSpec, ...]:
        return tuple(self._part(spec, wiring) for spec in default_parts(options, wiring))

    def _part(self, spec: PartSpec, wiring: Wiring) -> PartSpec:
        env: dict[str, str] = dict(spec.env)
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), env.get("PYTHONPATH")]))
        env["PIXLOOM_EXECUTOR_SLOTS"] = "1"
        if spec.name in self.schedulers:
            self.addresses[spec.name] = env["PIXLOOM_SCHEDULER_LISTEN"]
        if "postgres" in self.proxies and "PIXLOOM_DATABASE_URL" in env:
            env["PIXLOOM_DATABASE_URL"] = self._through_postgres(wiring.database_url)
        if "nats" in self.proxies and "PIXLOOM_NATS_URL" in env:
            parts = urlsplit(wiring.nats_url)
            self.proxies["nats"].aim(("127.0.0.1", parts.port or 4222))
            env["PIXLOOM_NATS_URL"] = f"nats://{parts.username}:{parts.password}@127.0.0.1:{self.proxies['nats'].port}"
        if "scheduler" in self.proxies and spec.name.startswith("executor"):
            # The executors know no other address than the proxy's, so this link is for one scheduler only.
            self.proxies["scheduler"].aim(("127.0.0.1", wiring.scheduler_port))
            env["PIXLOOM_SCHEDULER_ADDRESSES"] = f"127.0.0.1:{self.proxies['scheduler'].port}"
        return dataclasses.replace(spec, env=_Changing(env, spec.name, self.environment))

    def _through_postgres(self, url: str) -> str:
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        proxy = self.proxies["postgres"]
        proxy.aim(Path(query["host"][0]) / f".s.PGSQL.{query['port'][0]}")
        return f"postgresql://{parts.username}:{parts.password}@127.0.0.1:{proxy.port}{parts.path}"

    # -- What cases do to it ----------------------------------------------------------------------------------------

    @property
    def database_url(self) -> str:
        """The database, past all proxies."""
        return self.stack.wiring.database_url

    @property
    def scheduler_address(self) -> str:
        """The first scheduler, past all proxies."""
        return self.addresses[self.schedulers[0]]

    @contextlib.asynccontextmanager
    async def stopped(self, part: str) -> AsyncIterator[None]:
        """Stop a part with all its children by SIGSTOP and let it go on at the end."""
        pid = self.stack.pid(part)
        assert pid is not None
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in tree:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)

    async def query(self, sql: str, *values: Any) -> list[Any]:
        """Ask the database, waiting for it if it is away."""
        while True:
            try:
                connection = await asyncpg.connect(self.database_url, timeout=5)
                try:
                    return list(await connection.fetch(sql, *values))
                finally:
                    await connection.close()
            except (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.CannotConnectNowError):
                await asyncio.sleep(0.2)


class _Changing(Mapping[str, str]):
    """The environment of a part, with what a case has changed since; looked up when the part is started."""

    def __init__(self, env: dict[str, str], part: str, changes: Mapping[str, Mapping[str, str]]) -> None:
        self._env = env
        self._part = part
        self._changes = changes

    def __getitem__(self, name: str) -> str:
        return self._now()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())

    def _now(self) -> dict[str, str]:
        now = dict(self._env)
        for part, changes in self._changes.items():
            if self._part.startswith(part):
                now.update(changes)
        return {name: value for name, value in now.items() if value}
