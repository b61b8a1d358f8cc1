"""Finds the rejected items of a job that are to be tried again, and where each of them lies in what its task read.

Manifests are read in threads, a page of attempts at a time; the loop only waits for them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from pixloom.artifacts.manifest import read_items, read_slice
from pixloom.errors import PixloomError
from pixloom.graph.plan import StageKind
from pixloom.v1 import executor_pb2, item_pb2
from pixloom_scheduler.core.changes import RetriedItems
from pixloom_scheduler.core.events import RejectsFound
from pixloom_scheduler.core.reasons import counted_as

if TYPE_CHECKING:
    from typing import Any

    from pixloom.artifacts.store import ArtifactStore
    from pixloom_scheduler.core.changes import RecoveryAccepted
    from pixloom_scheduler.core.model import JobRun, StageRun
    from pixloom_scheduler.inputs import InputReader
    from pixloom_scheduler.journal.reader import Reader
    from pixloom_scheduler.live import LiveJob

__all__ = ["RejectFinder"]

PAGE: Final = 500
_CARRIED: Final = 8
_RETRY_S: Final = 1.0


class RejectFinder:
    """Looks rejected items up."""

    def __init__(self, *, reader: Reader, inputs: InputReader, store: ArtifactStore) -> None:
        self._reader = reader
        self._inputs = inputs
        self._store = store
        self._log = structlog.get_logger("rejects")

    async def find(self, live: LiveJob) -> RejectsFound:
        """Return the items that a job's recovery asks for; waits for a store that does not answer."""
        run = live.run
        while True:
            try:
                found: list[RetriedItems] = []
                for stage in run.stages:
                    if run.recovery is not None and _has_wanted(run, stage, run.recovery):
                        found += await self._of_stage(live, stage, run.recovery)
                return RejectsFound(run.generation, tuple(found))
            except PixloomError as error:
                self._log.warning("rejects_unreadable", job=run.id, error=str(error)[:200])
                await asyncio.sleep(_RETRY_S)

    async def _of_stage(self, live: LiveJob, stage: StageRun, recovery: RecoveryAccepted) -> list[RetriedItems]:
        found: list[RetriedItems] = []
        after = 0
        while True:
            rows = await self._reader.outcomes(
                live.header.day, live.header.id, stage=stage.plan.index, since=stage.since, after=after, most=PAGE
            )
            for row in rows:
                items = await self._of_attempt(live, stage, row, recovery)
                if items is not None:
                    found.append(items)
            if len(rows) < PAGE:
                return found
            after = rows[-1]["seq"]

    async def _of_attempt(
        self, live: LiveJob, stage: StageRun, row: dict[str, Any], recovery: RecoveryAccepted
    ) -> RetriedItems | None:
        run, shard = live.run, int(row["shard"])
        rejects = item_pb2.Manifest()
        if row["payload"] is not None:
            rejects = executor_pb2.TaskResult.FromString(row["payload"]).rejects
        is_carried = bool(row["flags"] & _CARRIED)
        if not (is_carried or rejects.count):
            return None
        task = executor_pb2.Task(shard=shard)
        await self._inputs.fill(live, stage.plan.index, [task])
        places_of = {run.plan.nodes[node].id: place for place, node in enumerate(stage.plan.nodes)}
        subset = stage.shards.subsets.get(shard)
        taken = stage.retried.get(shard, frozenset())

        def work() -> RetriedItems | None:
            given = [item for part in task.inputs for item in read_slice(part, self._store)]
            if is_carried:
                reason = str(row["reason"] or "LOST")
                refused = [(tuple(item.ordinal), 0, reason) for item in given]
            else:
                refused = [
                    (tuple(item.ordinal), places_of[item.node], item.reason)
                    if item.state == item_pb2.ITEM_STATE_REJECTED and item.node in places_of
                    else ((), -1, "")
                    for item in read_items(rejects, self._store)
                ]
            index_of = {tuple(item.ordinal): index for index, item in enumerate(given)}
            chosen: list[tuple[int, int, int, str]] = []
            for number, (ordinal, place, reason) in enumerate(refused):
                # A stage ends behind an op that may make several items of one, so what is rejected is among what the task
                # read. Not so in a plan that was made before that rule, or by the word of an executor that does not say
                # which ops expand: an item made inside the stage cannot be tried alone and is left as it is.
                index = index_of.get(ordinal)
                if place < 0 or index is None or number in taken:
                    continue
                if recovery.nodes and stage.plan.nodes[place] not in recovery.nodes:
                    continue
                counted = counted_as(reason, run.nodes[stage.plan.nodes[place]].reasons)
                if recovery.reasons and reason not in recovery.reasons and counted not in recovery.reasons:
                    continue
                chosen.append((index if subset is None else subset[index], number, place, reason))
            if not chosen:
                return None
            chosen.sort()
            return RetriedItems(
                stage=stage.plan.index,
                shard=shard,
                indexes=tuple(index for index, _, _, _ in chosen),
                places=tuple(number for _, number, _, _ in chosen),
                rejected=tuple((place, reason) for _, _, place, reason in chosen),
            )

        return await asyncio.to_thread(work)


def _has_wanted(run: JobRun, stage: StageRun, recovery: RecoveryAccepted) -> bool:
    nodes = [node for node in stage.plan.nodes if not recovery.nodes or node in recovery.nodes]
    return stage.plan.kind is StageKind.MAPPED and any(run.nodes[node].rejected for node in nodes)
