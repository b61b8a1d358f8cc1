"""`check_database`: the whole check, on a database that schedulers may be writing to.

Nothing is held for long. A job is read in slices of its journal, each in a short read-only transaction of its own: the
journal is append-only, so the slices of one job add up to one history. The last slice is read in one snapshot together
with the rows of the job and its nodes, so these must agree with it whatever is written meanwhile. So no lock of the
check stands in the way of a writer, of a migration or of a new day's partition, and no snapshot keeps dead rows alive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import asyncpg
import orjson

from pixloom.errors import MachineError, UnavailableError
from pixloom.graph.builtin import builtin_catalogue
from pixloom.graph.plan_codec import plan_from_json
from pixloom_scheduler.core.changes import AttemptEnded
from pixloom_scheduler.journal.check.artifacts import ArtifactAudit
from pixloom_scheduler.journal.check.audit import JobAudit
from pixloom_scheduler.journal.check.documents import (
    check_columns,
    find_changed_versions,
    job_served,
    node_served,
)
from pixloom_scheduler.journal.check.findings import Findings, Violation
from pixloom_scheduler.journal.check.statements import find_foreign_rows, run_statements
from pixloom_scheduler.journal.refusals import refusal_of
from pixloom_scheduler.journal.rows import KINDS

if TYPE_CHECKING:
    from pixloom.artifacts.store import ArtifactStore

__all__ = ["check_database"]

SLICE_ROWS: Final = 5000
PAGE_JOBS: Final = 500
_ATTEMPT: Final = KINDS[AttemptEnded]

_JOBS: Final = "SELECT id FROM pixloom.job WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3"
_PLAN: Final = "SELECT partition, project, day, plan, spec, sha256, params, metadata FROM pixloom.job WHERE id = $1"
_JOB: Final = "SELECT state, generation, recovery_attempts, end_time, record FROM pixloom.job WHERE id = $1"
_NODES: Final = """
SELECT generation, index, project, id, state, reason, ok, filtered, rejected, record FROM pixloom.node WHERE job_id = $1
"""
_ROWS: Final = """
SELECT seq, project, kind, generation, stage, shard, attempt, outcome, executor, reason, detail, start_time, end_time,
       items_out, flags, counts, cuts, data{payload}
FROM pixloom.journal WHERE day = $1 AND job_id = $2 AND seq > $3 ORDER BY seq LIMIT $4
"""


async def check_database(url: str, *, at_rest: bool = False, artifacts: ArtifactStore | None = None) -> Findings:
    """Verify the invariants of every job in a database and return what was found.

    Args:
        url: The database, `postgresql://…`.
        at_rest: Whether nothing is under way, so that every started job must have ended.
        artifacts: Object store in which to look for what results name; None to leave that out.

    Raises:
        UnavailableError: If the database does not answer, or somebody keeps others from a table.
        MachineError: If it is not one of ours, is of another version, or refuses the user or a query.
    """
    try:
        connection = await asyncpg.connect(
            url.replace("postgresql+asyncpg://", "postgresql://", 1),
            timeout=10.0,
            server_settings={
                "application_name": "pixloom-check",
                "default_transaction_read_only": "on",
                "default_transaction_isolation": "repeatable read",
                "lock_timeout": "10s",
            },
        )
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        refusal = refusal_of(getattr(error, "sqlstate", None))
        if refusal is not None:
            raise refusal from error
        raise UnavailableError("the database does not answer; check PIXLOOM_DATABASE_URL") from error
    try:
        return await _Check(connection, artifacts).run(at_rest=at_rest)
    except asyncpg.UndefinedTableError as error:
        raise MachineError("the database has no tables of Pixloom; `pixloom db upgrade` makes them") from error
    except asyncpg.UndefinedColumnError as error:
        raise MachineError("the tables are of another version of Pixloom; `pixloom db upgrade` changes them") from error
    except asyncpg.LockNotAvailableError as error:
        raise UnavailableError("a table was locked by somebody else for 10 s, as by a migration; try again") from error
    except (
        OSError,
        asyncpg.PostgresConnectionError,
        asyncpg.OperatorInterventionError,
        asyncpg.InterfaceError,
    ) as error:
        raise UnavailableError("the connection to the database broke during the check; try again") from error
    except asyncpg.PostgresError as error:
        refused = MachineError(f"the database refused a query of the check, SQLSTATE {error.sqlstate}")
        raise (refusal_of(error.sqlstate) or refused) from error
    finally:
        connection.terminate()


class _Check:
    """One run over one connection."""

    def __init__(self, connection: asyncpg.Connection[Any], artifacts: ArtifactStore | None) -> None:
        self._connection = connection
        self._findings = Findings()
        self._artifacts = (
            ArtifactAudit(artifacts, findings=self._findings, report=self._findings.add) if artifacts else None
        )
        self._rows_query = _ROWS.format(payload=", payload" if artifacts else "")
        self._counted = frozenset(spec.ref for spec in builtin_catalogue() if not spec.expands)

    async def run(self, *, at_rest: bool) -> Findings:
        """Check everything."""
        async for violation in run_statements(self._connection, at_rest=at_rest):
            self._findings.add(violation)
        async for violation in find_foreign_rows(self._connection):
            self._findings.add(violation)
        async for violation in find_changed_versions(self._connection):
            self._findings.add(violation)
        last = await self._connection.fetchval("SELECT max(id) FROM pixloom.job") or ""
        job_id = ""
        while page := await self._connection.fetch(_JOBS, job_id, last, PAGE_JOBS):
            for row in page:
                await self._check_job(row["id"])
            job_id = page[-1]["id"]
        return self._findings

    async def _check_job(self, job_id: str) -> None:
        audit: JobAudit | None = None
        seq = 0
        while audit is None or not audit.is_broken:
            async with self._connection.transaction():
                fixed = await self._connection.fetchrow(_PLAN, job_id)
                if fixed is None:
                    return  # deleted meanwhile
                rows = await self._connection.fetch(self._rows_query, fixed["day"], job_id, seq, SLICE_ROWS)
                is_last = len(rows) < SLICE_ROWS
                job, nodes = await self._ending(job_id) if is_last else (None, [])
            # A start with other params gives a job another plan, and is its second row: so the plan fits its slice.
            audit = audit or self._audit_of(job_id, fixed)
            if audit is None:
                return
            for row in rows:
                await self._feed(audit, job_id, dict(row))
            if is_last:
                if job is not None:
                    audit.finish(job, nodes)
                return
            seq = rows[-1]["seq"]

    async def _ending(self, job_id: str) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """Return what the rows of a job and of its nodes say; records, which may be long, are read one by one."""
        row = await self._connection.fetchrow(_JOB, job_id)
        job = {**row, "record": None, "served": job_served(row["record"])} if row is not None else None
        nodes = [
            {**node, "record": None, "served": node_served(node["record"])}
            async for node in self._connection.cursor(_NODES, job_id)
        ]
        return job, nodes

    def _audit_of(self, job_id: str, fixed: asyncpg.Record) -> JobAudit | None:
        self._findings.jobs += 1
        for violation in check_columns(job_id, fixed):
            self._findings.add(violation)
        try:
            plan = plan_from_json(fixed["plan"])
        except Exception as error:  # noqa: BLE001 # whatever a damaged plan raises, it is a finding
            rule = "the plan of every job can be read"
            self._findings.add(Violation(rule, job_id, "column plan", repr(error)[:300]))
            return None
        return JobAudit(
            job_id,
            partition=fixed["partition"],
            plan=plan,
            project=fixed["project"],
            counted=self._counted,
            report=self._findings.add,
        )

    async def _feed(self, audit: JobAudit, job_id: str, row: dict[str, Any]) -> None:
        self._findings.rows += 1
        row["data"] = orjson.loads(row["data"]) if row["data"] else None
        audit.feed(row)
        if self._artifacts is None or row["kind"] != _ATTEMPT:
            return
        passed = row["items_out"] or 0
        if row["payload"] is not None or row["data"] or passed:
            value = row["data"].get("value") if isinstance(row["data"], dict) else None
            await self._artifacts.check(job_id, f"row {row['seq']}", row["payload"], value, passed=passed)
