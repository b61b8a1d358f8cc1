"""Fixtures over real servers: PostgreSQL and NATS from their wheels, one of each per test process."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from hypothesis import HealthCheck, settings

from pixloom.local.nats import EmbeddedNats
from pixloom.local.ports import HeldPorts
from pixloom.local.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator

# How long an example takes is no property of what is tested: another process may have the core meanwhile.
settings.register_profile("pixloom", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pixloom")


def _run(work: Coroutine[Any, Any, None]) -> None:
    # asyncio.run would also reset the current loop, which belongs to the plugin.
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(work)
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL server for the whole session."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"))
    _run(server.start())
    yield server
    _run(server.stop(immediate=True))


@pytest.fixture
async def database_url(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """The address of an empty database of this test's own (`postgresql://…`)."""
    name = f"test_{uuid.uuid4().hex}"
    admin = await asyncpg.connect(postgres.url)
    try:
        await admin.execute(f'CREATE DATABASE "{name}"')
        yield postgres.url_of(name)
        await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await admin.close()


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedNats]:
    """A NATS server for the whole session; tests keep apart by the names of their streams."""
    server = EmbeddedNats(tmp_path_factory.mktemp("nats"))
    _run(server.start())
    yield server
    _run(server.stop(immediate=True))


@pytest.fixture
def nats_url(nats: EmbeddedNats) -> str:
    """The address of the session's NATS server, password included."""
    return nats.url


@pytest.fixture
async def fresh_nats(nats: EmbeddedNats) -> EmbeddedNats:
    """The session's NATS server with an empty store."""
    await nats.wipe()
    return nats


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A TCP port of 127.0.0.1 on which nobody listens, and that is given to nobody else while the test runs."""
    ports = HeldPorts()
    yield from ports.take(1)
    ports.release()
