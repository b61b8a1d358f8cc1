"""The tables, as SQLAlchemy Core metadata; the migrations create them.

Every row carries its project. The journal is the only place where the history of a job lies; rows of `job` and `node`
are what lists and filters need, written when the job is accepted, changes state or ends. Journal rows are partitioned
by the day their *job* was created, so that a partition can be dropped when its jobs are past retention.
"""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

__all__ = [
    "PARTITIONS",
    "deployment",
    "job",
    "job_inbox",
    "journal",
    "memo",
    "metadata",
    "node",
    "op",
    "partition",
    "replica",
    "workflow",
    "workflow_version",
]

PARTITIONS = 16
"""Number of partitions, fixed when the database is created."""

metadata = MetaData(schema="pixloom")


def _time(name: str, *, now: bool = False, nullable: bool = True) -> Column[object]:
    default = text("clock_timestamp()") if now else None
    return Column(name, DateTime(timezone=True), server_default=default, nullable=nullable and not now)


def _project() -> Column[str]:
    return Column("project", Text, nullable=False, server_default="default")


deployment = Table(
    "deployment",
    metadata,
    Column("only", Boolean, primary_key=True, server_default=text("true")),
    Column("incarnation", Uuid, nullable=False),
    Column("token_key", LargeBinary, nullable=False),
    Column("system_identifier", Text, nullable=False),
    _time("create_time", now=True),
)

partition = Table(
    "partition",
    metadata,
    Column("id", SmallInteger, primary_key=True),
    Column("owner", Text, nullable=False, server_default=""),
    Column("address", Text, nullable=False, server_default=""),
    Column("epoch", BigInteger, nullable=False, server_default="0"),
    Column("commit_seq", BigInteger, nullable=False, server_default="0"),
    _time("expires_at", now=True),
    postgresql_with={"fillfactor": "10"},
)

replica = Table(
    "replica",
    metadata,
    Column("id", Text, primary_key=True),
    Column("address", Text, nullable=False),
    _time("start_time", now=True),
    _time("expires_at", nullable=False),
)

workflow = Table(
    "workflow",
    metadata,
    Column("project", Text, primary_key=True, server_default="default"),
    Column("name", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("deleted", Boolean, nullable=False, server_default=text("false")),
    _time("create_time", now=True),
)

workflow_version = Table(
    "workflow_version",
    metadata,
    Column("project", Text, primary_key=True, server_default="default"),
    Column("name", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("sha256", Text, nullable=False),
    Column("spec", LargeBinary, nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("tags", JSONB, nullable=False, server_default="{}"),
    Column("notes", JSONB, nullable=False, server_default="[]"),
    Column("request_id", Text, nullable=False, server_default=""),
    _time("create_time", now=True),
)

op = Table(
    "op",
    metadata,
    Column("name", Text, primary_key=True),
    Column("spec", LargeBinary, nullable=False),
    _time("announce_time", now=True),
)

job = Table(
    "job",
    metadata,
    Column("id", Text, primary_key=True),
    Column("partition", SmallInteger, nullable=False),
    _project(),
    Column("day", Date, nullable=False),
    Column("name", Text, nullable=False),
    Column("workflow", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("spec", LargeBinary, nullable=False),
    Column("plan", LargeBinary, nullable=False),
    Column("params", LargeBinary, nullable=False),
    Column("tags", JSONB, nullable=False),
    Column("metadata", LargeBinary, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("external_id", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("request_digest", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("recovery_attempts", Integer, nullable=False),
    Column("max_recovery_attempts", Integer, nullable=False),
    Column("trace_context", JSONB, nullable=False),
    _time("create_time", nullable=False),
    _time("end_time"),
    # The finished job and its results as served, a serialised pixloom.v1.Job; null while it runs.
    Column("record", LargeBinary),
    Index("job_by_request", "project", "request_id", unique=True, postgresql_where=text("request_id <> ''")),
    Index("job_by_external_id", "project", "external_id", postgresql_where=text("external_id <> ''")),
    Index("job_unfinished", "partition", postgresql_where=text("end_time IS NULL")),
    Index("job_by_state", "project", "state", "id"),
    Index("job_by_workflow", "project", "workflow", "id"),
)

node = Table(
    "node",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("index", Integer, primary_key=True),
    _project(),
    Column("id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("ok", BigInteger, nullable=False),
    Column("filtered", BigInteger, nullable=False),
    Column("rejected", BigInteger, nullable=False),
    # The ended node as served, a serialised pixloom.v1.Node.
    Column("record", LargeBinary, nullable=False),
)

journal = Table(
    "journal",
    metadata,
    Column("day", Date, primary_key=True),
    Column("job_id", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    _project(),
    Column("kind", SmallInteger, nullable=False),
    Column("generation", Integer, nullable=False),
    _time("time", now=True),
    Column("stage", Integer),
    Column("shard", BigInteger),
    Column("attempt", Integer),
    Column("outcome", SmallInteger),
    Column("executor", Text),
    Column("reason", Text),
    Column("detail", Text),
    _time("start_time"),
    _time("end_time"),
    Column("items_out", Integer),
    Column("flags", SmallInteger),
    # ok, filtered and rejected of each node of the stage; null when items_out passed every one of them.
    Column("counts", ARRAY(Integer)),
    # stage, edge, items and size of each cut.
    Column("cuts", ARRAY(Integer)),
    # Of an attempt: where outputs and rejects lie, a serialised pixloom.v1.TaskResult. Of a start with params: these.
    Column("payload", LargeBinary),
    # What is rare: due time, split, cursor, value, reasons, params, warnings.
    Column("data", JSONB),
    postgresql_partition_by="RANGE (day)",
)

memo = Table(
    "memo",
    metadata,
    _project(),
    Column("key", LargeBinary, primary_key=True),
    Column("payload", LargeBinary, nullable=False),
    Column("items", Integer, nullable=False),
    _time("create_time", now=True),
    _time("last_used_time", now=True),
)

job_inbox = Table(
    "job_inbox",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    _project(),
    Column("workflow", Text, nullable=False),
    Column("params", JSONB, nullable=False, server_default="{}"),
    Column("job_id", Text),
    Column("problem", Text),
    _time("create_time", now=True),
)
