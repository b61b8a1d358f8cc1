"""What can be said of all rows at once, as SQL. Every statement is short and locks nothing but for reading."""

# ruff: noqa: S608 - the statements are made of constants

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pixloom_scheduler.journal.check.findings import MAX_SHOWN, Violation
from pixloom_scheduler.journal.tables import PARTITIONS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncpg

__all__ = ["STATEMENTS", "Statement", "find_foreign_rows", "run_statements"]


@dataclass(frozen=True, slots=True)
class Statement:
    """A query that returns job, place and detail of everything that breaks a rule.

    Attributes:
        rule: What must hold.
        sql: The query.
        at_rest: Whether it holds only once nothing is under way.
    """

    rule: str
    sql: str
    at_rest: bool = False


STATEMENTS: Final = (
    Statement(
        f"there are {PARTITIONS} partitions",
        f"""
        SELECT '' AS job, 'table partition' AS place, 'it has the ids ' || string_agg(id::text, ' ' ORDER BY id)
        FROM pixloom.partition
        HAVING array_agg(id::int ORDER BY id) <> (SELECT array_agg(i ORDER BY i) FROM generate_series(0, {PARTITIONS - 1}) i)
        """,
    ),
    Statement(
        "a partition has an owner with an address and an epoch, or none",
        """
        SELECT '' AS job, 'partition ' || id, format('owner %L, address %L, epoch %s', owner, address, epoch)
        FROM pixloom.partition
        WHERE (owner = '') <> (address = '') OR epoch < 0 OR commit_seq < 0 OR (owner <> '' AND epoch = 0)
        """,
    ),
    Statement(
        "a job lies in the partition that its id names",
        """
        SELECT id AS job, 'column partition', 'it says ' || partition
        FROM pixloom.job WHERE right(id, 2) <> lpad(to_hex(partition::int), 2, '0')
        """,
    ),
    Statement(
        "a priority is 0 to 9",
        "SELECT id AS job, 'column priority', 'it is ' || priority FROM pixloom.job WHERE priority NOT BETWEEN 0 AND 9",
    ),
    Statement(
        "one job for each request",
        """
        SELECT max(id) AS job, 'request ' || request_id, count(*) || ' jobs of project ' || project
        FROM pixloom.job WHERE request_id <> '' GROUP BY project, request_id HAVING count(*) > 1
        """,
    ),
    Statement(
        "a node belongs to a job of its project",
        """
        SELECT n.job_id AS job, 'node ' || n.id, coalesce('the job is of project ' || j.project, 'there is no such job')
        FROM pixloom.node n LEFT JOIN pixloom.job j ON j.id = n.job_id
        WHERE j.id IS NULL OR j.project <> n.project
        """,
    ),
    Statement(
        "a job runs a version of a workflow that is stored as it was",
        """
        SELECT j.id AS job, 'workflow ' || j.workflow || ' version ' || j.version,
               coalesce('its digest is ' || v.sha256 || ', the job has ' || j.sha256, 'it is not there')
        FROM pixloom.job j
        LEFT JOIN pixloom.workflow_version v
          ON v.project = j.project AND v.name = j.workflow AND v.version = j.version
        WHERE j.version > 0 AND v.sha256 IS DISTINCT FROM j.sha256
        """,
    ),
    # A transaction of a scheduler cannot outlive the lease (transaction_timeout): three times that is a leak.
    Statement(
        "no connection is idle in a transaction",
        """
        SELECT '' AS job, format('backend %s (%s)', pid, application_name),
               format('for %s s', round(extract(epoch FROM clock_timestamp() - state_change)))
        FROM pg_stat_activity
        WHERE datname = current_database() AND state LIKE 'idle in transaction%'
          AND state_change < clock_timestamp() - interval '10 s' AND pid <> pg_backend_pid()
        """,
    ),
    Statement(
        "every job has ended",
        "SELECT id AS job, 'job', 'it is ' || state FROM pixloom.job WHERE end_time IS NULL AND state <> 'PENDING'",
        at_rest=True,
    ),
    Statement(
        "no transaction is open",
        """
        SELECT '' AS job, format('backend %s (%s)', pid, application_name), state
        FROM pg_stat_activity
        WHERE datname = current_database() AND state LIKE 'idle in transaction%' AND pid <> pg_backend_pid()
        """,
        at_rest=True,
    ),
)

_WALK_JOBS: Final = 1000
# Finds the jobs in the journal by leaping through its primary key, so that the cost is jobs and not rows.
_FOREIGN: Final = f"""
WITH RECURSIVE walk AS (
  (SELECT day, job_id, 1 AS n FROM pixloom.journal WHERE (day, job_id) > ($1::date, $2::text)
   ORDER BY day, job_id LIMIT 1)
  UNION ALL
  SELECT next.day, next.job_id, walk.n + 1 FROM walk, LATERAL (
    SELECT j.day, j.job_id FROM pixloom.journal j WHERE (j.day, j.job_id) > (walk.day, walk.job_id)
    ORDER BY j.day, j.job_id LIMIT 1
  ) next WHERE walk.n < {_WALK_JOBS}
)
SELECT walk.day, walk.job_id, job.day AS job_day FROM walk LEFT JOIN pixloom.job ON job.id = walk.job_id
ORDER BY walk.day, walk.job_id
"""


async def run_statements(connection: asyncpg.Connection[Any], *, at_rest: bool) -> AsyncIterator[Violation]:
    """Yield what the statements find, at most `MAX_SHOWN` each."""
    for statement in STATEMENTS:
        if statement.at_rest and not at_rest:
            continue
        for job, place, detail in await connection.fetch(f"{statement.sql} LIMIT {MAX_SHOWN}"):
            yield Violation(statement.rule, job, place, detail)


async def find_foreign_rows(connection: asyncpg.Connection[Any]) -> AsyncIterator[Violation]:
    """Yield the jobs that have journal rows and are not there, or are of another day."""
    day, job_id = await connection.fetchval("SELECT '0001-01-01'::date"), ""
    while True:
        rows = await connection.fetch(_FOREIGN, day, job_id)
        for row in rows:
            if row["job_day"] != row["day"]:
                detail = "there is no such job" if row["job_day"] is None else f"the job is of {row['job_day']}"
                yield Violation("every journal row belongs to a job", row["job_id"], f"rows of {row['day']}", detail)
        if len(rows) < _WALK_JOBS:
            return
        day, job_id = rows[-1]["day"], rows[-1]["job_id"]
