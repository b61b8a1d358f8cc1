"""Frees what a scheduler of this machine held when it died, so that nobody has to wait for its leases to end."""

from __future__ import annotations

import os
from typing import Final

__all__ = ["free_partitions"]

_FREE: Final = """
WITH gone AS (DELETE FROM pixloom.replica WHERE starts_with(id, $1) AND address = $2)
UPDATE pixloom.partition SET owner = '', address = '', expires_at = clock_timestamp()
WHERE starts_with(owner, $1) AND address = $2
"""
_TIMEOUT_S: Final = 5.0


async def free_partitions(database_url: str, *, pid: int, address: str) -> int:
    """Release the partitions of a scheduler that has ended, and tell the others.

    Its epochs stay as they are, and whoever takes a partition raises them: were the process alive after all, it could
    write no more than one whose lease has ended.

    Args:
        database_url: The database that it used.
        pid: Pid of the process, which was a child of this one, so that nobody else has it yet.
        address: Where it served.

    Returns:
        How many partitions were freed.

    Raises:
        OSError: The database does not answer; the leases end by themselves.
    """
    import asyncpg

    # A scheduler's id begins with host and pid, and ends with what no other start has.
    prefix = f"{os.uname().nodename}:{pid}:"
    try:
        connection = await asyncpg.connect(database_url, timeout=_TIMEOUT_S, command_timeout=_TIMEOUT_S)
        try:
            freed = await connection.execute(_FREE, prefix, address)
            await connection.execute("SELECT pg_notify('pixloom_partitions', '')")
        finally:
            await connection.close(timeout=_TIMEOUT_S)
    except (TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise OSError(f"the partitions of {prefix} were not freed: {type(error).__name__}") from error
    return int(freed.rpartition(" ")[2])
