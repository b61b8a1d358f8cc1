"""Learns what ops cost, so that batches and shards hold about the right amount of work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pixloom.v1 import job_pb2

if TYPE_CHECKING:
    from pixloom.v1 import executor_pb2
    from pixloom_scheduler.core.model import JobRun

__all__ = ["CostModel"]

WEIGHT: Final = 0.3
SAMPLE: Final = 32
"""Results of a report that are looked at, at most; others say the same."""

MIN_S: Final = 1e-6
_TELLING: Final = frozenset((job_pb2.ATTEMPT_OUTCOME_OK, job_pb2.ATTEMPT_OUTCOME_PARTIAL))


class CostModel:
    """Moving averages of seconds an item by op. Volatile: after a restart it is learned again from the hints."""

    def __init__(self, costs: dict[str, float]) -> None:
        self.costs = costs

    def learn(self, run: JobRun, report: executor_pb2.Report) -> None:
        """Take in the times of one report; tasks that were ended or went wrong tell nothing of what the others cost."""
        nodes = run.stages[report.stage].plan.nodes
        elapsed = [0.0] * len(nodes)
        items = [0] * len(nodes)
        if len(report.ordinary.elapsed_ns) == len(nodes):
            elapsed = [spent / 1e9 for spent in report.ordinary.elapsed_ns]
            items = [sum(report.ordinary.items)] * len(nodes)
        results = report.results
        for result in results[:: len(results) // SAMPLE + 1]:
            if result.outcome not in _TELLING:
                continue
            if result.counts:
                for place, counts in enumerate(result.counts[: len(nodes)]):
                    elapsed[place] += counts.elapsed.seconds + counts.elapsed.nanos / 1e9
                    items[place] += counts.ok + sum(counts.filtered.values()) + sum(counts.rejected.values())
            elif len(nodes) == 1:
                start, end = result.start_time, result.end_time
                elapsed[0] += max(0.0, end.seconds - start.seconds + (end.nanos - start.nanos) / 1e9)
                items[0] += 1
        for place, node in enumerate(nodes):
            if items[place] and elapsed[place] > 0:
                self._mix(run.plan.nodes[node].op, elapsed[place] / items[place])

    def _mix(self, op: str, item_s: float) -> None:
        known = self.costs.get(op)
        self.costs[op] = max(MIN_S, item_s if known is None else known + WEIGHT * (item_s - known))
