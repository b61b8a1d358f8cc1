"""What replicas tell each other when they come."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from tests.conformance.journal.test_journal import Database, database, postgres_database, simulated_database

if TYPE_CHECKING:
    from collections.abc import MutableMapping

__all__ = ["database", "postgres_database", "simulated_database"]

LIMITS = {"jobs": 4, "op.image.convert": 2}


async def heard(database: Database, theirs: dict[str, int], ours: dict[str, int]) -> list[MutableMapping[str, Any]]:
    """Return the warnings about limits of a replica when another one has come."""
    woken = asyncio.Event()
    first = database.membership("a", released=woken.set, limits=ours)
    second = database.membership("b", limits=theirs)
    with capture_logs() as lines:
        async with asyncio.timeout(60):
            await first.look(alive=True)
            # It hears of itself, too.
            await woken.wait()
            woken.clear()
            await second.look(alive=True)
            await woken.wait()
    await first.close()
    await second.close()
    return [line for line in lines if line["event"] == "limits_differ"]


@pytest.mark.parametrize("theirs", [LIMITS, dict(reversed(LIMITS.items()))], ids=["same", "other order"])
async def test_replicas_with_the_same_limits_say_nothing(database: Database, theirs: dict[str, int]) -> None:
    assert await heard(database, theirs, LIMITS) == []


@pytest.mark.parametrize(
    ("theirs", "said"),
    [({"jobs": 5, "op.image.convert": 2}, "jobs=5, op.image.convert=2"), ({}, "none")],
    ids=["others", "none"],
)
async def test_who_comes_with_other_limits_is_named(database: Database, theirs: dict[str, int], said: str) -> None:
    (line,) = await heard(database, theirs, LIMITS)
    assert (line["log_level"], line["other"], line["theirs"]) == ("warning", "b:1", said)
    assert line["ours"] == "jobs=4, op.image.convert=2"
    assert "PIXLOOM_LIMITS" in line["remedy"]


async def test_limits_too_long_to_be_told_differ_all_the_same(database: Database) -> None:
    many = {f"op.user.op_{number}": 1 for number in range(1000)}
    assert await heard(database, many, many) == []
    (line,) = await heard(database, {**many, "jobs": 1}, many)
    assert line["theirs"].startswith("sha256:")
    assert line["theirs"] != line["ours"]


@pytest.mark.parametrize("payload", ["", "{", "[]", "1", '{"limits": 1}', "{}"])
async def test_whatever_else_is_said_on_the_channel_wakes_and_is_no_warning(database: Database, payload: str) -> None:
    woken = asyncio.Event()
    membership = database.membership("a", released=woken.set, limits=LIMITS)
    await membership.look(alive=False)
    connection = await database.open_connection()
    with capture_logs() as lines:
        await connection.execute("SELECT pg_notify($1, $2)", "pixloom_partitions", payload)
        async with asyncio.timeout(60):
            await woken.wait()
    assert [line for line in lines if line["log_level"] != "debug"] == []
    await connection.close()
    await membership.close()
