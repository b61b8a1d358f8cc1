"""An executor for tests that own a replica: claims whatever is ready and reports what a seed decides."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pixloom.graph.plan import StageKind
from pixloom.v1 import executor_pb2, item_pb2
from pixloom_scheduler.core.changes import NodeTally, RetriedItems, TasksGranted, TasksOffered
from pixloom_scheduler.core.events import (
    BackoffEnded,
    DispatchFilled,
    NodeResolved,
    RejectsFound,
    Result,
    TasksClaimed,
    TasksReported,
)
from pixloom_scheduler.core.states import Outcome

if TYPE_CHECKING:
    import random

    from pixloom_scheduler.core.model import StageRun
    from pixloom_scheduler.live import LiveJob
    from pixloom_scheduler.replica import Replica

__all__ = ["Answering"]

PAGES = 2


class Answering:
    """Runs jobs of one replica.

    Args:
        replica: The replica; its loop must be running.
        rng: Decides what comes out.
        fails: How often an attempt fails, 0 to 1.
    """

    def __init__(self, replica: Replica, rng: random.Random, *, fails: float = 0.0) -> None:
        self._replica = replica
        self._rng = rng
        self._fails = fails
        self.ran: list[tuple[int, int]] = []
        """Stage and shard of every attempt that was made."""

    async def finish(self, live: LiveJob, *, most_reports: int = 10_000) -> None:
        """Work until a job has ended, or that many reports have been made."""
        while most_reports and not live.run.state.is_terminal:
            if await self._work(live):
                most_reports -= 1
            else:
                await asyncio.sleep(0.001)
        while live.run.seq != live.committed_seq:
            await live.news.wait()

    async def _work(self, live: LiveJob) -> bool:
        run = live.run
        if run.asks_rejects and run.recovery is not None:
            await self._replica.report(run.id, RejectsFound(run.generation, self._rejects(live)))
            return False
        for stage in run.stages:
            if stage.resolving:
                await self._replica.report(run.id, NodeResolved(stage.plan.index, run=True, generation=run.generation))
                return False
            dues = tuple(shard for shard, task in stage.tasks.items() if task.due)
            if dues:
                self._replica.handle_now(live, BackoffEnded(stage.plan.index, dues))
            granted = self._grant(live, stage) if stage.has_ready else None
            if granted is not None:
                results = tuple(self._result(stage, shard, attempt) for shard, attempt in granted.tasks)
                self.ran += [(stage.plan.index, result.shard) for result in results]
                await self._replica.report(run.id, TasksReported(granted.lease, results))
                return True
        return False

    def _grant(self, live: LiveJob, stage: StageRun) -> TasksGranted | None:
        index, generation = stage.plan.index, live.run.generation
        for change in self._replica.handle_now(live, DispatchFilled(index, self._rng.randint(1, 3))):
            if isinstance(change, TasksOffered) and change.shards:
                keys = tuple((shard, stage.tasks[shard].attempt) for shard in change.shards)
                claim = TasksClaimed("x", generation, index, keys, lambda _: b"token")
                (granted,) = self._replica.handle_now(live, claim)
                assert isinstance(granted, TasksGranted)
                return granted
        return None

    def _result(self, stage: StageRun, shard: int, attempt: int) -> Result:
        rng = self._rng
        times: dict[str, Any] = {"start": 1_700_000_000.25, "end": 1_700_000_001.5}
        if rng.random() < self._fails:
            return Result(shard, attempt, Outcome.FAILED, "STORE_ERROR", "no answer", retryable=True, **times)
        items = rng.randint(1, 7) if stage.plan.kind is not StageKind.MAPPED else stage.shards.items_of(shard)
        more: dict[str, Any] = {}
        rejected = 0
        if stage.plan.kind is StageKind.SOURCE:
            more = {"cursor": "c"} if shard < PAGES - 1 else {"end_of_source": True}
        elif stage.plan.kind is StageKind.MAPPED:
            rejected = sum(rng.random() < 0.2 for _ in range(items))
            tallies, left = [], items
            for place in range(len(stage.plan.nodes)):
                bad = rejected if place == 0 else 0
                left -= bad
                tallies.append(NodeTally(left, 0, bad, {"TRUNCATED": bad} if bad else None))
            more = {"tallies": tuple(tallies)}
        else:
            more = {"value": {"items": items}, "has_value": True}
        out = 0 if stage.plan.kind is StageKind.WHOLE else items - rejected
        payload = _payload(f"{stage.plan.index}.{shard}", out)
        return Result(shard, attempt, Outcome.OK, items_out=out, payload=payload, **more, **times)

    def _rejects(self, live: LiveJob) -> tuple[RetriedItems, ...]:
        """Return one item of each stage that rejected some, as if it had been the first of its shard."""
        found = []
        for stage in live.run.stages:
            first = live.run.nodes[stage.plan.nodes[0]]
            if stage.plan.kind is StageKind.MAPPED and first.rejected and sum(stage.shards.ended):
                shard = stage.shards.ended.index(1)
                place, reason = len(stage.retried.get(shard, ())), next(iter(first.reasons))
                found.append(RetriedItems(stage.plan.index, shard, (0,), (place,), ((0, reason),)))
        return tuple(found)


def _payload(place: str, count: int) -> bytes:
    items = [item_pb2.Item(key=f"{place}.{number}", ordinal=[number]) for number in range(count)]
    inline = item_pb2.ItemBatch(items=items).SerializeToString()
    return executor_pb2.TaskResult(output=item_pb2.Manifest(count=count, inline=inline)).SerializeToString()
