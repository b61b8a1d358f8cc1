"""Brings the database's schema up to date, one process at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import pixloom_scheduler
from pixloom.errors import MachineError, UnavailableError

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["create_engine", "is_current", "upgrade"]

_LOCK: Final = 0x70697866  # "pixl": any constant that nothing else locks


def create_engine(url: str) -> AsyncEngine:
    """Return an engine for a `postgresql://` URL, driven by asyncpg."""
    scheme, _, rest = url.partition("://")
    if scheme not in {"postgresql", "postgres", "postgresql+asyncpg"}:
        raise MachineError(f"PIXLOOM_DATABASE_URL must begin with postgresql://, not {scheme}://")
    return create_async_engine(f"postgresql+asyncpg://{rest}", pool_size=4, max_overflow=4, pool_pre_ping=True)


def _config() -> Config:
    package = Path(pixloom_scheduler.__file__).parent
    inside = package / "migrations"
    config = Config()
    config.set_main_option("script_location", str(inside if inside.is_dir() else package.parent / "migrations"))
    return config


def _upgrade(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    connection.execute(text("CREATE SCHEMA IF NOT EXISTS pixloom"))
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _is_current(connection: Connection) -> bool:
    context = MigrationContext.configure(connection, opts={"version_table_schema": "pixloom"})
    return context.get_current_revision() == ScriptDirectory.from_config(_config()).get_current_head()


async def upgrade(engine: AsyncEngine) -> None:
    """Run the missing migrations under an advisory lock; nothing happens if there are none.

    Raises:
        UnavailableError: If the database does not answer.
        MachineError: If it refuses.
    """
    try:
        async with engine.begin() as connection:
            if not await connection.run_sync(_is_current):
                await connection.run_sync(_upgrade)
    except (OSError, OperationalError) as error:
        raise UnavailableError("the database does not answer; check PIXLOOM_DATABASE_URL") from error
    except DBAPIError as error:
        raise MachineError("the database refused the schema migration; see the log for its answer") from error


async def is_current(engine: AsyncEngine) -> bool:
    """Return whether no migration is missing."""
    async with engine.connect() as connection:
        return await connection.run_sync(_is_current)
