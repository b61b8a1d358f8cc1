"""What must never be the case for long, seen by somebody who sees all processes at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.faults import Storm
    from tests.simulation.world import World

__all__ = ["Looks"]

LOST_S = 30.0
"""The grace of a broken stream, and the longest time for which a scheduler or its database may hang here; far less
than the deadline of a task, which would put an end to it anyway."""

SETTLED_S = 5.0
"""Time after which what was begun under other shares of a limit has ended, where nothing hangs."""


class Looks:
    """Looks at the processes of a storm from time to time."""

    def __init__(self, world: World, storm: Storm) -> None:
        self._world = world
        self._storm = storm
        self._gone: dict[str, float] = {}
        self._unknown: dict[tuple[str, bytes, int], float] = {}
        self._settled_at = float("inf")

    def look(self) -> None:
        """Check that nobody waits for an executor that is gone, and that all together keep to a limit."""
        if self._storm.faults.limit_pool:
            self._look_at_limit()
        alive = {executor.process.name for executor in self._storm.executors()}
        now = self._world.loop.time()
        for scheduler in self._storm.serving():
            for job_id, live in scheduler.replica.jobs.items():
                for lease in live.run.leases.values():
                    if lease.executor in alive or scheduler.process.is_frozen:
                        continue
                    since = max(self._gone.setdefault(lease.executor, now), scheduler.started_at)
                    if now - since > LOST_S:
                        detail = f"{lease.executor} is gone and has a lease of job {job_id[-4:]}"
                        self._world.violate("what a lost executor held is queued again", detail)
        self._look_for_unknown_tasks(now)

    def _look_for_unknown_tasks(self, now: float) -> None:
        """Check that no task is leased for long to an executor that does not know of it and so will never report it."""
        before, self._unknown = self._unknown, {}
        executors = {
            executor.process.name: executor
            for executor in self._storm.executors()
            if executor.process.is_alive and not executor.process.is_frozen
        }
        for scheduler in self._storm.serving():
            leases = [
                (job_id, lease) for job_id, live in scheduler.replica.jobs.items() for lease in live.run.leases.values()
            ]
            for job_id, lease in leases:
                executor = executors.get(lease.executor)
                if executor is None or scheduler.process.is_frozen:
                    continue
                held = executor.book.get(lease.token)
                known = held.running | held.unacknowledged if held is not None else set()
                are_siblings = held is not None and held.siblings
                # Of siblings, an executor knows each by its stage.
                for shard in {lease.stage if are_siblings else shard for shard in lease.tasks} - known:
                    key = (scheduler.process.name, lease.token, shard)
                    since = self._unknown[key] = before.get(key, now)
                    if now - since > LOST_S:
                        detail = (
                            f"task {shard} of job {job_id[-4:]} is leased to {lease.executor}, which has not got it"
                        )
                        self._world.violate("what its executor does not know of is queued again", detail)

    def _look_at_limit(self) -> None:
        """Check what runs at once, where everybody has known for a while who is there."""
        serving, now = self._storm.serving(), self._world.loop.time()
        places = {scheduler.partitions._place for scheduler in serving}
        if places != {(place, self._storm.replicas) for place in range(self._storm.replicas)}:
            self._settled_at = float("inf")
        elif self._settled_at > now:
            self._settled_at = now
        running = sum(len(live.run.leases) for each in serving for live in each.replica.jobs.values())
        most = max(self._storm.faults.limit_pool, len(serving))
        if now - self._settled_at > SETTLED_S and running > most:
            self._world.violate("what runs at once keeps to the limit", f"{running} batches run, {most} may")
