"""The statements of a group commit, and how what they write travels: a list of values for each column.

A value that all rows have in common travels once. Nearly all of a row of a wide job is such values, and converting each
of them took a quarter of what such a job costs the scheduler.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import orjson

from pixloom_scheduler.journal.rows import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pixloom_scheduler.journal.batch import JobEnding, NewJob

__all__ = [
    "END_TYPES",
    "FIRST",
    "FIRST_WITH_JOBS",
    "INSERT_JOBS",
    "INSERT_ROWS",
    "JOB_TYPES",
    "MOST_INLINE_ROWS",
    "NODE_TYPES",
    "RENEW",
    "common_once",
    "job_row",
    "row_columns",
]

_ROW_TYPES: Final = {
    "day": "date", "job_id": "text", "seq": "bigint", "time": "bigint", "project": "text", "kind": "smallint",
    "generation": "int", "stage": "int", "shard": "bigint", "attempt": "int", "outcome": "smallint", "executor": "text", "reason": "text",
    "detail": "text", "start_time": "bigint", "end_time": "bigint", "items_out": "int", "flags": "smallint",
    "counts": "text", "cuts": "text", "payload": "bytea", "data": "jsonb",
}  # fmt: skip
"""What the columns of journal rows travel as."""

_ARRAYS: Final = frozenset(("counts", "cuts"))
"""Arrays travel as text: `unnest` would take rows apart with them."""

_TIMES: Final = frozenset(("time", "start_time", "end_time"))
"""Times of journal rows travel as microseconds, which takes a third of the time that converting them here would.

The database multiplies in double precision: exact up to the year 2255.
"""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

NODE_TYPES: Final = {
    "job_id": "text", "generation": "int", "index": "int", "project": "text", "id": "text", "state": "text",
    "reason": "text", "ok": "bigint", "filtered": "bigint", "rejected": "bigint", "record": "bytea",
}  # fmt: skip
END_TYPES: Final = {
    "id": "text", "state": "text", "generation": "int", "recovery_attempts": "int", "end_time": "timestamptz",
    "record": "bytea",
}  # fmt: skip
JOB_TYPES: Final = {
    "id": "text", "partition": "smallint", "project": "text", "day": "date", "name": "text", "workflow": "text",
    "version": "int", "sha256": "text", "spec": "bytea", "plan": "bytea", "params": "bytea", "tags": "jsonb",
    "metadata": "bytea", "priority": "smallint", "external_id": "text", "request_id": "text", "request_digest": "text",
    "state": "text", "generation": "int", "recovery_attempts": "int", "max_recovery_attempts": "int",
    "trace_context": "jsonb", "create_time": "timestamptz", "end_time": "timestamptz", "record": "bytea",
}  # fmt: skip
MOST_INLINE_ROWS: Final = 2500
"""Journal rows up to which they go with the first statement; more follow, so many at a time.

None are copied: a server that waits for the rest of a COPY heeds no timeout, and an owner that was stopped in the middle
of one would keep its partitions locked for as long as it stands still.
"""


_IS_FENCED: Final = "(SELECT count(*) FROM fenced) = cardinality($1)"
"""Without it, a batch that was committed already would meet its own rows."""


def _arrays(types: dict[str, str], *, first: int) -> str:
    """Return the parameters for columns, numbered from `first`, as a table `v`."""
    params = ", ".join(f"${number}::{sql}[]" for number, sql in enumerate(types.values(), start=first))
    names = ", ".join(f'"{name}"' for name in types)
    return f"unnest({params}) AS v({names})"


def _insert(table: str, types: dict[str, str], *, first: int) -> str:
    names = ", ".join(f'"{name}"' for name in types)
    values = ", ".join(_value(name, sql, number) for number, (name, sql) in enumerate(types.items(), start=first))
    arrays = _arrays(types, first=first)
    return f"INSERT INTO pixloom.{table} ({names}) SELECT {values} FROM {arrays}"  # noqa: S608  # names of ours


def _value(name: str, sql: str, number: int) -> str:
    """Return what is inserted into a column: its own value, or that of all rows."""
    value = f'(CASE cardinality(${number}) WHEN 1 THEN ${number}[1] ELSE v."{name}" END)'
    if name in _ARRAYS:
        return f"{value}::int[]"
    if name in _TIMES and sql == "bigint":
        return f"timestamptz 'epoch' + {value} * interval '1 microsecond'"
    return value


_ROWS_AT: Final = 5
_NODES_AT: Final = _ROWS_AT + len(_ROW_TYPES)
_ENDS_AT: Final = _NODES_AT + len(NODE_TYPES)
_JOBS_AT: Final = _ENDS_AT + len(END_TYPES)
_WRITING: Final = f"""
WITH fenced AS (
    UPDATE pixloom.partition p SET commit_seq = v.n, expires_at = clock_timestamp() + $4
    FROM (SELECT * FROM unnest($1::smallint[], $2::bigint[], $3::bigint[]) AS v(id, epoch, n) ORDER BY id) v
    WHERE p.id = v.id AND p.epoch = v.epoch AND p.commit_seq = v.n - 1
    RETURNING p.id, extract(epoch FROM clock_timestamp()) AS time
),
rows AS ({_insert("journal", _ROW_TYPES, first=_ROWS_AT)} WHERE {_IS_FENCED}),
nodes AS ({_insert("node", NODE_TYPES, first=_NODES_AT)} WHERE {_IS_FENCED}),
ends AS (
    UPDATE pixloom.job j
    SET state = v.state, generation = v.generation, recovery_attempts = v.recovery_attempts, end_time = v.end_time,
        record = v.record
    FROM {_arrays(END_TYPES, first=_ENDS_AT)}
    WHERE j.id = v.id AND {_IS_FENCED}
)"""  # noqa: S608  # names and numbers of ours
_FENCED: Final = "\nSELECT id, time FROM fenced\n"
FIRST: Final = _WRITING + _FENCED
"""Fences the partitions and writes journal rows, ended nodes and changed jobs; returns the partitions that are ours."""
FIRST_WITH_JOBS: Final = (
    f"{_WRITING},\njobs AS ({_insert('job', JOB_TYPES, first=_JOBS_AT)} WHERE {_IS_FENCED}){_FENCED}"
)
"""The same for a batch with new jobs."""
INSERT_ROWS: Final = _insert("journal", _ROW_TYPES, first=1)
INSERT_JOBS: Final = _insert("job", JOB_TYPES, first=1)
"""What the first statement could not carry, behind it in a transaction."""
RENEW: Final = """
WITH fenced AS (
    SELECT p.id
    FROM pixloom.partition p JOIN unnest($1::smallint[], $2::bigint[], $3::bigint[]) AS v(id, epoch, n) ON p.id = v.id
    WHERE p.epoch = v.epoch AND p.commit_seq = v.n - 1
    ORDER BY p.id FOR UPDATE OF p
)
UPDATE pixloom.partition p SET commit_seq = p.commit_seq + 1, expires_at = clock_timestamp() + $4
FROM fenced
WHERE p.id = fenced.id AND (SELECT count(*) FROM fenced) = cardinality($1)
RETURNING p.id, extract(epoch FROM clock_timestamp()) AS time
"""
"""Fences partitions of which nothing else is written: all of them or none, so that it needs no transaction around it.

An owner without work renews its lease by this statement each second. What a replica without work costs is that.
"""


def row_columns(rows: list[tuple[Any, ...]]) -> list[list[Any]]:
    """Return journal rows as a list for each column."""
    if not rows:
        return [[] for _ in COLUMNS]
    columns = common_once(zip(*rows, strict=True))
    for place, name in enumerate(COLUMNS):
        if name in _ARRAYS:
            columns[place] = [None if each is None else "{" + ",".join(map(str, each)) + "}" for each in columns[place]]
        elif name in _TIMES:
            columns[place] = [None if each is None else (each - _EPOCH) // _MICROSECOND for each in columns[place]]
    return columns


def common_once(columns: Iterable[Sequence[Any]]) -> list[list[Any]]:
    """Return columns as they are inserted: one value is that of all rows. Rows that are alike in all are one row."""
    return [
        [column[0]] if column and column[0] == column[-1] and column.count(column[0]) == len(column) else list(column)
        for column in columns
    ]


def job_row(new: NewJob, ending: JobEnding | None) -> tuple[Any, ...]:
    """Return the row of a job that was accepted, in the order of `JOB_TYPES`.

    Args:
        new: The job.
        ending: What else has become of it in the same batch.
    """
    header = new.header
    return (
        header.id,
        header.partition,
        header.project,
        header.day,
        header.name,
        header.workflow,
        header.version,
        header.sha256,
        new.spec,
        new.plan,
        header.params_json,
        orjson.dumps(header.tags).decode(),
        header.metadata_json,
        header.priority,
        header.external_id,
        header.request_id,
        header.request_digest,
        new.state if ending is None else ending.state,
        1 if ending is None else ending.generation,
        header.recovery_attempts if ending is None else ending.recovery_attempts,
        header.max_recovery_attempts,
        orjson.dumps(header.trace_context).decode(),
        header.create_time,
        None if ending is None else ending.end_time,
        None if ending is None else ending.record,
    )
