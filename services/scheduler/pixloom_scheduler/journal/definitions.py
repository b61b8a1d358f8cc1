"""Workflow definitions and announced ops in the database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert

from pixloom.errors import AlreadyExistsError, NotFoundError, VersionConflictError
from pixloom_scheduler.journal import tables
from pixloom_scheduler.journal.access import reading, writing

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

__all__ = ["Definition", "Definitions", "NewDefinition"]


@dataclass(frozen=True, slots=True)
class NewDefinition:
    """A checked document to be stored.

    Attributes:
        name: Name of the workflow.
        sha256: Digest of the canonical document.
        spec: The document as JSON.
        description: Its description.
        tags: Its tags.
        notes: What was mapped when it was converted from an older dialect.
    """

    name: str
    sha256: str
    spec: bytes
    description: str
    tags: dict[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Definition:
    """A workflow at one version."""

    project: str
    name: str
    version: int
    sha256: str
    spec: bytes
    description: str
    tags: dict[str, str]
    notes: list[str]
    create_time: datetime
    first_time: datetime


_MAX_VERSION: Final = 2**31 - 1
_VERSION = tables.workflow_version.c
_WORKFLOW = tables.workflow.c
_COLUMNS = [
    _VERSION.project, _VERSION.name, _VERSION.version, _VERSION.sha256, _VERSION.spec, _VERSION.description,
    _VERSION.tags, _VERSION.notes, _VERSION.create_time, _WORKFLOW.create_time.label("first_time"),
]  # fmt: skip
_JOIN = tables.workflow_version.join(
    tables.workflow, (_VERSION.project == _WORKFLOW.project) & (_VERSION.name == _WORKFLOW.name)
)


class Definitions:
    """Stores workflows; every change of content is a new, immutable version."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def get(self, project: str, name: str, version: int = 0) -> Definition:
        """Return a workflow at a version, or its newest.

        Raises:
            NotFoundError: If there is none.
        """
        row = None
        if _may_exist(name, version):
            query = select(*_COLUMNS).select_from(_JOIN).where(_VERSION.project == project, _VERSION.name == name)
            query = query.where(
                _VERSION.version == version if version else (_VERSION.version == _WORKFLOW.version) & ~_WORKFLOW.deleted
            )
            async with reading(self._engine) as connection:
                row = (await connection.execute(query)).mappings().first()
        if row is None:
            what = f"{name} at version {version}" if version else name
            raise NotFoundError(f"there is no workflow {what}; `pixloom workflows list` shows those there are")
        return Definition(**row)

    async def newest(self, project: str, *, after: str, most: int) -> list[Definition]:
        """Return the newest versions by name, behind a name."""
        query = (
            select(*_COLUMNS)
            .select_from(_JOIN)
            .where(
                _VERSION.project == project,
                _VERSION.version == _WORKFLOW.version,
                ~_WORKFLOW.deleted,
                _VERSION.name > after,
            )
            .order_by(_VERSION.name)
            .limit(most)
        )
        async with reading(self._engine) as connection:
            return [Definition(**row) for row in (await connection.execute(query)).mappings()]

    async def versions(self, project: str, name: str, *, before: int, most: int) -> list[Definition]:
        """Return the versions of a workflow, newest first, below a version (0 means from the newest)."""
        if not _may_exist(name):
            return []
        query = select(*_COLUMNS).select_from(_JOIN).where(_VERSION.project == project, _VERSION.name == name)
        if before:
            query = query.where(_VERSION.version < before)
        async with reading(self._engine) as connection:
            rows = (await connection.execute(query.order_by(_VERSION.version.desc()).limit(most))).mappings()
            return [Definition(**row) for row in rows]

    async def create(self, project: str, new: NewDefinition) -> tuple[Definition, bool]:
        """Store a workflow; return it and whether anything was written.

        Raises:
            AlreadyExistsError: If the name is taken by other content.
        """
        async with writing(self._engine) as connection:
            current = await self._lock(connection, project, new.name)
            if current is not None and not current["deleted"] and current["sha256"] != new.sha256:
                raise AlreadyExistsError(
                    f"workflow {new.name} exists with other content; update it instead "
                    f"(PUT, or `pixloom workflows apply`)"
                )
            changed = await self._write(connection, project, new, current)
        return await self.get(project, new.name), changed

    async def add_if_new(self, project: str, new: NewDefinition) -> None:
        """Store a workflow unless one of its name is there or was."""
        async with writing(self._engine) as connection:
            if await self._lock(connection, project, new.name) is None:
                await self._write(connection, project, new, None)

    async def update(
        self, project: str, new: NewDefinition, *, if_match: str, allow_missing: bool
    ) -> tuple[Definition, bool]:
        """Give a workflow new content; return it and whether there is a new version.

        Raises:
            NotFoundError: If it is missing and may not be created.
            VersionConflictError: If it is not at the version the caller named.
        """
        async with writing(self._engine) as connection:
            current = await self._lock(connection, project, new.name)
            missing = current is None or current["deleted"]
            if missing and not allow_missing:
                raise NotFoundError(f"there is no workflow {new.name}")
            if if_match and (current is None or current["sha256"] != if_match):
                raise VersionConflictError(f"workflow {new.name} is not at {if_match[:12]} any more; get it again")
            changed = await self._write(connection, project, new, current)
        return await self.get(project, new.name), changed

    async def delete(self, project: str, name: str, *, if_match: str) -> None:
        """Hide a workflow; its versions stay for the jobs that used them.

        Raises:
            NotFoundError: If there is none.
            VersionConflictError: If it is not at the version the caller named.
        """
        if not _may_exist(name):
            raise NotFoundError(f"there is no workflow {name}")
        async with writing(self._engine) as connection:
            current = await self._lock(connection, project, name)
            if current is None or current["deleted"]:
                raise NotFoundError(f"there is no workflow {name}")
            if if_match and current["sha256"] != if_match:
                raise VersionConflictError(f"workflow {name} is not at {if_match[:12]} any more; get it again")
            await connection.execute(
                tables.workflow.update()
                .where(_WORKFLOW.project == project, _WORKFLOW.name == name)
                .values(deleted=True)
            )

    @staticmethod
    async def _lock(connection: AsyncConnection, project: str, name: str) -> dict[str, Any] | None:
        # The advisory lock covers the case in which there is no row to lock yet.
        await connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 7))"), {"name": f"{project}/{name}"}
        )
        query = (
            select(_WORKFLOW.version, _WORKFLOW.deleted, _VERSION.sha256)
            .select_from(_JOIN)
            .where(_WORKFLOW.project == project, _WORKFLOW.name == name, _VERSION.version == _WORKFLOW.version)
        )
        row = (await connection.execute(query)).mappings().first()
        return dict(row) if row else None

    @staticmethod
    async def _write(
        connection: AsyncConnection, project: str, new: NewDefinition, current: dict[str, Any] | None
    ) -> bool:
        changed = current is None or current["sha256"] != new.sha256
        version = 1 if current is None else current["version"] + changed
        if changed:
            await connection.execute(
                tables.workflow_version.insert().values(
                    project=project,
                    name=new.name,
                    version=version,
                    sha256=new.sha256,
                    spec=new.spec,
                    description=new.description,
                    tags=new.tags,
                    notes=list(new.notes),
                )
            )
        values = {"version": version, "deleted": False}
        statement = insert(tables.workflow).values(project=project, name=new.name, **values)
        await connection.execute(statement.on_conflict_do_update(index_elements=["project", "name"], set_=values))
        return changed or bool(current and current["deleted"])

    async def ops(self) -> list[bytes]:
        """Return the ops announced so far, serialised pixloom.v1.Op messages."""
        async with reading(self._engine) as connection:
            return [bytes(row[0]) for row in await connection.execute(select(tables.op.c.spec))]

    async def announce_ops(self, specs: dict[str, bytes]) -> None:
        """Remember ops by name with version."""
        if not specs:
            return
        statement = insert(tables.op).values([{"name": name, "spec": spec} for name, spec in specs.items()])
        async with writing(self._engine) as connection:
            await connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["name"],
                    set_={"spec": statement.excluded.spec, "announce_time": text("clock_timestamp()")},
                )
            )


def _may_exist(name: str, version: int = 0) -> bool:
    """Return whether there can be such a name and version: the database takes neither NUL nor larger numbers."""
    return "\0" not in name and version <= _MAX_VERSION
