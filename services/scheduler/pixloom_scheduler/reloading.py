"""Puts leases back onto a job that was read again from the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixloom_scheduler.core.apply import apply
from pixloom_scheduler.core.changes import TasksGranted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pixloom_scheduler.core.model import LeaseRun
    from pixloom_scheduler.live import LiveJob

__all__ = ["keep_leases"]


def keep_leases(live: LiveJob, leases: Mapping[int, LeaseRun]) -> None:
    """Grant again, under the same number and token, what still fits of leases.

    Args:
        live: The job as it stands in the database.
        leases: Leases by number, as they were before.
    """
    for lease_id, lease in leases.items():
        stage = live.run.stages[lease.stage]
        fits = {
            shard: attempt
            for shard, attempt in lease.tasks.items()
            if shard < len(stage.shards)
            and not stage.shards.ended[shard]
            and (stage.tasks[shard].attempt if shard in stage.tasks else 1) == attempt
        }
        if not fits:
            continue
        grant = TasksGranted(
            lease=lease_id,
            executor=lease.executor,
            stage=lease.stage,
            tasks=tuple(fits.items()),
            token=lease.token,
            time=lease.start,
            deadline=lease.deadline,
        )
        stage.released = True
        apply(live.run, [grant])
