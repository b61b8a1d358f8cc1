"""Connections for reads and small writes, with a database that does not answer told from one that refuses."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from pixloom.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

__all__ = ["reading", "writing"]

_AWAY: Final = ("08", "25006", "53", "57P")
"""SQLSTATE or its beginning (PostgreSQL manual, appendix A): connection, a standby that only reads, insufficient
resources, shutting down or starting."""


def _is_refusal(error: DBAPIError) -> bool:
    """Return whether the server takes nobody at the moment; SQLAlchemy has no class of its own for that."""
    states = (getattr(cause, "sqlstate", None) for cause in (error.orig, getattr(error.orig, "__cause__", None)))
    return any(str(state).startswith(_AWAY) for state in states if state)


def _outage(error: Exception) -> UnavailableError | None:
    """Return what to tell a caller if the database is away; None if the error means something else."""
    away = isinstance(error, OSError | TimeoutError | InterfaceError | OperationalError | PoolTimeoutError)
    if away or (isinstance(error, DBAPIError) and (error.connection_invalidated or _is_refusal(error))):
        return UnavailableError("the database does not answer at the moment; try again", retry_after_s=1.0)
    return None


@contextmanager
def _named_outages() -> Iterator[None]:
    """Raise what to tell a caller where the database is away; other errors pass."""
    try:
        yield
    except Exception as error:
        outage = _outage(error)
        if outage is None:
            raise
        raise outage from error


@asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Open a connection for reading.

    Raises:
        UnavailableError: If the database does not answer.
    """
    with _named_outages():
        async with engine.connect() as connection:
            yield connection


@asynccontextmanager
async def writing(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Open a connection in a transaction that is committed at the end.

    Raises:
        UnavailableError: If the database does not answer; whether the transaction took effect is then unknown.
    """
    with _named_outages():
        async with engine.begin() as connection:
            yield connection
