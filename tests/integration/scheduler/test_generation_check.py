"""`check_database` on jobs of several generations, over a real PostgreSQL: damaged rows of generations are found."""

# ruff: noqa: S608 - the statements are made of constants

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import asyncpg
import orjson
import pytest

from pixloom.v1 import job_pb2
from pixloom_scheduler.core.changes import GenerationOpened, RecoveryAccepted
from pixloom_scheduler.journal import schema
from pixloom_scheduler.journal.check.audit import RULES
from pixloom_scheduler.journal.check.database import check_database
from pixloom_scheduler.journal.rows import KINDS
from tests.support.answering import Answering
from tests.support.scheduler_verbs import CONTEXT, Scheduler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pixloom_scheduler.live import LiveJob

DOCUMENT = {
    "name": "catalog",
    "nodes": [
        {"id": "numbers", "op": "debug.range", "params": {"count": 9}},
        {"id": "first", "op": "debug.noop", "inputs": {"items": "numbers"}, "shard_size": 2, "fuse": False},
        {"id": "second", "op": "debug.noop", "inputs": {"items": "first"}, "shard_size": 2, "fuse": False},
        {"id": "sheet", "op": "agg.manifest", "inputs": {"items": "second"}},
    ],
}
_OPENED, _TAKEN_UP = KINDS[GenerationOpened], KINDS[RecoveryAccepted]


@pytest.fixture
async def jobs(database_url: str) -> AsyncIterator[tuple[asyncpg.Connection[Any], str, str]]:
    """A database, a job that was cancelled, recovered and retried in it, and a job that was made of that."""
    engine = schema.create_engine(database_url)
    await schema.upgrade(engine)
    await schema.add_days(engine)
    async with asyncio.TaskGroup() as tasks:
        scheduler = Scheduler(database_url, engine)
        await scheduler.start(tasks)
        answering = Answering(scheduler.replica, random.Random(5))
        job_id = await scheduler.submit(document=DOCUMENT, params={})
        live = scheduler.replica.find(job_id)
        assert live is not None
        await answering.finish(live, most_reports=4)
        await scheduler.verbs.CancelJob(job_pb2.CancelJobRequest(id=job_id, now=True), CONTEXT)
        await scheduler.verbs.RecoverJob(job_pb2.RecoverJobRequest(id=job_id), CONTEXT)
        await answering.finish(live)
        await scheduler.verbs.RetryJob(job_pb2.RetryJobRequest(id=job_id), CONTEXT)
        await answering.finish(live)
        assert (str(live.run.state), live.run.generation, live.run.recoveries) == ("COMPLETED", 3, 1)
        made = await scheduler.verbs.RerunJob(job_pb2.RerunJobRequest(id=job_id, from_node="sheet"), CONTEXT)
        other: LiveJob | None = scheduler.replica.find(made.job.id)
        assert other is not None
        await answering.finish(other)
        await scheduler.stop()
    await engine.dispose()
    connection = await asyncpg.connect(database_url)
    yield connection, job_id, made.job.id
    await connection.close()


def _opening(generation: int, job: str) -> str:
    return f"job_id = '{job}' AND kind = {_OPENED} AND generation = {generation}"


def damages(job: str, made: str, data: dict[int, dict[str, Any]]) -> dict[str, tuple[str, list[str]]]:
    """Return by name the rule that a damage breaks, and the statements that do it."""

    def said(generation: int, of: str = job, **changed: Any) -> list[str]:
        text = orjson.dumps({**data[generation], **changed}).decode()
        return [f"UPDATE pixloom.journal SET data = '{text}' WHERE {_opening(generation, of)}"]

    (retried,) = [items for items in data[3]["retried"] if items[0] == 1]
    stage, shard, indexes, places, rejected = retried
    before = f"(SELECT seq FROM pixloom.journal WHERE {_opening(2, job)})"
    return {
        "a generation that goes on with nothing": (RULES["does_again"], said(2, reset=[], reopened=[])),
        "a generation that leaves out what reads from another stage": (RULES["does_again"], said(3, reset=[])),
        "a generation of a stage that is not there": (RULES["does_again"], said(2, reset=[77])),
        "a stage that starts again and goes on": (RULES["does_again"], said(2, reset=[1, *data[2]["reset"]])),
        "a generation that nobody asked for": (
            RULES["opened"],
            [
                f"DELETE FROM pixloom.journal WHERE job_id = '{job}' AND seq = {before} - 1 AND kind = {_TAKEN_UP}",
                f"UPDATE pixloom.journal SET seq = seq + 1000 WHERE job_id = '{job}' AND seq >= {before}",
                f"UPDATE pixloom.journal SET seq = seq - 1001 WHERE job_id = '{job}' AND seq > 1000",
            ],
        ),
        "a generation with the number of another": (
            RULES["generation"],
            [f"UPDATE pixloom.journal SET generation = 7 WHERE {_opening(3, job)}"],
        ),
        "a result of the generation before": (
            RULES["generation"],
            [f"UPDATE pixloom.journal SET generation = 2 WHERE job_id = '{job}' AND generation = 3 AND kind = 7"],
        ),
        "an opening that cannot be read": (
            RULES["readable"],
            [f"UPDATE pixloom.journal SET data = '{{}}' WHERE {_opening(2, job)}"],
        ),
        "an opening that is gone": (
            RULES["numbered"],
            [f"DELETE FROM pixloom.journal WHERE {_opening(3, job)}"],
        ),
        "retried items of no shard": (RULES["retries"], said(3, retried=[[stage, 999, indexes, places, rejected]])),
        "retried items that were not read": (
            RULES["retries"],
            said(3, retried=[[stage, shard, [99], places, rejected]]),
        ),
        "more retried items than rejected ones": (
            RULES["retries"],
            said(3, retried=[[stage, shard, list(range(9)), list(range(9)), rejected * 9]]),
        ),
        "a recovery that the row of the job does not count": (
            RULES["job_row"],
            [f"UPDATE pixloom.job SET recovery_attempts = 0 WHERE id = '{job}'"],
        ),
        "a job made of another whose rows do not say so": (
            RULES["opened"],
            [f"UPDATE pixloom.journal SET data = NULL WHERE job_id = '{made}' AND seq = 1"],
        ),
        "a job made of another that lacks a result": (
            RULES["numbered"],
            [f"DELETE FROM pixloom.journal WHERE job_id = '{made}' AND seq = 4"],
        ),
    }


async def test_damage_to_generations_is_found(
    jobs: tuple[asyncpg.Connection[Any], str, str], database_url: str
) -> None:
    database, job, made = jobs
    assert (await check_database(database_url)).violations == []
    rows = await database.fetch(
        "SELECT generation, data FROM pixloom.journal WHERE job_id = $1 AND kind = $2", job, _OPENED
    )
    planted = damages(job, made, {row["generation"]: orjson.loads(row["data"]) for row in rows})
    for table in ("journal", "job"):
        await database.execute(f"CREATE TABLE good_{table} AS SELECT * FROM pixloom.{table}")
    for name, (rule, statements) in planted.items():
        for statement in statements:
            done = await database.execute(statement)
            assert not done.endswith(" 0"), (name, statement)
        findings = await check_database(database_url)
        assert rule in {violation.rule for violation in findings.violations}, (name, findings.violations)
        async with database.transaction():
            for table in ("journal", "job"):
                await database.execute(f"DELETE FROM pixloom.{table}")
                await database.execute(f"INSERT INTO pixloom.{table} SELECT * FROM good_{table}")
    assert (await check_database(database_url)).violations == []
