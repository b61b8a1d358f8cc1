"""One batch on its way through children, and who is to blame when one is lost.

An item that a child was on when it died or hung is suspect. The first time it runs again, alone in a fresh child and
before everything else; the second time it is rejected and not run any more. Everything that has been reported stays;
tasks that were not reported run again.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from pixloom.batches import keep_tasks, node_of, task_count, task_keys
from pixloom.v1 import executor_pb2 as pb
from pixloom.v1 import job_pb2
from pixloom_executor.children.frames import RunFrame
from pixloom_executor.item_chain import Verdict
from pixloom_executor.ordinary import rows_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from pixloom_executor.marker import Position

__all__ = ["BatchRun"]

_MOST_LOSSES: Final = 2
_NO_LIMIT_NS: Final = 60 * 10**9


class BatchRun:
    """A batch that was handed to the pool.

    Args:
        batch: The batch.
        deliver: Takes each result, once.
        deliver_ordinary: Takes ordinary results, many at a time; None if `deliver` is to take each.
        done: Set when every task has a result.
        urgent: Whether it goes ahead of batches that are not, also of one that has begun.
    """

    def __init__(
        self,
        *,
        batch: pb.LeaseBatch,
        deliver: Callable[[pb.TaskResult], None],
        done: asyncio.Future[None],
        urgent: bool = False,
        deliver_ordinary: Callable[[pb.OrdinaryResults], None] | None = None,
    ) -> None:
        self.batch = batch
        self.done = done
        self.urgent = urgent
        self.number = 0
        self.sent_s = 0.0
        self.cancelled = False
        self.stopping = False
        # Asked to let an urgent one go first; and whether it has done so without getting on since.
        self.is_yielding = False
        self.has_yielded = False
        self._deliver = deliver
        self._deliver_ordinary = deliver_ordinary
        # Attempts by shard.
        self._pending = dict(task_keys(batch))
        self._sent: list[int] = []
        self._alone: dict[int, list[int]] = {}
        self._verdicts: dict[int, dict[int, Verdict]] = {}
        self._losses: Counter[tuple[int, int | None]] = Counter()
        self._failed_starts = 0
        self.deadline_ns = batch.deadline.ToNanoseconds()
        limits = [call.timeout.ToNanoseconds() for call in batch.calls]
        self.shortest_limit_ns = min((limit for limit in (*limits, self.deadline_ns) if limit), default=_NO_LIMIT_NS)

    @property
    def has_pending(self) -> bool:
        """Whether a task has no result yet."""
        return bool(self._pending)

    def frame(self, number: int) -> RunFrame:
        """Return what to send to a child: the tasks without result, under a new number."""
        self.number = number
        self._sent = list(self._pending)
        batch = self.batch
        if len(self._pending) != task_count(batch):
            batch = pb.LeaseBatch()
            batch.CopyFrom(self.batch)
            keep_tasks(batch, self._pending)
        return RunFrame(
            number=number,
            batch=batch,
            alone=self._alone,
            verdicts=self._verdicts,
            columns=self._deliver_ordinary is not None,
        )

    def take(self, results: Iterable[pb.TaskResult]) -> None:
        """Deliver results of tasks that have none yet."""
        for result in results:
            if self._pending.pop(result.shard, None) is not None:
                self._deliver(result)

    def take_ordinary(self, results: pb.OrdinaryResults) -> None:
        """Deliver ordinary results of tasks that have none yet."""
        pending = self._pending
        places = [place for place, shard in enumerate(results.shards) if pending.pop(shard, None) is not None]
        if places and self._deliver_ordinary is not None:
            self._deliver_ordinary(results if len(places) == len(results.shards) else rows_of(results, places))

    def take_failed(self, shards: Iterable[int], *, reason: str, detail: str) -> None:
        """Deliver failures in place of results that could not be made durable."""
        for shard in shards:
            failed = self._ended(shard, job_pb2.ATTEMPT_OUTCOME_FAILED, reason, detail, 0)
            failed.retryable = True
            self.take([failed])

    def cancel_pending(self, *, after: int | None = None) -> None:
        """Give every task without result the outcome CANCELLED, or those behind the place `after` of what was sent."""
        for shard in list(self._pending) if after is None else self._sent[after + 1 :]:
            if shard not in self._pending:
                continue
            self.take(
                [self._ended(shard, job_pb2.ATTEMPT_OUTCOME_CANCELLED, "CANCELLED", "ended before it was finished", 0)]
            )

    def blame(self, position: Position, reason: str, detail: str) -> None:
        """Note what a child was doing when it was lost.

        Args:
            position: What it was doing in this batch.
            reason: CRASHED, TIMEOUT or OUT_OF_MEMORY.
            detail: How it ended, for people.
        """
        if position.task >= len(self._sent) or self._sent[position.task] not in self._pending:
            return
        shard = self._sent[position.task]
        if position.in_op and position.item is not None:
            self._blame_item(shard, position, reason, detail)
            return
        if position.in_op:
            node = node_of(self.batch, shard, position.call)
            failed = self._ended(
                shard,
                job_pb2.ATTEMPT_OUTCOME_FAILED,
                reason,
                f"node {node}: the process {detail}",
                position.task_start_ns,
            )
            failed.retryable = True
            self.take([failed])
            return
        self._losses[shard, None] += 1
        if self._losses[shard, None] >= _MOST_LOSSES:
            self.take(
                [
                    self._ended(
                        shard,
                        job_pb2.ATTEMPT_OUTCOME_LOST,
                        reason,
                        f"outside of any op the process {detail}",
                        position.task_start_ns,
                    )
                ]
            )

    def blame_start(self, reason: str, detail: str) -> None:
        """Note that a child was lost before it took up any task; the second time all tasks are LOST, for others to try.

        Args:
            reason: CRASHED or OUT_OF_MEMORY.
            detail: How it ended, for people.
        """
        self._failed_starts += 1
        if self._failed_starts < _MOST_LOSSES:
            return
        text = f"before it took up a task the process {detail}"
        self.take([self._ended(shard, job_pb2.ATTEMPT_OUTCOME_LOST, reason, text, 0) for shard in self._pending])

    def _blame_item(self, shard: int, position: Position, reason: str, detail: str) -> None:
        item = position.item
        assert item is not None  # noqa: S101 - checked by the caller
        self._losses[shard, item] += 1
        if self._losses[shard, item] < _MOST_LOSSES:
            self._alone.setdefault(shard, []).insert(0, item)
            return
        self._alone[shard] = [index for index in self._alone.get(shard, []) if index != item]
        text = f"twice, the process that worked on the item {detail}"
        self._verdicts.setdefault(shard, {})[item] = Verdict(position.call, reason, text)

    def _ended(
        self, shard: int, outcome: job_pb2.AttemptOutcome.ValueType, reason: str, detail: str, start_ns: int
    ) -> pb.TaskResult:
        now_ns = time.time_ns()
        began_ns = now_ns - (time.monotonic_ns() - start_ns) if start_ns else now_ns
        result = pb.TaskResult(
            shard=shard, attempt=self._pending.get(shard, 0), outcome=outcome, reason=reason, detail=detail
        )
        result.start_time.FromNanoseconds(began_ns)
        result.end_time.FromNanoseconds(now_ns)
        return result
