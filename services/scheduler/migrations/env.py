"""Alembic environment: runs on the connection that the scheduler hands over, inside its advisory lock."""

from alembic import context

from pixloom_scheduler.journal.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    include_schemas=True,
    version_table_schema="pixloom",
    include_object=lambda obj, name, type_, reflected, compare_to: (
        not (type_ == "table" and (name or "").startswith("journal_"))
    ),
)
with context.begin_transaction():
    context.run_migrations()
