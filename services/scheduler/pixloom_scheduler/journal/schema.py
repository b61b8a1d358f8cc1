"""Brings the database's schema up to date, one process at a time."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import pixloom_scheduler
from pixloom.errors import InvalidError, MachineError, UnavailableError
from pixloom_scheduler.journal.refusals import refusal_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["add_days", "create_engine", "is_current", "keep_days", "upgrade"]

_LOCK: Final = 0x70697866  # "pixl": any constant that nothing else locks
_DAYS_AHEAD: Final = 3
_DAYS_EVERY_S: Final = 12 * 3600.0


def create_engine(url: str) -> AsyncEngine:
    """Return an engine for a `postgresql://` URL, driven by asyncpg."""
    scheme, _, rest = url.partition("://")
    if scheme not in {"postgresql", "postgres", "postgresql+asyncpg"}:
        raise InvalidError(f"PIXLOOM_DATABASE_URL must begin with postgresql://, not {scheme}://")
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
        refused = MachineError("the database refused the schema migration; the log of PostgreSQL says why")
        raise (refusal_of(getattr(error.orig, "sqlstate", None)) or refused) from error


async def add_days(engine: AsyncEngine) -> None:
    """Make the journal's partitions of today (UTC) and the days to come; those that are there stay.

    A day whose rows already lie in the default partition, because no scheduler ran the day before, is left there.
    """
    today = datetime.now(UTC).date()
    for day in (today + timedelta(days=number) for number in range(_DAYS_AHEAD)):
        statement = (
            f"CREATE TABLE IF NOT EXISTS pixloom.journal_{day:%Y%m%d} PARTITION OF pixloom.journal "
            f"FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}')"
        )
        with contextlib.suppress(IntegrityError):
            async with engine.begin() as connection:
                await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
                await connection.execute(text(statement))


async def keep_days(engine: AsyncEngine) -> None:
    """Make the journal's partitions of the days to come twice a day, until cancelled."""
    while True:
        await asyncio.sleep(_DAYS_EVERY_S)
        try:
            await add_days(engine)
        except (OSError, SQLAlchemyError) as error:
            structlog.get_logger("schema").warning("days_not_added", error=type(error).__name__)


async def is_current(engine: AsyncEngine) -> bool:
    """Return whether no migration is missing."""
    async with engine.connect() as connection:
        return await connection.run_sync(_is_current)
