"""Alembic environment: runs on the connection that the scheduler hands over, inside its advisory lock."""

from alembic import context

from pixloom_scheduler.journal.tables import metadata


def _is_declared(item: object, name: str | None, kind: str, *_: object) -> bool:
    """Leave the journal's partitions out of comparisons: they come and go with the days."""
    del item
    return not (kind == "table" and (name or "").startswith("journal_"))


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    include_schemas=True,
    version_table_schema="pixloom",
    include_object=_is_declared,
)
with context.begin_transaction():
    context.run_migrations()
