"""When a job will probably end, from what its ops cost and how fast it has been so far.

The work that is left is counted in seconds of one slot: for each stage, the items still to come times the seconds an
item takes (`costs`, the moving average of every op, its hint before it ever ran). Items still to come into a stage are
those its producers have given or are expected to give: one for each of theirs, and for a source what it has given.

Work of mapped stages is done by all slots of a pool together. It is divided by the job's own rate (work done so far by
time passed) once a second of work has been done, and by the slots before: so other jobs, overhead and rejects count as
they are. Collection and value ops run one at a time; the longest path of them is added. A node that the author gave an
`estimated_duration_s` counts with that until it has begun.

Nothing is estimated while a job is not RUNNING, while a source with an unknown end has given nothing, or while a stage
that has not ended is of a pool that no executor serves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixloom.graph.plan import StageKind
from pixloom_scheduler.core.states import JobState
from pixloom_scheduler.core.view import items_seen
from pixloom_scheduler.turns import stage_item_s

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pixloom_scheduler.core.model import JobRun, StageRun

__all__ = ["Estimates", "Outlook"]

RATE_AFTER_S = 1.0
"""Seconds of work after which the job's own rate is believed."""


class Outlook:
    """What is expected of one job.

    Attributes:
        left_s: Seconds until its end; None if that cannot be known.
        stages_s: Seconds each stage takes in all from its start, where that can be told.
    """

    __slots__ = ("left_s", "stages_s")

    def __init__(self, left_s: float | None, stages_s: dict[int, float]) -> None:
        self.left_s = left_s
        self.stages_s = stages_s


class Estimates:
    """Works out what is expected; computed when somebody reads.

    Args:
        costs: Seconds an item by op, as learned so far.
        slots: Returns the slots of a pool.
    """

    def __init__(self, *, costs: Mapping[str, float], slots: Callable[[str], int]) -> None:
        self._costs = costs
        self._slots = slots

    def of(self, run: JobRun, *, now: float) -> Outlook:
        """Return what is expected of a job.

        Args:
            run: The job.
            now: Seconds on the database's clock.
        """
        if run.state is not JobState.RUNNING or run.cancelling is not None or not run.start:
            return Outlook(None, {})
        given: list[float] = []
        paths: list[float] = []
        stages_s: dict[int, float] = {}
        together_s = done_s = alone_s = 0.0
        known = True
        slots_of: dict[str, int] = {}
        for index, stage in enumerate(run.stages):
            pool = stage.plan.pool
            slots = slots_of[pool] if pool in slots_of else slots_of.setdefault(pool, self._slots(pool))
            known = known and (stage.ended or slots > 0)
            slots = max(1, slots)
            item_s = stage_item_s(run, index, self._costs)
            coming = sum(given[edge.producer] for edge in stage.plan.inputs)
            seen = items_seen(run, stage) if stage.plan.kind is not StageKind.WHOLE else 0
            # What it came after has ended as well, if it has.
            before = 0.0 if stage.ended else max((paths[other] for other in _before(run, stage)), default=0.0)
            path_s, work_s = 0.0, 0.0
            if stage.plan.kind is StageKind.MAPPED:
                if not (stage.ended and run.nodes[stage.plan.nodes[-1]].end < run.start):
                    # What was taken over from another job says nothing about how fast this one is.
                    done_s += seen * item_s
                work_s = max(0.0, coming - seen) * item_s
                given.append(stage.items_out if stage.ended else stage.items_out + max(0.0, coming - seen))
                stages_s[index] = max(coming, seen) * item_s / slots
            elif stage.plan.kind is StageKind.SOURCE:
                known = known and (stage.ended or bool(stage.items_out) or not stage.consumers)
                given.append(stage.items_out)
            else:
                path_s = 0.0 if stage.ended else self._whole_s(run, stage, item_s, now)
                given.append(stage.items_out if stage.ended else coming)
                stages_s[index] = path_s or item_s
            author_s = _author_s(run, stage)
            if author_s:
                stages_s[index] = author_s
            if author_s and not stage.ended and not any(run.nodes[node].begun for node in stage.plan.nodes):
                path_s, work_s = author_s, 0.0
            if not stage.ended:
                together_s += work_s / slots
                alone_s += work_s
            paths.append(before + path_s)
        if not known:
            return Outlook(None, stages_s)
        passed_s = max(now - run.start, 1e-3)
        bulk_s = alone_s * passed_s / done_s if done_s > RATE_AFTER_S else together_s
        return Outlook(bulk_s + max(paths, default=0.0), stages_s)

    @staticmethod
    def _whole_s(run: JobRun, stage: StageRun, item_s: float, now: float) -> float:
        """Return the seconds that a stage which runs once still takes; at least a tenth of the whole."""
        start = run.nodes[stage.plan.nodes[0]].begun
        return max(item_s - (now - start if start else 0.0), item_s / 10)


def _author_s(run: JobRun, stage: StageRun) -> float:
    return sum(run.plan.nodes[node].estimated_duration_s or 0.0 for node in stage.plan.nodes)


def _before(run: JobRun, stage: StageRun) -> set[int]:
    after = {run.plan.nodes[node].stage for node in stage.plan.after}
    return {*after, *(edge.producer for edge in stage.plan.inputs)}
