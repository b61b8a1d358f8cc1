"""The embedded PostgreSQL server, for real."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from pixloom.local.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from pathlib import Path


async def test_server_answers_and_keeps_its_data_over_a_restart(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "data")
    async with server:
        connection = await asyncpg.connect(server.url)
        await connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
        await connection.close()
    async with server:
        connection = await asyncpg.connect(server.url)
        assert await connection.fetchval("SELECT value FROM kept") == 7
        await connection.close()


async def test_each_test_has_an_empty_database(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    assert await connection.fetchval("SHOW fsync") == "on"
    assert await connection.fetchval("SHOW full_page_writes") == "on"
    await connection.close()
