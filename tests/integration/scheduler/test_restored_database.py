"""A database that was put back to an earlier moment: executors still hold leases of what was lost."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pixloom_scheduler.journal import schema
from pixloom_scheduler.journal.batch import Batch, Stamp
from pixloom_scheduler.journal.committer import CommitsLostError, Committer
from pixloom_scheduler.journal.ownership import Ownership, connect, read_deployment

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import asyncpg

    Connect = Callable[[], Awaitable[asyncpg.Connection[Any]]]

LEASE_S = 30.0


@pytest.fixture
async def open_connection(database_url: str) -> Connect:
    engine = schema.create_engine(database_url)
    await schema.upgrade(engine)
    await engine.dispose()
    return partial(connect, database_url, lease_s=LEASE_S)


async def run(open_connection: Connect, statement: str, *args: Any) -> Any:
    connection = await open_connection()
    try:
        return await connection.fetchval(statement, *args)
    finally:
        await connection.close()


async def test_an_incarnation_stays_as_long_as_the_cluster_does(open_connection: Connect) -> None:
    first = await read_deployment(open_connection)
    assert await read_deployment(open_connection) == first
    assert first.cluster.rpartition(".")[2].isdigit()
    assert await run(open_connection, "SELECT system_identifier FROM pixloom.deployment") == first.cluster


@pytest.mark.parametrize("known", ["7000000000000000001.1", "{identifier}.999999"])
async def test_a_database_in_another_cluster_or_on_another_timeline_has_a_new_incarnation(
    open_connection: Connect, known: str
) -> None:
    first = await read_deployment(open_connection)
    known = known.format(identifier=first.cluster.partition(".")[0])
    await run(open_connection, "UPDATE pixloom.deployment SET system_identifier = $1", known)
    restored = await read_deployment(open_connection)
    assert restored.incarnation != first.incarnation
    assert (restored.cluster, restored.token_key) == (first.cluster, first.token_key)
    assert await read_deployment(open_connection) == restored


@pytest.mark.parametrize("column", ["incarnation = gen_random_uuid()", "system_identifier = 'another.1'"])
async def test_who_knows_the_database_from_before_takes_nothing_of_it(open_connection: Connect, column: str) -> None:
    before = await read_deployment(open_connection)
    await run(open_connection, f"UPDATE pixloom.deployment SET {column}")  # noqa: S608
    after = await read_deployment(open_connection)
    outlived = Ownership(connect=open_connection, replica="a", address="a:1", lease_s=LEASE_S, deployment=before)
    with pytest.raises(CommitsLostError):
        await outlived.take(16)
    # What it had in its hands for a moment is free at once, not when the lease ends.
    new = Ownership(connect=open_connection, replica="b", address="b:1", lease_s=LEASE_S, deployment=after)
    assert len(await new.take(16)) == 16


async def test_who_finds_commits_lost_ends_the_incarnation_once(open_connection: Connect) -> None:
    before = await read_deployment(open_connection)
    ownership = Ownership(connect=open_connection, replica="a", address="a:1", lease_s=LEASE_S, deployment=before)
    owned = await ownership.take(2)
    incarnations = []
    for partition in owned:
        committer = Committer(connect=open_connection, lease_s=LEASE_S, incarnation=before.incarnation)
        # It has seen five commits more than the database has.
        lost = Batch(stamps={partition.id: Stamp(partition.epoch, partition.commit_seq + 6)})
        with pytest.raises(CommitsLostError):
            await committer.commit(lost)
        await committer.close()
        incarnations.append((await read_deployment(open_connection)).incarnation)
    assert incarnations[0] != before.incarnation
    assert incarnations[1] == incarnations[0]
