"""Composes the message of a dispatch."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import orjson
from google.protobuf.duration_pb2 import Duration

from pixloom.graph.catalogue import OpKind
from pixloom.graph.plan import OnError, StageKind
from pixloom.v1 import executor_pb2, op_pb2
from pixloom_scheduler.core.policy import deadline_s
from pixloom_scheduler.traces import MAX_TRACED_TASKS, is_sampled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pixloom_scheduler.clock import DatabaseClock
    from pixloom_scheduler.core.model import JobRun, StageRun
    from pixloom_scheduler.inputs import InputReader
    from pixloom_scheduler.live import LiveJob
    from pixloom_scheduler.traces import Traces

__all__ = ["MessageComposer"]

MOST_PARAMS_BYTES: Final = 256 * 1024
"""Bytes of params in one message about siblings, beyond which the others go in the next one."""

_ON_ERROR = {
    OnError.QUARANTINE: executor_pb2.ON_ERROR_QUARANTINE,
    OnError.SKIP: executor_pb2.ON_ERROR_SKIP,
    OnError.FAIL: executor_pb2.ON_ERROR_FAIL,
}
_KIND = {
    OpKind.SOURCE: op_pb2.OP_KIND_SOURCE,
    OpKind.ITEM: op_pb2.OP_KIND_ITEM,
    OpKind.COLLECTION: op_pb2.OP_KIND_COLLECTION,
    OpKind.VALUE: op_pb2.OP_KIND_VALUE,
}


@lru_cache(maxsize=1024)
def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1e6))
    return duration


class MessageComposer:
    """Makes a `LeaseBatch` of tasks of one stage."""

    def __init__(
        self,
        *,
        inputs: InputReader,
        traces: Traces,
        clock: DatabaseClock,
        address: str,
        epoch_of: Callable[[int], int],
        read_columns: Callable[[str], bool],
    ) -> None:
        self._inputs = inputs
        self._traces = traces
        self._clock = clock
        self._address = address
        self._epoch_of = epoch_of
        self._read_columns = read_columns

    async def compose(
        self, live: LiveJob, stage_index: int, shards: tuple[int, ...], *, dispatch_id: str
    ) -> executor_pb2.LeaseBatch:
        """Return the message."""
        start = self._clock.now()
        run = live.run
        stage = run.stages[stage_index]
        tasks: list[executor_pb2.Task] = []
        ordinary: executor_pb2.OrdinaryTasks | None = None
        if self._are_ordinary(stage, shards):
            ordinary = await self._inputs.ordinary(live, stage_index, shards)
        else:
            tasks = [self._task(run, stage_index, shard) for shard in shards]
            await self._inputs.fill(live, stage_index, tasks)
        traced = len(stage.shards) <= MAX_TRACED_TASKS and is_sampled(live.header.trace_context)
        context: dict[str, str] = {}
        if traced:
            context = self._traces.dispatched(
                live, stage_index, dispatch_id=dispatch_id, tasks=len(shards), start=start, end=self._clock.now()
            )
        items = max([stage.shards.items_of(shard) for shard in shards], default=1)
        batch = self._batch(live, stage_index, self._calls(run, stage_index), dispatch_id=dispatch_id, items=items)
        if ordinary is None:
            batch.tasks.extend(tasks)
        else:
            batch.ordinary.CopyFrom(ordinary)
        if traced:
            batch.trace_context.update(context)
            batch.trace_tasks = True
        return batch

    def compose_siblings(self, live: LiveJob, stages: Sequence[int], *, dispatch_id: str) -> executor_pb2.LeaseBatch:
        """Return the message about the only tasks of stages that are siblings; of fewer if it would be very large."""
        start = self._clock.now()
        run, header = live.run, live.header
        calls = self._calls(run, stages[0])
        traced = is_sampled(header.trace_context)
        siblings: list[executor_pb2.SiblingTask] = []
        size = 0
        for index in stages:
            (node,) = run.stages[index].plan.nodes
            # As they are written: 1, 1.0 and true are equal.
            params_json = orjson.dumps(self._params(run, node))
            sibling = executor_pb2.SiblingTask(stage=index, node=run.plan.nodes[node].id)
            if params_json != calls[0].params_json:
                sibling.params_json = params_json
                size += len(params_json)
                if size > MOST_PARAMS_BYTES and siblings:
                    break
            if traced:
                context = self._traces.dispatched(
                    live, index, dispatch_id=f"{dispatch_id}.{index}", tasks=1, start=start, end=self._clock.now()
                )
                sibling.traceparent = context.get("traceparent", "")
            siblings.append(sibling)
        batch = self._batch(live, stages[0], calls, dispatch_id=dispatch_id, items=1)
        batch.siblings.extend(siblings)
        if traced:
            batch.trace_context.update(self._traces.of_job(live))
            batch.trace_tasks = True
        return batch

    def _batch(
        self, live: LiveJob, stage_index: int, calls: list[executor_pb2.OpCall], *, dispatch_id: str, items: int
    ) -> executor_pb2.LeaseBatch:
        """Return a message without tasks.

        Args:
            live: The job.
            stage_index: The stage.
            calls: What it runs.
            dispatch_id: Id of the dispatch.
            items: Most items in one of the tasks.
        """
        run, header = live.run, live.header
        stage = run.stages[stage_index]
        return executor_pb2.LeaseBatch(
            dispatch_id=dispatch_id,
            project=header.project,
            job_id=header.id,
            generation=run.generation,
            stage=stage_index,
            kind=_KIND[run.plan.nodes[stage.plan.nodes[0]].kind],
            calls=calls,
            deadline=_duration(deadline_s(run, stage, items)),
            owner_address=self._address,
            owner_epoch=self._epoch_of(header.partition),
            partition=header.partition,
        )

    def _are_ordinary(self, stage: StageRun, shards: tuple[int, ...]) -> bool:
        """Return whether tasks can go as columns: to executors that read them, whole shards, not for the last time."""
        if stage.plan.kind is not StageKind.MAPPED or not self._read_columns(stage.plan.pool):
            return False
        subsets, tasks, most = stage.shards.subsets, stage.tasks, stage.plan.retry.max_attempts
        return not any(
            shard in subsets or ((task := tasks.get(shard)) is not None and task.failures + 1 >= most)
            for shard in shards
        )

    @staticmethod
    def _task(run: JobRun, stage_index: int, shard: int) -> executor_pb2.Task:
        stage = run.stages[stage_index]
        task = stage.tasks.get(shard)
        if task is None:
            return executor_pb2.Task(shard=shard, attempt=1)
        return executor_pb2.Task(
            shard=shard,
            attempt=task.attempt,
            cursor=task.cursor,
            last_attempt=task.failures + 1 >= stage.plan.retry.max_attempts,
            first_ordinal=stage.next_ordinal,
        )

    @staticmethod
    def _params(run: JobRun, node: int) -> dict[str, Any]:
        params = run.nodes[node].params
        return run.plan.nodes[node].params if params is None else params

    def _calls(self, run: JobRun, stage_index: int) -> list[executor_pb2.OpCall]:
        calls = []
        for index in run.stages[stage_index].plan.nodes:
            plan = run.plan.nodes[index]
            calls.append(
                executor_pb2.OpCall(
                    node=plan.id,
                    op=plan.op,
                    params_json=orjson.dumps(self._params(run, index)),
                    on_error=_ON_ERROR[plan.on_error],
                    timeout=_duration(plan.timeout_s),
                    deliver=plan.deliver,
                    feeds_pixels=plan.feeds_pixels,
                    limits=executor_pb2.Limits(**plan.limits) if plan.limits else None,
                )
            )
        return calls
