"""First schema.

Revision ID: 0001
Revises:
"""

import secrets
import uuid

import sqlalchemy as sa
from alembic import op

from pixloom_scheduler.journal.tables import PARTITIONS, metadata

revision = "0001"
down_revision = None


def upgrade() -> None:
    metadata.create_all(op.get_bind())
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
