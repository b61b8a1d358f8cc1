"""Checks what a replica holds in memory: every task is in exactly one place, and somebody will come for it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pixloom_scheduler.core.states import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixloom_scheduler.core.model import JobRun, StageRun
    from tests.simulation.scheduler import SchedulerProcess

__all__ = ["check_memory"]


def check_memory(scheduler: SchedulerProcess) -> Iterator[str]:
    """Yield what is wrong."""
    offers = {
        (offer.live.header.id, offer.stage, shard)
        for offer in scheduler.dispatcher._offers.values()
        for shard in offer.shards
    }
    for job_id, live in scheduler.replica.jobs.items():
        run = live.run
        if run.state.is_terminal:
            if run.leases:
                yield f"job {job_id[-4:]} has ended and has leases"
            continue
        yield from _check_leases(run)
        for index, stage in enumerate(run.stages):
            where = f"job {job_id[-4:]} stage {index}"
            for problem in _check_stage(stage):
                yield f"{where}: {problem}"
            if stage.ended:
                continue
            for shard, task in stage.tasks.items():
                if task.offered and (job_id, index, shard) not in offers:
                    yield f"{where}: shard {shard} is offered by no dispatch"
            if stage.has_ready and run.state is JobState.RUNNING and run.cancelling is None:
                is_said = live.committed_seq == run.seq and not scheduler.replica.backlog()
                if is_said and not scheduler.replica.is_committing and not scheduler.dispatcher.knows(live, index):
                    yield f"{where}: has ready tasks and nobody knows"


def _check_leases(run: JobRun) -> Iterator[str]:
    held = Counter((lease.stage, shard) for lease in run.leases.values() for shard in lease.tasks)
    for (stage, shard), times in held.items():
        if times > 1:
            yield f"job {run.id[-4:]}: shard {stage}.{shard} is leased {times} times"
    for lease_id, lease in run.leases.items():
        for shard in lease.tasks:
            task = run.stages[lease.stage].tasks.get(shard)
            if task is None or task.lease != lease_id:
                yield f"job {run.id[-4:]}: lease {lease_id} holds shard {lease.stage}.{shard}, which does not know"


def _check_stage(stage: StageRun) -> Iterator[str]:
    if stage.ended:
        return
    ready = Counter(stage.ready)
    for shard, times in ready.items():
        if times > 1:
            yield f"shard {shard} is ready {times} times"
    active = sum(1 for task in stage.tasks.values() if task.offered or task.lease)
    backing_off = sum(1 for task in stage.tasks.values() if task.due)
    if (active, backing_off) != (stage.active, stage.backing_off):
        yield f"counts {stage.active} active and {stage.backing_off} backing off, has {active} and {backing_off}"
    for shard in range(min(stage.cursor, len(stage.shards))):
        if stage.shards.ended[shard]:
            continue
        task = stage.tasks.get(shard)
        places = [shard in ready]
        if task is not None:
            places += [task.offered, bool(task.lease), bool(task.due)]
        if sum(places) != 1:
            yield f"shard {shard} is in {sum(places)} places: ready, offered, leased, backing off = {places}"
