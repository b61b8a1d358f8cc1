"""Limits that people set on what runs at once, and what counts against them.

    PIXLOOM_LIMITS="jobs=100, jobs_per_project=20, pool.gpu=1, op.image.convert=4"

*Jobs*: a job is in flight from its first turn until it ends or is paused. One that may not begin waits in a queue of
its own, by priority and age, and takes no part in anything until one in flight has ended.

*Pools and ops*: what runs at once is counted in batches, because the tasks of a batch run one after another in one
child process. A batch counts from the moment it is offered until its last task was reported, lost or handed back, so a
limit is never exceeded and may for a moment be used by a batch that waits in an executor.

*Several schedulers* divide each limit, as each knows only what runs of its own partitions. A scheduler's share follows
from its place among those that may have jobs (`share_of`), so the shares of all add up to the limit and nobody has to
ask anybody. Nobody's share is 0, or its jobs would wait for ever: a limit below the number of schedulers lets each of
them run one. When a scheduler comes or goes, the shares change (`divide`); what runs already is never ended for it, and
counts against the share of whoever owns its job.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from pixloom_scheduler.core.model import JobRun
    from pixloom_scheduler.live import LiveJob

__all__ = ["JOBS", "JOBS_PER_PROJECT", "Admission", "Concurrency", "share_of"]

JOBS = "jobs"
JOBS_PER_PROJECT = "jobs_per_project"


def share_of(limit: int, *, place: int, replicas: int) -> int:
    """Return a replica's share of a limit, at least 1: the shares of all add up to `limit`, or to `replicas` if more.

    Args:
        limit: The limit that all of them keep together, from 1 on.
        place: Place of the replica among them, from 0 on; the first ones have what is left over.
        replicas: How many there are, from 1 on.
    """
    each, over = divmod(limit, replicas)
    return max(1, each + (place < over))


class Concurrency:
    """Counts the batches of limited pools and ops.

    Args:
        limits: Most batches by name: `pool.NAME`, `op.NAME` for all versions of an op, or `op.NAME@N` for one. All of
            them are this replica's share until `divide`.
    """

    def __init__(self, limits: Mapping[str, int]) -> None:
        self._limits = {name: most for name, most in limits.items() if name not in (JOBS, JOBS_PER_PROJECT)}
        self._shares = dict(self._limits)
        self._used = dict.fromkeys(self._limits, 0)
        self._leases: dict[str, dict[int, tuple[str, ...]]] = {}

    def divide(self, place: int, replicas: int) -> None:
        """Take the share of a replica among others; what it has too much already goes on."""
        self._shares = {name: share_of(most, place=place, replicas=replicas) for name, most in self._limits.items()}

    def names_of(self, run: JobRun, stage: int) -> tuple[str, ...]:
        """Return the names of the limits that a stage falls under."""
        if not self._limits:
            return ()
        plan = run.plan.stages[stage]
        ops = [run.plan.nodes[node].op for node in plan.nodes]
        names = {f"pool.{plan.pool}", *(f"op.{op}" for op in ops), *(f"op.{op.partition('@')[0]}" for op in ops)}
        return tuple(sorted(names & self._limits.keys()))

    def has_room(self, names: Iterable[str]) -> bool:
        """Return whether one more batch may be offered."""
        return all(self._used[name] < self._shares[name] for name in names)

    def full(self, names: Iterable[str]) -> list[str]:
        """Return which limits are reached, for people."""
        return [
            f"{_reached(self._shares[name], self._limits[name])}: {name.replace('.', ' ', 1)}"
            for name in names
            if self._used[name] >= self._shares[name]
        ]

    def take(self, names: Iterable[str]) -> None:
        """Count a batch."""
        for name in names:
            self._used[name] += 1

    def give(self, names: Iterable[str]) -> None:
        """Count a batch no more."""
        for name in names:
            self._used[name] -= 1

    def leased(self, run: JobRun, lease: int, stage: int) -> None:
        """Count a batch that an executor holds, until its lease is gone."""
        names = self.names_of(run, stage)
        leases = self._leases.get(run.id, {})
        if names and lease not in leases:
            self._leases.setdefault(run.id, leases)[lease] = names
            self.take(names)

    def settle(self, job_id: str, leases: Container[int]) -> None:
        """Count no more what a job held and is not among its `leases`.

        A limited job has no more leases than its limits allow, so looking at all of them costs little.
        """
        held = self._leases.get(job_id)
        if held is None:
            return
        for lease in [lease for lease in held if lease not in leases]:
            self.give(held.pop(lease))
        if not held:
            del self._leases[job_id]

    def jobs(self) -> list[str]:
        """Return the jobs that hold leases under a limit."""
        return list(self._leases)


class Admission:
    """Decides which jobs are in flight.

    Args:
        limits: `jobs` for all projects together and `jobs_per_project`; what is not named is not limited. All of them
            are this replica's share until `divide`.
    """

    def __init__(self, limits: Mapping[str, int]) -> None:
        self._limits = {name: limits[name] for name in (JOBS, JOBS_PER_PROJECT) if name in limits}
        self._shares = dict(self._limits)
        self.is_limited = bool(self._limits)
        self._in_flight: dict[str, LiveJob] = {}
        self._by_project: dict[str, int] = {}
        self._queues: dict[str, list[tuple[int, str]]] = {}
        self._waiting: dict[str, tuple[int, LiveJob]] = {}

    def divide(self, place: int, replicas: int) -> list[LiveJob]:
        """Take the share of a replica among others; return those that are in flight now that it is larger."""
        self._shares = {name: share_of(most, place=place, replicas=replicas) for name, most in self._limits.items()}
        return self._admit_waiting()

    def admit(self, live: LiveJob) -> bool:
        """Return whether a job may begin or go on; one that may not waits from now on."""
        if not self.is_limited or live.run.id in self._in_flight:
            return True
        # After a restart: what had begun before goes on, even if the limit was lowered meanwhile.
        if live.run.checkpoint or live.run.leases or self.reached(live) is None:
            self._begin(live)
            return True
        run = live.run
        known = self._waiting.get(run.id)
        if known is None or known[0] != run.priority:
            self._waiting[run.id] = (run.priority, live)
            heapq.heappush(self._queues.setdefault(live.header.project, []), (-run.priority, run.id))
        return False

    def leave(self, job_id: str) -> list[LiveJob]:
        """Take in that a job ended or was paused; return those that are in flight in its place."""
        self._waiting.pop(job_id, None)
        live = self._in_flight.pop(job_id, None)
        if live is None:
            return []
        self._by_project[live.header.project] -= 1
        return self._admit_waiting()

    def reached(self, live: LiveJob) -> str | None:
        """Return which limit keeps a job from beginning, for people; None if none does."""
        project = live.header.project
        in_flight = {JOBS: len(self._in_flight), JOBS_PER_PROJECT: self._by_project.get(project, 0)}
        for name, share in self._shares.items():
            if in_flight[name] >= share:
                whose = f" in project {project}" if name == JOBS_PER_PROJECT else ""
                return f"{_reached(share, self._limits[name])}: jobs in flight{whose}"
        return None

    def is_waiting(self, job_id: str) -> bool:
        """Return whether a job waits to begin."""
        return job_id in self._waiting

    def ahead_of(self, live: LiveJob) -> int:
        """Return the number of jobs that begin before one that waits; looks at all that wait."""
        mine = (-live.run.priority, live.run.id)
        alike = JOBS_PER_PROJECT not in self._limits
        return sum(
            (-priority, job_id) < mine and (alike or other.header.project == live.header.project)
            for job_id, (priority, other) in self._waiting.items()
        )

    def jobs(self) -> list[str]:
        """Return the jobs in flight and those that wait."""
        return [*self._in_flight, *self._waiting]

    def _admit_waiting(self) -> list[LiveJob]:
        """Let begin who may; return them."""
        admitted = []
        while (following := self._first()) is not None:
            self._begin(following)
            admitted.append(following)
        return admitted

    def _begin(self, live: LiveJob) -> None:
        self._waiting.pop(live.run.id, None)
        self._in_flight[live.run.id] = live
        project = live.header.project
        self._by_project[project] = self._by_project.get(project, 0) + 1

    def _first(self) -> LiveJob | None:
        """Return the job that begins next if one may; looks at one job of each project."""
        best: tuple[tuple[int, str], LiveJob] | None = None
        for queue in self._queues.values():
            while queue and not self._counts(*queue[0]):
                heapq.heappop(queue)
            if queue:
                live = self._waiting[queue[0][1]][1]
                if (best is None or queue[0] < best[0]) and self.reached(live) is None:
                    best = (queue[0], live)
        return None if best is None else best[1]

    def _counts(self, negative_priority: int, job_id: str) -> bool:
        """Return whether an entry of a queue stands for a job that waits, with the priority that it has now."""
        known = self._waiting.get(job_id)
        return known is not None and known[0] == -negative_priority


def _reached(share: int, limit: int) -> str:
    """Say that a share is used up; whoever has all of a limit need not hear of shares."""
    return f"limit {limit} reached" if share >= limit else f"share {share} of limit {limit} reached"
