"""Whose turn it is: ready stages, kept so that the next one is found without looking at every job.

Ready stages stand in *lines*. A line is a pool, or a pool with the limits that its stages fall under, so that stages of
a limited op never stand in front of others. Within a line each job has one place: the highest priority first, then the
job with the least seconds of work under way in the pool, then the oldest. A place is an entry of a heap; when the
job's key changes, a new entry is pushed and the old one is passed over when it comes up.

Everything here costs what changed: a push for each job that a commit touched, a pop for each batch that is offered.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pixloom_scheduler.core.states import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pixloom_scheduler.core.model import JobRun
    from pixloom_scheduler.live import LiveJob

__all__ = ["Key", "Turns", "stage_item_s", "task_s"]

Key = tuple[int, int, str]
"""Negative priority, microseconds of work under way, job: the least one is next."""

SPARE_ENTRIES = 64
"""Entries that a heap may hold beside two for each job before it is built anew."""


def stage_item_s(run: JobRun, index: int, costs: Mapping[str, float]) -> float:
    """Return the seconds that an item (or a run) of a stage is expected to take, as learned so far."""
    nodes = run.plan.nodes
    return sum(costs.get(nodes[node].op, nodes[node].cost_s) for node in run.plan.stages[index].nodes)


def task_s(run: JobRun, index: int, costs: Mapping[str, float]) -> float:
    """Return the seconds that the next task of a stage is expected to take, at least a microsecond."""
    stage = run.stages[index]
    items = stage.shards.items_of(stage.cursor) if stage.cursor < len(stage.shards) else 1
    return max(stage_item_s(run, index, costs) * max(items, 1), 1e-6)


@dataclass(slots=True)
class _Place:
    """A job in a line.

    Attributes:
        live: The job.
        stages: Its ready stages in this line.
        order: The same, as a heap of negative indexes that may hold others as well.
        key: Its key, which the entry that counts has; None while it has none.
        entry: Number of that entry.
    """

    live: LiveJob
    stages: set[int] = field(default_factory=set)
    order: list[int] = field(default_factory=list)
    key: Key | None = None
    entry: int = 0

    def add(self, stage: int) -> None:
        if stage not in self.stages:
            self.stages.add(stage)
            heapq.heappush(self.order, -stage)

    def last_stage(self) -> int:
        """Return the stage nearest to the end: finished items leave, intermediate ones do not pile up."""
        while -self.order[0] not in self.stages:
            heapq.heappop(self.order)
        return -self.order[0]


@dataclass(slots=True)
class _Line:
    """Jobs with ready stages of one pool under the same limits."""

    places: dict[str, _Place] = field(default_factory=dict)
    heap: list[tuple[Key, int]] = field(default_factory=list)


class Turns:
    """Ready stages by pool, limits and job.

    Args:
        costs: Seconds an item by op, as learned so far.
        limits_of: Returns the names of the limits that a stage falls under, besides those of the service.
        find: Returns a job in memory by its id, or None: those that went elsewhere have no turn.
    """

    def __init__(
        self,
        *,
        costs: Mapping[str, float],
        limits_of: Callable[[JobRun, int], tuple[str, ...]],
        find: Callable[[str], LiveJob | None],
    ) -> None:
        self._costs = costs
        self._limits_of = limits_of
        self._find = find
        self._lines: dict[str, dict[tuple[str, ...], _Line]] = {}
        self._held: set[str] = set()
        self._under_way_us: dict[tuple[str, str], int] = {}
        self._shares_us: dict[str, dict[int, int]] = {}
        self._entries = 0

    # -- What changed ---------------------------------------------------------------------------------------------

    def mark(self, live: LiveJob, stages: Iterable[int]) -> None:
        """Take in that stages of a job may be ready."""
        run = live.run
        for stage in stages:
            pool = run.plan.stages[stage].pool
            line = self._lines.setdefault(pool, {}).setdefault(self._limits_of(run, stage), _Line())
            place = line.places.get(run.id)
            if place is None:
                place = line.places[run.id] = _Place(live)
            place.live = live
            place.add(stage)
            self._stand(pool, line, place)

    def unmark(self, live: LiveJob, stage: int) -> None:
        """Take in that a stage has nothing ready."""
        run = live.run
        line = self._lines[run.plan.stages[stage].pool][self._limits_of(run, stage)]
        place = line.places.get(run.id)
        if place is not None:
            place.stages.discard(stage)
            if not place.stages:
                del line.places[run.id]

    def take_while(self, live: LiveJob, stage: int, fits: Callable[[int], bool], *, most: int) -> list[int]:
        """Take a job's stages out of the line of `stage`, nearest to the end first, up to one that does not fit."""
        run = live.run
        line = self._lines[run.plan.stages[stage].pool][self._limits_of(run, stage)]
        place = line.places.get(run.id)
        taken: list[int] = []
        while place is not None and place.stages and len(taken) < most and fits(place.last_stage()):
            taken.append(place.last_stage())
            place.stages.discard(taken[-1])
        if place is not None and not place.stages:
            del line.places[run.id]
        return taken

    def weigh(self, live: LiveJob, stages: Iterable[int]) -> None:
        """Give a job its place by what is under way in `stages`, and by its priority, which may have changed too."""
        run = live.run
        shares = self._shares_us.setdefault(run.id, {})
        for stage in stages:
            pool = run.plan.stages[stage].pool
            active = run.stages[stage].active
            share = round(active * task_s(run, stage, self._costs) * 1e6) if active else 0
            change = share - shares.pop(stage, 0)
            if share:
                shares[stage] = share
            if change:
                self._under_way_us[pool, run.id] = self._under_way_us.get((pool, run.id), 0) + change
                if not self._under_way_us[pool, run.id]:
                    del self._under_way_us[pool, run.id]
        if not shares:
            del self._shares_us[run.id]
        for pool, lines in self._lines.items():
            for line in lines.values():
                place = line.places.get(run.id)
                if place is not None:
                    self._stand(pool, line, place)

    def drop(self, job_id: str) -> None:
        """Forget a job that has ended, is paused, or is no longer ours."""
        self._shares_us.pop(job_id, None)
        for pool, lines in self._lines.items():
            self._under_way_us.pop((pool, job_id), None)
            for line in lines.values():
                line.places.pop(job_id, None)

    def hold(self, jobs: Iterable[str]) -> None:
        """Let nobody of jobs have a turn until `release`."""
        self._held.update(jobs)

    def release(self, jobs: Iterable[str]) -> None:
        """Give those of jobs who were held their places."""
        held = self._held.intersection(jobs)
        self._held -= held
        for pool, lines in self._lines.items():
            for line in lines.values():
                for job_id in held & line.places.keys():
                    self._stand(pool, line, line.places[job_id])

    @property
    def is_holding(self) -> bool:
        """Whether jobs are held."""
        return bool(self._held)

    def is_held(self, job_id: str) -> bool:
        """Return whether a job is held."""
        return job_id in self._held

    def jobs(self) -> set[str]:
        """Return the jobs that stand in a line or have work under way."""
        lines = [line for lines in self._lines.values() for line in lines.values()]
        return {job_id for line in lines for job_id in line.places} | self._shares_us.keys()

    # -- Who is next ----------------------------------------------------------------------------------------------

    def pools(self) -> list[str]:
        """Return the pools that ever had something ready."""
        return list(self._lines)

    def next(self, pool: str, has_room: Callable[[tuple[str, ...]], bool]) -> tuple[LiveJob, int] | None:
        """Return the job and stage whose turn it is in a pool, or None.

        Args:
            pool: The pool.
            has_room: Tells whether the limits of a line have room for one batch more.
        """
        best: tuple[Key, int, _Place] | None = None
        for limits, line in self._lines[pool].items():
            if not line.places or (limits and not has_room(limits)):
                continue
            head = self._head(line)
            if head is not None:
                key, place = head
                turn = (key, -place.last_stage(), place)
                if best is None or turn[:2] < best[:2]:
                    best = turn
        return None if best is None else (best[2].live, -best[1])

    def _head(self, line: _Line) -> tuple[Key, _Place] | None:
        heap = line.heap
        while heap:
            key, entry = heap[0]
            place = line.places.get(key[2])
            if place is not None and place.entry == entry and key[2] not in self._held:
                run = place.live.run
                if run.state is JobState.RUNNING and run.cancelling is None and self._find(run.id) is place.live:
                    return key, place
                # Whoever lets it go on marks it again.
                del line.places[key[2]]
            elif place is not None and place.entry == entry:
                place.key = None
            heapq.heappop(heap)
        return None

    def _stand(self, pool: str, line: _Line, place: _Place) -> None:
        run = place.live.run
        key = self._key(pool, run)
        if run.id in self._held or place.key == key:
            return
        self._entries += 1
        place.key, place.entry = key, self._entries
        heapq.heappush(line.heap, (key, place.entry))
        if len(line.heap) > 2 * len(line.places) + SPARE_ENTRIES:
            line.heap = [(other.key, other.entry) for other in line.places.values() if other.key is not None]
            heapq.heapify(line.heap)

    def _key(self, pool: str, run: JobRun) -> Key:
        return -run.priority, self._under_way_us.get((pool, run.id), 0), run.id

    # -- For those who read ---------------------------------------------------------------------------------------

    def has(self, job_id: str, stage: int) -> bool:
        """Return whether a stage stands in a line."""
        return any(
            (place := line.places.get(job_id)) is not None and stage in place.stages
            for lines in self._lines.values()
            for line in lines.values()
        )

    def before(self, run: JobRun, pool: str) -> Iterator[JobRun]:
        """Yield the other jobs that have ready stages in a pool and come before a job; looks at all of them."""
        mine = self._key(pool, run)
        seen = {run.id}
        for line in self._lines.get(pool, {}).values():
            for job_id, place in line.places.items():
                other = place.live.run
                if job_id not in seen and other.state is JobState.RUNNING and self._key(pool, other) < mine:
                    seen.add(job_id)
                    yield other
