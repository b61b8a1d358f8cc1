"""The outcomes of a task's items, added up into its result."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pixloom.v1 import executor_pb2 as pb
from pixloom.v1 import item_pb2, job_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pixloom.sdk.op import Retry
    from pixloom_executor.binding import BoundCall
    from pixloom_executor.item_chain import ItemOutcome
    from pixloom_executor.storing import RecordingStore

__all__ = ["Tally"]


class Tally:
    """Adds up what became of the items of one task."""

    __slots__ = ("_calls", "_kept", "_output", "_outputs", "_passed", "_rejects", "_retries", "_seen", "_spent_ns")

    def __init__(self, calls: Sequence[BoundCall]) -> None:
        self._calls = calls
        self._passed = [0] * len(calls)
        self._spent_ns = [0] * len(calls)
        self._outputs: list[item_pb2.Item] = []
        self._output: item_pb2.Manifest | None = None
        self._rejects: list[item_pb2.Item] = []
        self._kept: dict[int, list[item_pb2.Item]] = {}
        self._retries: list[tuple[int, Retry]] = []
        self._seen = 0

    def add(self, index: int, outcome: ItemOutcome) -> None:
        """Add the outcome of the input item `index`."""
        self._seen += 1
        for number, spent_ns in outcome.spent:
            self._spent_ns[number] += spent_ns
        if outcome.retry is not None:
            self._retries.append((index, outcome.retry))
            return
        for number in outcome.passed:
            self._passed[number] += 1
        self._outputs += outcome.outputs
        self._rejects += outcome.rejects
        for number, item in outcome.kept:
            self._kept.setdefault(number, []).append(item)

    @property
    def is_ordinary(self) -> bool:
        """Whether there are items, all of which passed every op, and nothing else is to be told."""
        passed = len(self._outputs)
        return bool(
            passed
            and not (self._rejects or self._retries or self._kept)
            and self._passed.count(passed) == len(self._passed)
        )

    def output(self, store: RecordingStore) -> item_pb2.Manifest:
        """Return the manifest of the items behind the last op, after the last of them was added."""
        if self._output is None:
            self._output = store.put_items(self._outputs)
        return self._output

    @property
    def spent_ns(self) -> Sequence[int]:
        """Nanoseconds spent in each op."""
        return self._spent_ns

    def write(self, result: pb.TaskResult, store: RecordingStore) -> None:
        """Write the sum into a result."""
        result.outcome = job_pb2.ATTEMPT_OUTCOME_OK
        if self._retries:
            self._write_retries(result)
            if result.outcome == job_pb2.ATTEMPT_OUTCOME_FAILED:
                return
        for call, passed, spent_ns in zip(self._calls, self._passed, self._spent_ns, strict=True):
            counts = result.counts.add(node=call.node, ok=passed)
            counts.elapsed.seconds, counts.elapsed.nanos = divmod(spent_ns, 1_000_000_000)
        if self._rejects:
            self._count_rejects(result)
            result.rejects.CopyFrom(store.put_items(self._rejects))
        if self._outputs:
            result.output.CopyFrom(self.output(store))
        for number, items in sorted(self._kept.items()):
            result.kept.add(node=self._calls[number].node).items.CopyFrom(store.put_items(items))

    def _write_retries(self, result: pb.TaskResult) -> None:
        first = self._retries[0][1]
        result.reason = first.reason[:128]
        result.detail = f"{len(self._retries)} of {self._seen} items are tried again; the first: {first.detail}"[:1000]
        result.retryable = True
        after_s = max((retry.after_s or 0.0 for _, retry in self._retries), default=0.0)
        if after_s:
            result.retry_after.FromNanoseconds(int(after_s * 1e9))
        if len(self._retries) == self._seen:
            result.outcome = job_pb2.ATTEMPT_OUTCOME_FAILED
        else:
            result.outcome = job_pb2.ATTEMPT_OUTCOME_PARTIAL
            result.retry_indexes.extend(index for index, _ in self._retries)

    def _count_rejects(self, result: pb.TaskResult) -> None:
        by_node = {call.node: counts for call, counts in zip(self._calls, result.counts, strict=True)}
        tally = Counter((item.node, item.state, item.reason) for item in self._rejects)
        for (node, state, reason), number in tally.items():
            counts = by_node[node]
            chosen = counts.filtered if state == item_pb2.ITEM_STATE_FILTERED else counts.rejected
            chosen[reason] = number
