"""Lists where the items of a node lie, without reading them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixloom.errors import NotFoundError
from pixloom.v1 import executor_pb2, item_pb2, job_pb2
from pixloom_scheduler.core.changes import GenerationOpened
from pixloom_scheduler.journal.rows import decode
from pixloom_scheduler.live import LiveJob
from pixloom_scheduler.stored_plans import plan_of

if TYPE_CHECKING:
    from typing import Any

    from pixloom.graph.plan import Plan
    from pixloom_scheduler.inputs import InputReader
    from pixloom_scheduler.journal.loader import Loader
    from pixloom_scheduler.journal.reader import Reader, StoredJob
    from pixloom_scheduler.replica import Replica

__all__ = ["ManifestLister"]

_CARRIED = 8


class ManifestLister:
    """Finds manifests in the journal."""

    def __init__(self, *, reader: Reader, loader: Loader, replica: Replica, inputs: InputReader) -> None:
        self._reader = reader
        self._loader = loader
        self._replica = replica
        self._inputs = inputs

    async def page(
        self, stored: StoredJob, node: str, *, states: frozenset[int], after: int, most: int
    ) -> tuple[list[job_pb2.NodeManifest], str]:
        """Return the next manifests of a node and the place behind them; empty at the end.

        Raises:
            NotFoundError: If the job has no such node.
        """
        plan = await plan_of(stored)
        found = [index for index, each in enumerate(plan.nodes) if each.id == node]
        if not found:
            raise NotFoundError(f"job {stored.id} has no node {node}")
        stage = plan.stages[plan.nodes[found[0]].stage]
        place = stage.nodes.index(found[0])
        later = [plan.nodes[index].id for index in stage.nodes[place + 1 :]]
        since, retries = _superseded(await self._reader.openings(stored.day, stored.id), stage.index)
        rows = await self._reader.outcomes(
            stored.day, stored.id, stage=stage.index, since=since, after=after, most=most
        )
        wants_ok = not states or item_pb2.ITEM_STATE_OK in states
        wants_rejects = not states or bool(states - {item_pb2.ITEM_STATE_OK}) or bool(later and wants_ok)
        manifests: list[job_pb2.NodeManifest] = []
        live: LiveJob | None = None
        for row in rows:
            retried = retries.get(row["shard"], ())
            if row["flags"] & _CARRIED and wants_rejects:
                live = live or await self._in_memory(stored)
                carried = await self._carried(live, plan, stage.index, row)
                carried.excluded.extend(retried)
                manifests.append(carried)
            if row["payload"] is None:
                continue
            payload = executor_pb2.TaskResult.FromString(row["payload"])
            output = self._output(payload, node)
            if wants_ok and output is not None and output.count:
                manifests.append(job_pb2.NodeManifest(manifest=output))
            if wants_rejects and payload.rejects.count:
                manifests.append(
                    job_pb2.NodeManifest(manifest=payload.rejects, rejects=True, later_nodes=later, excluded=retried)
                )
        return manifests, str(rows[-1]["seq"]) if len(rows) == most else ""

    @staticmethod
    def _output(payload: executor_pb2.TaskResult, node: str) -> item_pb2.Manifest | None:
        """Return the items behind a node: as kept there if they were, else as they came out of the stage."""
        for kept in payload.kept:
            if kept.node == node:
                return kept.items
        return payload.output if payload.HasField("output") else None

    async def _in_memory(self, stored: StoredJob) -> LiveJob:
        """Return a job with its shards; one that has left memory is read for this alone."""
        live = self._replica.find(stored.id)
        if live is not None:
            return live
        loaded = await self._loader.load(stored.id)
        if loaded is None:
            raise NotFoundError(f"there is no job {stored.id}")
        return LiveJob(loaded.header, loaded.run)

    async def _carried(self, live: LiveJob, plan: Plan, stage: int, row: dict[str, object]) -> job_pb2.NodeManifest:
        """Return the inputs of a task that was rejected unexecuted."""
        task = executor_pb2.Task(shard=int(str(row["shard"])))
        await self._inputs.fill(live, stage, [task])
        count = sum(len(part.indexes) or part.count for part in task.inputs)
        carried = item_pb2.Carried(
            inputs=task.inputs,
            state=item_pb2.ITEM_STATE_REJECTED,
            reason=str(row["reason"] or "LOST"),
            detail=str(row["detail"] or ""),
            node=plan.nodes[plan.stages[stage].nodes[0]].id,
        )
        return job_pb2.NodeManifest(manifest=item_pb2.Manifest(count=count, carried=carried), rejects=True)


def _superseded(openings: list[dict[str, Any]], stage: int) -> tuple[int, dict[int, list[int]]]:
    """Return from which generation on a stage's attempts count, and by shard the places of rejects tried again since."""
    since, retries = 1, dict[int, list[int]]()
    for row in openings:
        opened = decode(row)
        if not isinstance(opened, GenerationOpened):
            continue
        if stage in opened.reset:
            since, retries = row["generation"], {}
        for items in opened.retried:
            if items.stage == stage:
                retries.setdefault(items.shard, []).extend(items.places)
    return since, retries
