"""`check_database` on a real PostgreSQL: a clean one passes, and each kind of damage, done by hand, is found."""

# ruff: noqa: S608 - the statements are made of constants

from __future__ import annotations

import asyncio
import hashlib
import sys
from typing import TYPE_CHECKING, Any

import asyncpg
import orjson
import pytest

from pixloom.artifacts.store import open_store
from pixloom.errors import MachineError
from pixloom.graph.canonical import digest_of
from pixloom.v1 import executor_pb2, item_pb2, job_pb2
from pixloom_scheduler.journal.check.audit import RULES
from pixloom_scheduler.journal.check.database import check_database
from pixloom_scheduler.journal.check.documents import DOCUMENTS, PARAMS
from tests.support.journaled_jobs import make_jobs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

JOB, OTHER, OPEN = f"{1:030x}01", f"{2:030x}02", f"{3:030x}03"
_OK, _ATTEMPT, _NODE_ENDED, _JOB_ENDED = 1, 7, 8, 9


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A database with two jobs that ended and one that did not."""
    await make_jobs(database_url, JOB, OTHER, unfinished=OPEN)
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def test_a_database_of_jobs_that_ran_breaks_no_rule(database, database_url):
    findings = await check_database(database_url)
    assert findings.violations == []
    assert (findings.jobs, findings.count) == (3, 0)
    assert findings.rows == await database.fetchval("SELECT count(*) FROM pixloom.journal")


# The row of a table that the damage is done to, always one of JOB.
_FIRST_RESULT = f"job_id = '{JOB}' AND kind = {_ATTEMPT} AND stage = 1 AND outcome = {_OK} AND shard = 0"
_LAST = f"(SELECT max(seq) FROM pixloom.journal WHERE job_id = '{JOB}')"
_COPIED = (
    "day, job_id, project, kind, generation, time, stage, shard, attempt, outcome, executor, reason, detail, "
    "start_time, end_time, items_out, flags, counts, cuts, payload, data"
)


def _again(where: str, *, seq: str = f"{_LAST} + 1", **changed: str) -> str:
    """Return a statement that writes a journal row once more."""
    chosen = ", ".join(changed.get(name.strip(), name) for name in _COPIED.split(","))
    return f"INSERT INTO pixloom.journal (seq, {_COPIED}) SELECT {seq}, {chosen} FROM pixloom.journal WHERE {where}"


def _inserted_behind(where: str, **changed: str) -> list[str]:
    """Return statements that make room behind a row and put a copy of it there."""
    after = f"(SELECT seq FROM pixloom.journal WHERE {where})"
    return [
        f"UPDATE pixloom.journal SET seq = seq + 1000 WHERE job_id = '{JOB}' AND seq > {after}",
        _again(where, seq=f"{after} + 1", **changed),
        f"UPDATE pixloom.journal SET seq = seq - 999 WHERE job_id = '{JOB}' AND seq > 1000",
    ]


DAMAGE = {
    "a row is missing": (
        RULES["numbered"],
        [f"DELETE FROM pixloom.journal WHERE job_id = '{JOB}' AND seq = 4"],
    ),
    "the last row is missing": (
        RULES["job_row"],
        [f"DELETE FROM pixloom.journal WHERE job_id = '{JOB}' AND seq = {_LAST}"],
    ),
    "a row of an unknown kind": (
        RULES["readable"],
        [f"UPDATE pixloom.journal SET kind = 99 WHERE job_id = '{JOB}' AND seq = 3"],
    ),
    "a row of another project": (
        RULES["project"],
        [f"UPDATE pixloom.journal SET project = 'theirs' WHERE job_id = '{JOB}' AND seq = 3"],
    ),
    "a row of another generation": (
        RULES["generation"],
        [f"UPDATE pixloom.journal SET generation = 7 WHERE job_id = '{JOB}' AND seq = 3"],
    ),
    "a result recorded twice": (RULES["once"], _inserted_behind(_FIRST_RESULT, attempt="attempt + 1")),
    "a result after the end of the job": (RULES["terminal"], [_again(_FIRST_RESULT)]),
    "a node that ends twice": (
        RULES["terminal"],
        _inserted_behind(f"job_id = '{JOB}' AND kind = {_NODE_ENDED} AND (data->>'node')::int = 0"),
    ),
    "an attempt left out": (
        RULES["attempts"],
        [f"UPDATE pixloom.journal SET attempt = attempt + 1 WHERE {_FIRST_RESULT}"],
    ),
    "a task of no shard": (
        RULES["released"],
        [f"UPDATE pixloom.journal SET shard = 77 WHERE {_FIRST_RESULT}"],
    ),
    "a collection op that ran before its input had ended": (
        RULES["released"],
        _inserted_behind(_FIRST_RESULT, stage="3", attempt="1"),
    ),
    "a cut that is lost": (
        RULES["cuts"],
        [f"UPDATE pixloom.journal SET cuts = NULL WHERE {_FIRST_RESULT}"],
    ),
    "an output that is cut twice": (
        RULES["cuts"],
        [f"UPDATE pixloom.journal SET cuts = cuts || cuts WHERE {_FIRST_RESULT}"],
    ),
    "more items out than in": (
        RULES["flow"],
        [
            f"UPDATE pixloom.journal SET counts = ARRAY[items_out, 1, 0] WHERE {_FIRST_RESULT}",
            f"UPDATE pixloom.node SET filtered = 1 WHERE job_id = '{JOB}' AND index = 1",
        ],
    ),
    "a node that ended too early": (
        RULES["ends"],
        [
            f"UPDATE pixloom.journal SET flags = flags & ~1 WHERE {_FIRST_RESULT}",
        ],
    ),
    "a job that ended before its nodes": (
        RULES["all_nodes"],
        [
            f"DELETE FROM pixloom.journal WHERE job_id = '{JOB}' AND seq = {_LAST} - 1",
            f"UPDATE pixloom.journal SET seq = seq - 1 WHERE job_id = '{JOB}' AND seq = {_LAST}",
        ],
    ),
    "a node row that counts otherwise": (
        RULES["node_rows"],
        [f"UPDATE pixloom.node SET ok = ok + 1 WHERE job_id = '{JOB}' AND index = 2"],
    ),
    "a node row that is missing": (
        RULES["node_rows"],
        [f"DELETE FROM pixloom.node WHERE job_id = '{JOB}' AND index = 0"],
    ),
    "a job row in another state": (
        RULES["job_row"],
        [f"UPDATE pixloom.job SET state = 'FAILED' WHERE id = '{JOB}'"],
    ),
    "an ended job that came back": (
        RULES["job_row"],
        [f"UPDATE pixloom.job SET end_time = NULL WHERE id = '{JOB}'"],
    ),
    "a plan that cannot be read": (
        "the plan of every job can be read",
        [f"UPDATE pixloom.job SET plan = 'x' WHERE id = '{JOB}'"],
    ),
    "a job that is gone": (
        "every journal row belongs to a job",
        [f"DELETE FROM pixloom.job WHERE id = '{JOB}'"],
    ),
    "node rows of no job": (
        "a node belongs to a job of its project",
        [f"DELETE FROM pixloom.job WHERE id = '{JOB}'"],
    ),
    "two jobs of one request": (
        "one job for each request",
        ["DROP INDEX pixloom.job_by_request", "UPDATE pixloom.job SET request_id = 'the same'"],
    ),
    "a job in another partition": (
        "a job lies in the partition that its id names",
        [f"UPDATE pixloom.job SET partition = 9 WHERE id = '{JOB}'"],
    ),
    "a partition that is missing": ("there are 16 partitions", ["DELETE FROM pixloom.partition WHERE id = 5"]),
    "a partition whose owner has no address": (
        "a partition has an owner with an address and an epoch, or none",
        ["UPDATE pixloom.partition SET owner = 'x' WHERE id = 5"],
    ),
    "a row whose data is no object": (
        RULES["readable"],
        [f"UPDATE pixloom.journal SET data = '[1]' WHERE {_FIRST_RESULT}"],
    ),
    "a row without its stage": (
        RULES["readable"],
        [f"UPDATE pixloom.journal SET stage = NULL WHERE {_FIRST_RESULT}"],
    ),
    "a job that is served as another": (
        RULES["served"],
        [f"UPDATE pixloom.job SET record = (SELECT record FROM pixloom.job WHERE id = '{OTHER}') WHERE id = '{JOB}'"],
    ),
    "an ended job that cannot be served": (
        RULES["served"],
        [f"UPDATE pixloom.job SET record = 'x' WHERE id = '{JOB}'"],
    ),
    "a node that is served as another": (
        RULES["served"],
        [
            (
                f"UPDATE pixloom.node SET record = (SELECT record FROM pixloom.node WHERE job_id = '{JOB}' AND index = 1) "
                f"WHERE job_id = '{JOB}' AND index = 0"
            )
        ],
    ),
    "an ended node that cannot be served": (
        RULES["served"],
        [f"UPDATE pixloom.node SET record = 'x' WHERE job_id = '{JOB}' AND index = 0"],
    ),
    "a node row with another id": (
        RULES["node_rows"],
        [f"UPDATE pixloom.node SET id = 'nobody' WHERE job_id = '{JOB}' AND index = 0"],
    ),
    "a document that was changed": (
        DOCUMENTS,
        [f"UPDATE pixloom.job SET spec = '{{}}', sha256 = '{'0' * 64}' WHERE id = '{JOB}'"],
    ),
    "a document that is none": (
        DOCUMENTS,
        [f"UPDATE pixloom.job SET spec = 'x', sha256 = '{'0' * 64}' WHERE id = '{JOB}'"],
    ),
    "a version of a workflow that was changed": (
        DOCUMENTS,
        [
            (
                "INSERT INTO pixloom.workflow_version (name, version, sha256, spec) "
                f"VALUES ('w', 1, '{'0' * 64}', '{{}}'), ('w', 2, '{digest_of({})}', '{{}}')"
            )
        ],
    ),
    "params that cannot be read": (PARAMS, [f"UPDATE pixloom.job SET params = 'x' WHERE id = '{JOB}'"]),
    "metadata that is no object": (PARAMS, [f"UPDATE pixloom.job SET metadata = '[]' WHERE id = '{JOB}'"]),
    "a priority that there is not": (
        "a priority is 0 to 9",
        [f"UPDATE pixloom.job SET priority = 10 WHERE id = '{JOB}'"],
    ),
    "a workflow version that is not there": (
        "a job runs a version of a workflow that is stored as it was",
        [f"UPDATE pixloom.job SET version = 3 WHERE id = '{JOB}'"],
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
async def test_damage_is_found(database, database_url, kind):
    rule, statements = DAMAGE[kind]
    for statement in statements:
        done = await database.execute(statement)
        assert not done.endswith(" 0"), statement
    findings = await check_database(database_url)
    assert rule in {violation.rule for violation in findings.violations}, findings.violations
    assert {violation.job for violation in findings.violations} <= {"", JOB, OTHER, OPEN}


async def test_a_payload_that_cannot_be_read_is_found(database, database_url, tmp_path):
    await database.execute(f"UPDATE pixloom.journal SET payload = '\\xffff' WHERE {_FIRST_RESULT}")
    findings = await check_database(database_url, artifacts=open_store(tmp_path.as_uri()))
    assert RULES["readable"] in {violation.rule for violation in findings.violations}


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("ALTER TABLE pixloom.job DROP COLUMN recovery_attempts", "of another version"),
        ("DROP SCHEMA pixloom CASCADE", "no tables of Pixloom"),
    ],
)
async def test_tables_of_another_version_are_told_from_broken_ones(database, database_url, statement, said):
    await database.execute(statement)
    with pytest.raises(MachineError, match=said):
        await check_database(database_url)


@pytest.mark.parametrize("verb", ["check", "upgrade"])
async def test_a_database_that_is_not_there_and_one_that_lets_nobody_in_are_told_apart(database_url, verb):
    address, _, rest = database_url.rpartition("@")
    elsewhere = f"{address}@/not_there?{rest.partition('?')[2]}"
    code, _, err = await _pixloom("db", verb, PIXLOOM_DATABASE_URL=elsewhere)
    assert (code, "there is no database of the name" in err) == (1, True), err
    refused = f"{address.rpartition(':')[0]}:wrong@{rest}"
    code, _, err = await _pixloom("db", verb, PIXLOOM_DATABASE_URL=refused)
    assert (code, "refuses the user or password" in err) == (1, True), err


async def _set_failures(database: asyncpg.Connection[Any], outcome: int, times: int) -> None:
    """Let the task whose attempt failed fail, or be lost, that often before it succeeds."""
    row = await database.fetchrow(
        "SELECT seq, shard FROM pixloom.journal WHERE job_id = $1 AND stage = 2 AND outcome = 3", JOB
    )
    await database.execute(
        "UPDATE pixloom.journal SET seq = seq + 1000 WHERE job_id = $1 AND seq > $2", JOB, row["seq"]
    )
    for number in range(1, times):
        await database.execute(
            _again(f"job_id = '{JOB}' AND seq = {row['seq']}", seq=f"{row['seq']} + {number}", attempt=f"{number + 1}")
        )
    await database.execute(
        "UPDATE pixloom.journal SET outcome = $3 WHERE job_id = $1 AND seq BETWEEN $2 AND $2 + 100 "
        "AND stage = 2 AND outcome = 3",
        JOB, row["seq"], outcome,
    )  # fmt: skip
    await database.execute(
        "UPDATE pixloom.journal SET attempt = $4 WHERE job_id = $1 AND seq > 1000 AND stage = $2 AND shard = $3",
        JOB, 2, row["shard"], times + 1,
    )  # fmt: skip
    await database.execute(
        "UPDATE pixloom.journal SET seq = seq - 1000 + $2 WHERE job_id = $1 AND seq > 1000", JOB, times - 1
    )
    # What is served of the job names its last row.
    job = job_pb2.Job.FromString(await database.fetchval("SELECT record FROM pixloom.job WHERE id = $1", JOB))
    job.seq = await database.fetchval("SELECT max(seq) FROM pixloom.journal WHERE job_id = $1", JOB)
    await database.execute("UPDATE pixloom.job SET record = $2 WHERE id = $1", JOB, job.SerializeToString())


@pytest.mark.parametrize(("outcome", "allowed"), [(3, 3), (4, 4)])
async def test_attempts_beyond_the_policy_are_found(database, database_url, outcome, allowed):
    await _set_failures(database, outcome, allowed)
    assert (await check_database(database_url)).violations == []
    # One more.
    await database.execute("DELETE FROM pixloom.job WHERE id = $1", JOB)
    await database.execute("DELETE FROM pixloom.journal WHERE job_id = $1", JOB)
    await database.execute("DELETE FROM pixloom.node WHERE job_id = $1", JOB)
    await database.execute("UPDATE pixloom.partition SET owner = '', address = ''")
    await make_jobs(database_url, JOB)
    await _set_failures(database, outcome, allowed + 1)
    assert [v.rule for v in (await check_database(database_url)).violations] == [RULES["policy"]]


async def test_a_connection_that_is_idle_in_a_transaction_is_found(database, database_url):
    async with database.transaction():
        await database.execute("SELECT 1")
        # Not yet: a scheduler's own transactions are open for milliseconds.
        assert (await check_database(database_url)).count == 0
        findings = await check_database(database_url, at_rest=True)
        assert {v.rule for v in findings.violations} == {"no transaction is open", "every job has ended"}
        assert [v.job for v in findings.violations if v.rule == "every job has ended"] == [OPEN]


async def test_the_check_locks_no_writer_out(database, database_url):
    """A new day's partition needs the strongest lock there is on the journal: it is had while checks run."""
    stop = asyncio.Event()

    async def keep_checking() -> int:
        rounds = 0
        while not stop.is_set():
            assert (await check_database(database_url)).count == 0
            rounds += 1
        return rounds

    checking = asyncio.create_task(keep_checking())
    try:
        for number in range(20):
            async with asyncio.timeout(60):
                await database.execute(
                    f"CREATE TABLE pixloom.journal_far_{number} PARTITION OF pixloom.journal "
                    f"FOR VALUES FROM ('{2100 + number}-01-01') TO ('{2100 + number}-01-02')"
                )
    finally:
        stop.set()
    assert await checking > 0


async def test_an_artifact_that_is_missing_or_damaged_is_found(database, database_url, tmp_path):
    store = open_store(tmp_path.as_uri())
    good, damaged = (store.put(data, "text/plain").sha256 for data in (b"good", b"damaged"))
    path = store.path(damaged)
    assert path is not None
    path.chmod(0o600)
    path.write_bytes(b"other bytes")
    missing = hashlib.sha256(b"missing").hexdigest()
    items = [item_pb2.Item(key=digest, uri=f"cas:{digest}", sha256=digest) for digest in (good, damaged)]
    inline = item_pb2.ItemBatch(items=items).SerializeToString()
    payload = executor_pb2.TaskResult(output=item_pb2.Manifest(count=2, inline=inline)).SerializeToString()
    await database.execute(f"UPDATE pixloom.journal SET payload = $1 WHERE {_FIRST_RESULT}", payload)
    value = orjson.dumps({"value": {"$artifact": {"sha256": missing, "size_bytes": 7, "media_type": "text/plain"}}})
    await database.execute(
        "UPDATE pixloom.journal SET data = $1, flags = flags | 16 WHERE job_id = $2 AND stage = 3", value.decode(), JOB
    )
    assert (await check_database(database_url)).count == 0
    findings = await check_database(database_url, artifacts=store)
    assert findings.artifacts == 3
    found = [violation.detail for violation in findings.violations]
    assert [sum(digest in detail for detail in found) for digest in (good, damaged, missing)] == [0, 1, 1]
    assert len(found) == 2


@pytest.mark.parametrize("listed", [0, 1, 3])
async def test_an_output_that_lists_other_items_than_passed_is_found(database, database_url, tmp_path, listed):
    store = open_store(tmp_path.as_uri())
    row = await database.fetchrow(f"SELECT seq, items_out, payload FROM pixloom.journal WHERE {_FIRST_RESULT}")
    assert row["items_out"] == 2
    before = (await check_database(database_url, artifacts=store)).count
    items = [item_pb2.Item(key=str(number)) for number in range(listed)]
    inline = item_pb2.ItemBatch(items=items).SerializeToString()
    payload = executor_pb2.TaskResult(output=item_pb2.Manifest(count=listed, inline=inline)).SerializeToString()
    # By its counts nothing is wrong with it, whatever its output lists.
    await database.execute(f"UPDATE pixloom.journal SET payload = $1 WHERE {_FIRST_RESULT}", payload)
    assert (await check_database(database_url)).count == 0
    findings = await check_database(database_url, artifacts=store)
    found = [violation for violation in findings.violations if violation.where == f"row {row['seq']}"]
    assert [violation.detail for violation in found] == [f"its output lists {listed} items, and 2 passed"]
    assert before == 0


async def _pixloom(*words: str, **environment: str) -> tuple[int, str, str]:
    import os

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pixloom.cli", *words,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_the_command_exits_with_0_or_1_and_says_what_is_broken(database, database_url):
    code, out, err = await _pixloom("db", "check", "-o", "json", PIXLOOM_DATABASE_URL=database_url)
    assert (code, err) == (0, "")
    report = orjson.loads(out)
    assert report.pop("rows") > 20
    assert report == {"ok": True, "jobs": 3, "artifacts": 0, "count": 0, "violations": []}
    await database.execute("DELETE FROM pixloom.journal WHERE job_id = $1 AND seq = 4", JOB)
    code, out, _ = await _pixloom("db", "check", "-o", "json", PIXLOOM_DATABASE_URL=database_url)
    assert code == 1
    (violation,) = orjson.loads(out)["violations"]
    assert violation == {
        "rule": RULES["numbered"], "job": JOB, "where": "row 5", "detail": "the row before it has number 3"
    }  # fmt: skip
    code, out, err = await _pixloom("db", "check", PIXLOOM_DATABASE_URL=database_url)
    assert (code, out.splitlines()[0]) == (1, f"job {JOB} row 5: the row before it has number 3")
    assert "1 violations" in err


async def test_the_command_makes_the_tables_of_an_empty_database(database_url):
    code, _, err = await _pixloom("db", "check", PIXLOOM_DATABASE_URL=database_url)
    assert code == 1
    assert "pixloom db upgrade" in err
    code, _, err = await _pixloom("db", "upgrade", PIXLOOM_DATABASE_URL=database_url)
    assert (code, err) == (0, "The database is up to date.\n")
    assert (await check_database(database_url)).violations == []


async def test_a_database_that_does_not_answer_is_told_from_a_broken_one(unused_port, tmp_path: Path):
    code, _, err = await _pixloom(
        "db", "check", PIXLOOM_DATABASE_URL=f"postgresql://nobody@127.0.0.1:{unused_port}/none"
    )
    assert code == 3
    assert "does not answer" in err
    code, _, err = await _pixloom("db", "check", "--data-dir", str(tmp_path))
    assert code == 1
    assert str(tmp_path) in err
