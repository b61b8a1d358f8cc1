"""Reads the simulated PostgreSQL as the scheduler's loader and reader read the real one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pixloom.graph.plan_codec import plan_from_json
from pixloom_scheduler.core.apply import apply
from pixloom_scheduler.core.model import JobRun
from pixloom_scheduler.journal.loader import LoadedJob, header_of
from pixloom_scheduler.journal.rows import decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pixloom_scheduler.live import LiveJob
    from tests.simulation.database import SimulatedDatabase, Tables

__all__ = ["SimulatedLoader", "SimulatedReader", "replay"]

_ATTEMPT = 7
_ENDS_SHARD = 1


def replay(tables: Tables, job_id: str, *, rows: bool = True) -> LoadedJob | None:
    """Return a job as the committed rows tell it, or as it was before the first of them."""
    row: Any = tables.jobs.get(job_id)
    if row is None:
        return None
    header = header_of(row)
    run = JobRun.of(header.id, header.partition, plan_from_json(row["plan"]), priority=header.priority)
    for entry in sorted(tables.journal.get(job_id, []) if rows else [], key=lambda entry: entry["seq"]):
        apply(run, [decode(entry)], time=entry["time"].timestamp())
    run.unsettled.update(range(len(run.stages)))
    return LoadedJob(header, run)


class SimulatedLoader:
    """Loads jobs."""

    def __init__(self, database: SimulatedDatabase) -> None:
        self._database = database

    async def pending(self, partitions: Sequence[int]) -> list[str]:
        """Return the unfinished jobs of `partitions`, those with the shortest journals first."""
        await asyncio.sleep(self._database.world.latency() * 20)
        tables = self._database.tables
        found = [
            job_id for job_id, row in tables.jobs.items() if row["partition"] in partitions and row["end_time"] is None
        ]
        return sorted(found, key=lambda job_id: (len(tables.journal.get(job_id, ())), job_id))

    async def load(self, job_id: str) -> LoadedJob | None:
        """Return one job, or None."""
        await asyncio.sleep(self._database.world.latency())
        return replay(self._database.tables, job_id)


class SimulatedReader:
    """Reads payloads of ended attempts."""

    def __init__(self, database: SimulatedDatabase) -> None:
        self._database = database

    async def _attempts(self, live: LiveJob, stage: int) -> list[dict[str, Any]]:
        since = live.run.stages[stage].since
        await asyncio.sleep(self._database.world.latency())
        found = [
            row
            for row in self._database.tables.journal.get(live.header.id, [])
            if row["kind"] == _ATTEMPT
            and row["stage"] == stage
            and row["generation"] >= since
            and row["payload"] is not None
        ]
        return sorted(found, key=lambda row: row["seq"])

    async def payloads(self, live: LiveJob, stage: int, shards: Iterable[int]) -> list[tuple[int, int, bytes]]:
        """Return journal number, shard and payload of the attempts that gave the outputs of `shards`."""
        wanted = set(shards)
        rows = await self._attempts(live, stage)
        found = [row for row in rows if row["flags"] & _ENDS_SHARD and row["items_out"] and row["shard"] in wanted]
        return [(row["seq"], row["shard"], row["payload"]) for row in found]

    async def payload_page(self, live: LiveJob, stage: int, *, after: int, most: int) -> list[tuple[int, int, bytes]]:
        """Return journal number, shard and payload of the next attempts of a stage that gave items."""
        rows = await self._attempts(live, stage)
        found = [row for row in rows if row["seq"] > after and row["items_out"]]
        return [(row["seq"], row["shard"], row["payload"]) for row in found[:most]]
