"""First schema.

Revision ID: 0001
Revises:
"""

import secrets
import uuid

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

PARTITIONS = 16


def upgrade() -> None:
    op.create_table(
        "deployment",
        sa.Column("only", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("incarnation", sa.Uuid(), nullable=False),
        sa.Column("token_key", sa.LargeBinary(), nullable=False),
        sa.Column("system_identifier", sa.Text(), nullable=False),
        sa.Column(
            "create_time", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("only"),
        schema="pixloom",
    )
    op.create_table(
        "job",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("partition", sa.SmallInteger(), nullable=False),
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("workflow", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column("plan", sa.LargeBinary(), nullable=False),
        sa.Column("params", sa.LargeBinary(), nullable=False),
        sa.Column("tags", postgresql.JSONB(), nullable=False),
        sa.Column("metadata", sa.LargeBinary(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("request_digest", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("recovery_attempts", sa.Integer(), nullable=False),
        sa.Column("max_recovery_attempts", sa.Integer(), nullable=False),
        sa.Column("trace_context", postgresql.JSONB(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("record", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        schema="pixloom",
    )
    op.create_index(
        "job_by_external_id",
        "job",
        ["project", "external_id"],
        unique=False,
        schema="pixloom",
        postgresql_where=sa.text("external_id <> ''"),
    )
    op.create_index(
        "job_by_request",
        "job",
        ["project", "request_id"],
        unique=True,
        schema="pixloom",
        postgresql_where=sa.text("request_id <> ''"),
    )
    op.create_index("job_by_state", "job", ["project", "state", "id"], unique=False, schema="pixloom")
    op.create_index("job_by_workflow", "job", ["project", "workflow", "id"], unique=False, schema="pixloom")
    op.create_index(
        "job_unfinished",
        "job",
        ["partition"],
        unique=False,
        schema="pixloom",
        postgresql_where=sa.text("end_time IS NULL"),
    )
    op.create_table(
        "job_inbox",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("workflow", sa.Text(), nullable=False),
        sa.Column("params", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column(
            "create_time", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id"),
        schema="pixloom",
    )
    op.create_table(
        "journal",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=True),
        sa.Column("shard", sa.BigInteger(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("outcome", sa.SmallInteger(), nullable=True),
        sa.Column("executor", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("start_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("end_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("items_out", sa.Integer(), nullable=True),
        sa.Column("flags", sa.SmallInteger(), nullable=True),
        sa.Column("counts", sa.ARRAY(sa.Integer()), nullable=True),
        sa.Column("cuts", sa.ARRAY(sa.Integer()), nullable=True),
        sa.Column("payload", sa.LargeBinary(), nullable=True),
        sa.Column("data", postgresql.JSONB(), nullable=True),
        sa.PrimaryKeyConstraint("day", "job_id", "seq"),
        schema="pixloom",
        postgresql_partition_by="RANGE (day)",
    )
    op.create_table(
        "memo",
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("items", sa.Integer(), nullable=False),
        sa.Column(
            "create_time", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "last_used_time", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("key"),
        schema="pixloom",
    )
    op.create_table(
        "node",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("ok", sa.BigInteger(), nullable=False),
        sa.Column("filtered", sa.BigInteger(), nullable=False),
        sa.Column("rejected", sa.BigInteger(), nullable=False),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "generation", "index"),
        schema="pixloom",
    )
    op.create_table(
        "op",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column(
            "announce_time", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("name"),
        schema="pixloom",
    )
    op.create_table(
        "partition",
        sa.Column("id", sa.SmallInteger(), nullable=False),
        sa.Column("owner", sa.Text(), server_default="", nullable=False),
        sa.Column("address", sa.Text(), server_default="", nullable=False),
        sa.Column("epoch", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("commit_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "expires_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id"),
        schema="pixloom",
        postgresql_with={"fillfactor": "10"},
    )
    op.create_table(
        "workflow",
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("deleted", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "create_time", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("project", "name"),
        schema="pixloom",
    )
    op.create_table(
        "workflow_version",
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("tags", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("notes", postgresql.JSONB(), server_default="[]", nullable=False),
        sa.Column("request_id", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "create_time", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("project", "name", "version"),
        schema="pixloom",
    )
    op.execute("CREATE TABLE pixloom.journal_default PARTITION OF pixloom.journal DEFAULT")
    op.execute(f"INSERT INTO pixloom.partition (id) SELECT generate_series(0, {PARTITIONS - 1})")
    op.get_bind().execute(
        sa.text(
            "INSERT INTO pixloom.deployment (incarnation, token_key, system_identifier) "
            "SELECT :incarnation, :key, system_identifier::text FROM pg_control_system()"
        ),
        {"incarnation": uuid.uuid4(), "key": secrets.token_bytes(32)},
    )


def downgrade() -> None:
    op.execute("DROP SCHEMA pixloom CASCADE")
