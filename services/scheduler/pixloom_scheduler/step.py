"""What a replica's loop works on: events that wait, and what one step has decided and not yet made durable."""

from __future__ import annotations

import asyncio
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from pixloom.errors import StateConflictError, UnavailableError
from pixloom_scheduler.core.changes import AttemptEnded
from pixloom_scheduler.core.events import LeaseLost, SiblingsReported, TasksReported
from pixloom_scheduler.job import partition_of
from pixloom_scheduler.journal.batch import Batch
from pixloom_scheduler.journal.rows import encode
from pixloom_scheduler.side_rows import add_rows
from pixloom_scheduler.views import event_view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pixloom_scheduler.core.changes import Change, Durable
    from pixloom_scheduler.core.events import Event
    from pixloom_scheduler.core.model import LeaseRun
    from pixloom_scheduler.core.states import IllegalTransitionError
    from pixloom_scheduler.journal.batch import NewJob
    from pixloom_scheduler.journal.loader import LoadedJob
    from pixloom_scheduler.live import LiveJob

__all__ = ["OWNER_CHANGED", "Effects", "JobLoader", "Step", "Work", "keep", "new_future", "refuse", "when_durable"]

OWNER_CHANGED: Final = "the owner of the job changed; try again"
REPEATED: Final = "the same request was accepted a moment ago; try again"


class JobLoader(Protocol):
    """Reads jobs from the database."""

    async def load(self, job_id: str) -> LoadedJob | None:
        """Return one job, or None."""


class Effects(Protocol):
    """What happens outside once something is durable."""

    def committed(self, live: LiveJob, changes: list[Change]) -> None:
        """A job's changes are durable."""

    def resumed(self, live: LiveJob) -> None:
        """A job was read from the database; nothing of it is under way."""

    def dropped(self, jobs: list[LiveJob]) -> None:
        """Jobs belong to another replica now."""

    def settled(self) -> None:
        """Everything that was decided is durable; the state may be dispatched from."""

    def served_pools(self) -> frozenset[str]:
        """Return the pools that executors in session serve."""


@dataclass(slots=True)
class Work:
    """Something to be made durable."""

    job_id: str
    event: Event | None
    new: NewJob | None
    live: LiveJob | None
    done: asyncio.Future[list[Change]]
    leases: dict[int, LeaseRun] = field(default_factory=dict)

    @property
    def partition(self) -> int:
        """Partition of the job."""
        return partition_of(self.job_id)

    def note_leases(self, live: LiveJob) -> None:
        """Keep the leases that the event is about: if the database refuses the batch, it happens again and needs them."""
        match self.event:
            case TasksReported() | LeaseLost():
                numbers: tuple[int, ...] = (self.event.lease,)
            case SiblingsReported():
                numbers = tuple(lease for lease, _ in self.event.results)
            case _:
                return
        held = live.run.leases
        self.leases = {number: held[number].copy() for number in numbers if number in held}

    def conflict(self, error: IllegalTransitionError) -> None:
        """Tell whoever waits that it does not fit the job's state."""
        because = f": {error.because}" if error.because else ""
        detail = f"job {self.job_id} is {error.state}: it is not possible to {error.wanted} it now{because}"
        self.done.set_exception(StateConflictError(detail, metadata={"state": str(error.state)}))

    def account_of(self, error: Exception) -> dict[str, str]:
        """Return what a log says of an error while the event was worked out."""
        # As short as it can be: of a deep recursion a whole account would outlast the lease.
        where = "".join(traceback.format_exception(error, limit=-4))
        return {"job": self.job_id, "what": type(self.event).__name__, "where": where}


@dataclass(slots=True)
class Step:
    """What one step has decided and not yet made durable."""

    batch: Batch = field(default_factory=Batch)
    touched: dict[str, tuple[LiveJob, list[Change]]] = field(default_factory=dict)
    works: list[tuple[Work, list[Change]]] = field(default_factory=list)

    def write(self, live: LiveJob, change: Durable, now: float) -> None:
        """Take in a change that was just applied: its journal row, what else is written with it, what watchers see."""
        run, header = live.run, live.header
        row = encode(
            change,
            day=header.day,
            job_id=header.id,
            seq=run.seq,
            time=run.updated,
            project=header.project,
            generation=run.generation,
        )
        self.batch.rows.append(row)
        # Watchers see everything but attempts, which come as counts.
        if not isinstance(change, AttemptEnded):
            add_rows(self.batch, live, change, now)
            live.pending.append(event_view(run, change, seq=run.seq, time=run.updated))

    def forget_new(self, jobs: frozenset[str], live: dict[str, LiveJob]) -> None:
        """Leave out new jobs whose requests have jobs already, also of `live`; whoever asks again is told of those."""
        self.batch = self.batch.without(frozenset(), jobs)
        for job in jobs & self.touched.keys():
            del self.touched[job], live[job]
        for work, _ in self.works:
            if work.job_id in jobs:
                refuse(work, REPEATED)
        self.works = [(work, changes) for work, changes in self.works if work.job_id not in jobs]

    def forget(self, partitions: frozenset[int]) -> None:
        """Leave out what belongs to partitions; those who wait for it are told to try again."""
        lost = frozenset(job for job, (live, _) in self.touched.items() if live.header.partition in partitions)
        self.batch = self.batch.without(partitions, lost)
        for job in lost:
            del self.touched[job]
        changes = {id(work): changes for work, changes in self.works}
        self.works = [(work, changes[id(work)]) for work in keep((work for work, _ in self.works), partitions)]


def refuse(work: Work, why: str = OWNER_CHANGED) -> None:
    """Tell whoever waits to try again, by default because the job's partition belongs to another replica."""
    if not work.done.done():
        work.done.set_exception(UnavailableError(why, retry_after_s=0.1))


def keep(works: Iterable[Work], partitions: frozenset[int]) -> list[Work]:
    """Return the events that belong to other partitions; those who wait for the rest are told to try again."""
    kept = []
    for work in works:
        if work.partition in partitions:
            refuse(work)
        else:
            kept.append(work)
    return kept


def new_future() -> asyncio.Future[list[Change]]:
    """Return what ends when an event is durable, with what it changed."""
    future: asyncio.Future[list[Change]] = asyncio.get_running_loop().create_future()
    # Nobody may be waiting: then an error in it is no surprise worth a log line.
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future


def when_durable(future: asyncio.Future[list[Change]], call: Callable[[], None]) -> None:
    """Call back when an event is durable; not at all if it was refused."""

    def ended(done: asyncio.Future[list[Change]]) -> None:
        if not done.cancelled() and done.exception() is None:
            call()

    future.add_done_callback(ended)
