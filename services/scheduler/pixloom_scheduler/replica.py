"""The loop that owns partitions: everything that happens to their jobs goes through it, one group commit at a time.

Durable events wait in a queue. A step takes what is there, decides and applies it in memory, and makes all of it
durable in one transaction; what arrives meanwhile is the next step's. Only after the commit do replies, publishes,
watches and acknowledgements leave (`Effects`). Volatile events (claims, offers, hand-backs) change nothing durable and
are answered at once.

If Postgres refuses a value, nothing of the batch was written: the jobs touched are loaded again and their events are
applied one job per transaction, so that the bad value fails one job and not the partition.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from pixloom.errors import InternalError, OverloadedError, PixloomError, StateConflictError, UnavailableError
from pixloom_scheduler.core.apply import apply
from pixloom_scheduler.core.changes import (
    AttemptEnded,
    Change,
    Durable,
    JobAccepted,
    TasksGranted,
)
from pixloom_scheduler.core.decide import decide
from pixloom_scheduler.core.events import CancelRequested, Event, LeaseLost, StartRequested, TasksReported
from pixloom_scheduler.core.settle import settle
from pixloom_scheduler.core.states import IllegalTransitionError
from pixloom_scheduler.journal.batch import Batch, NewJob, Stamp
from pixloom_scheduler.journal.committer import BadRowError, CommitsLostError, JournalWriter, OwnershipLostError
from pixloom_scheduler.journal.rows import encode, is_event
from pixloom_scheduler.live import LiveJob
from pixloom_scheduler.side_rows import add_rows
from pixloom_scheduler.views import event_view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pixloom_scheduler.clock import DatabaseClock
    from pixloom_scheduler.core.model import LeaseRun
    from pixloom_scheduler.journal.loader import LoadedJob
    from pixloom_scheduler.journal.ownership import Owned

__all__ = ["Effects", "JobLoader", "Replica"]

MAX_ROWS: Final = 5000
STEP_S: Final = 0.008
"""Time after which a step takes no further event, so that the loop stays free for streams and lease renewals."""

MAX_QUEUE: Final = 20_000
KEEP_ENDED: Final = 512
"""Ended jobs kept in memory for those who are about to ask for them."""


class JobLoader(Protocol):
    """Reads jobs from the database."""

    async def load(self, job_id: str) -> LoadedJob | None:
        """Return one job, or None."""


class Effects(Protocol):
    """What happens outside once something is durable."""

    def committed(self, live: LiveJob, changes: list[Change]) -> None:
        """A job's changes are durable."""

    def settled(self) -> None:
        """Everything that was decided is durable; the state may be dispatched from."""

    def served_pools(self) -> frozenset[str]:
        """Return the pools that executors in session serve."""


@dataclass(slots=True)
class _Work:
    """Something to be made durable."""

    job_id: str
    event: Event | None
    new: NewJob | None
    live: LiveJob | None
    done: asyncio.Future[list[Change]]
    lease: tuple[int, LeaseRun] | None = None


@dataclass(slots=True)
class _Step:
    """What one step has decided and not yet made durable."""

    batch: Batch = field(default_factory=Batch)
    touched: dict[str, tuple[LiveJob, list[Change]]] = field(default_factory=dict)
    works: list[tuple[_Work, list[Change]]] = field(default_factory=list)


class Replica:
    """Owner of partitions and of the unfinished jobs in them."""

    def __init__(
        self,
        *,
        journal: JournalWriter,
        loader: JobLoader,
        clock: DatabaseClock,
        effects: Effects,
        costs: dict[str, float],
        lease_s: float,
        monotonic: Callable[[], float],
    ) -> None:
        self.jobs: dict[str, LiveJob] = {}
        self.stamps: dict[int, Stamp] = {}
        self._journal = journal
        self._loader = loader
        self._clock = clock
        self._effects = effects
        self._costs = costs
        self._lease_s = lease_s
        self._monotonic = monotonic
        self._queue: deque[_Work] = deque()
        self._wake = asyncio.Event()
        self._valid_until = 0.0
        self._ended: deque[str] = deque()
        self._committing = False
        self._stopping = False
        self._log = structlog.get_logger("replica")

    # -- What others ask ------------------------------------------------------------------------------------------

    @property
    def is_committing(self) -> bool:
        """Whether the state in memory is ahead of the database."""
        return self._committing

    @property
    def is_inside_lease(self) -> bool:
        """Whether this replica may still speak for its partitions."""
        return self._monotonic() < self._valid_until

    def own(self, owned: Iterable[Owned], jobs: Iterable[LoadedJob], *, since: float) -> None:
        """Begin to serve partitions just taken, with their unfinished jobs.

        Args:
            owned: The partitions.
            jobs: Their unfinished jobs.
            since: Monotonic time before they were taken, seconds: their lease counts from then, however long it took
                to load the jobs.
        """
        valid_until = since + self._lease_s * 0.8
        self._valid_until = min(valid_until, self._valid_until) if self.stamps else valid_until
        for partition in owned:
            self.stamps[partition.id] = Stamp(partition.epoch, partition.commit_seq)
        for loaded in jobs:
            live = LiveJob(loaded.header, loaded.run, committed_seq=loaded.run.seq)
            self.jobs[loaded.header.id] = live
            self._effects.committed(live, [])
            self._post(live.header.id, None)
        self._wake.set()

    def find(self, job_id: str) -> LiveJob | None:
        """Return a job in memory, or None."""
        return self.jobs.get(job_id)

    def forget(self, job_id: str) -> None:
        """Let go of a job that has ended; the database still has it."""
        self.jobs.pop(job_id, None)

    def settle(self, job_id: str) -> None:
        """Let what follows from volatile events happen to a job, as soon as the loop comes to it."""
        self._post(job_id, None)

    async def recall(self, job_id: str) -> LiveJob | None:
        """Return a job, read from the database if it has ended and left memory; None if it is not ours or unknown."""
        if job_id not in self.jobs:
            loaded = await self._loader.load(job_id)
            if loaded is None or not loaded.run.state.is_terminal or loaded.header.partition not in self.stamps:
                return None
            if job_id not in self.jobs:
                live = self.jobs[job_id] = LiveJob(loaded.header, loaded.run, committed_seq=loaded.run.seq)
                self._retire(live)
        return self.jobs.get(job_id)

    async def submit(self, new: NewJob, live: LiveJob, *, start: bool) -> LiveJob:
        """Make a job durable and return it.

        Raises:
            OverloadedError: If too much is waiting.
            UnavailableError: If this replica does not own the partition any more.
        """
        self._refuse_when_full()
        work = _Work(live.header.id, StartRequested() if start else None, new, live, self._future())
        self._queue.append(work)
        self._wake.set()
        await work.done
        return live

    async def command(self, job_id: str, event: Event) -> list[Change]:
        """Let an event happen to a job and return what it changed, once that is durable.

        Raises:
            StateConflictError: If the event does not fit the job's state.
        """
        self._refuse_when_full()
        return await self._post(job_id, event)

    def report(self, job_id: str, event: Event) -> asyncio.Future[list[Change]]:
        """Let something that happened outside happen to a job; the future ends when it is durable."""
        return self._post(job_id, event)

    def handle_now(self, live: LiveJob, event: Event) -> list[Change]:
        """Apply a volatile event at once and return what it changed."""
        changes = decide(live.run, event, self._clock.now(), self._costs)
        apply(live.run, changes)
        return changes

    def backlog(self) -> int:
        """Return the number of events that wait."""
        return len(self._queue)

    # -- The loop -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Step until stopped; returns after everything that was queued is durable.

        Raises:
            OwnershipLostError: If another replica took partitions over.
            CommitsLostError: If the database went back in time.
        """
        renew_every = self._lease_s / 3
        while not (self._stopping and not self._queue):
            timeout = max(0.0, self._valid_until - self._lease_s * 0.8 + renew_every - self._monotonic())
            if not self._queue:
                try:
                    async with asyncio.timeout(timeout):
                        await self._wake.wait()
                except TimeoutError:
                    pass
            self._wake.clear()
            await self._step()

    def stop(self) -> None:
        """Let `run` end once the queue is empty."""
        self._stopping = True
        self._wake.set()

    async def _step(self) -> None:
        works: list[_Work] = []
        step = _Step()
        begin = self._monotonic()
        while self._queue and len(step.batch.rows) < MAX_ROWS and self._monotonic() - begin < STEP_S:
            work = self._queue.popleft()
            works.append(work)
            self._take(step, work)
        renewing = self._monotonic() > self._valid_until - self._lease_s * 0.8 + self._lease_s / 3
        if step.batch.is_empty and not renewing:
            self._finish(step)
            return
        try:
            await self._commit(step, everything=renewing)
        except BadRowError as error:
            self._log.warning("batch_refused", error=str(error)[:200], jobs=len(step.touched))
            await self._commit_one_by_one(works)
            return
        except (OwnershipLostError, CommitsLostError) as error:
            self._abandon(works, error)
            raise
        self._finish(step)

    def _take(self, step: _Step, work: _Work) -> None:
        """Decide and apply one event, and collect what it writes."""
        live = work.live or self.jobs.get(work.job_id)
        if live is None:
            work.done.set_result([])
            return
        changes: list[Change] = []
        now = self._clock.now()
        if isinstance(work.event, TasksReported | LeaseLost):
            # Should the database refuse the batch, the event happens again, and then it needs the lease as it was.
            lease = live.run.leases.get(work.event.lease)
            work.lease = (work.event.lease, replace(lease, tasks=dict(lease.tasks))) if lease is not None else None
        try:
            if work.new is not None:
                self.jobs[work.job_id] = live
                step.batch.jobs.append(work.new)
                self._apply(step, live, [JobAccepted()], changes)
            if work.event is not None:
                self._apply(step, live, decide(live.run, work.event, now, self._costs), changes)
            while more := settle(live.run, now):
                self._apply(step, live, more, changes)
        except IllegalTransitionError as error:
            work.done.set_exception(
                StateConflictError(
                    f"job {work.job_id} is {error.state}: it is not possible to {error.wanted} it now",
                    metadata={"state": str(error.state)},
                )
            )
            return
        except PixloomError as error:
            work.done.set_exception(error)
            return
        _, all_changes = step.touched.setdefault(work.job_id, (live, []))
        all_changes.extend(changes)
        step.works.append((work, changes))

    def _apply(self, step: _Step, live: LiveJob, changes: list[Change], collected: list[Change]) -> None:
        run, header = live.run, live.header
        batch = step.batch
        for change in changes:
            apply(run, [change])
            if not isinstance(change, Durable):
                continue
            batch.rows.append(
                encode(
                    change,
                    day=header.day,
                    job_id=header.id,
                    seq=run.seq,
                    project=header.project,
                    generation=run.generation,
                )
            )
            if not isinstance(change, AttemptEnded):
                add_rows(batch, live, change, self._clock.now())
                live.pending.append((run.seq, change))
        collected.extend(changes)

    async def _commit(self, step: _Step, *, everything: bool) -> None:
        batch = step.batch
        partitions = set(self.stamps) if everything else {live.header.partition for live, _ in step.touched.values()}
        missing = partitions - set(self.stamps)
        if missing:
            raise OwnershipLostError(frozenset(missing))
        for partition in partitions:
            stamp = self.stamps[partition]
            batch.stamps[partition] = Stamp(stamp.epoch, stamp.seq + 1)
        sent = self._monotonic()
        self._committing = True
        try:
            time = await self._journal.commit(batch)
        finally:
            self._committing = False
        self.stamps.update(batch.stamps)
        self._clock.set(time)
        if everything:
            # Counted from before the transaction began, and shorter than the row says: we fall silent first.
            self._valid_until = sent + self._lease_s * 0.8

    async def _commit_one_by_one(self, works: list[_Work]) -> None:
        by_job: dict[str, list[_Work]] = {}
        for work in works:
            by_job.setdefault(work.job_id, []).append(work)
        for job_id, own_works in by_job.items():
            await self._reload(job_id, dict(work.lease for work in reversed(own_works) if work.lease is not None))
        for job_id, own_works in by_job.items():
            step = _Step()
            for work in own_works:
                if work.new is not None and work.live is not None:
                    work.live.run = type(work.live.run).of(
                        job_id, work.live.header.partition, work.live.run.plan, priority=work.live.run.priority
                    )
                    work.live.pending.clear()
                if not work.done.done():
                    self._take(step, work)
            try:
                if not step.batch.is_empty:
                    await self._commit(step, everything=False)
            except BadRowError as error:
                await self._fail_job(job_id, own_works, error)
                continue
            self._finish(step)

    async def _fail_job(self, job_id: str, works: list[_Work], error: BadRowError) -> None:
        """End the job whose value Postgres refuses; a job that was never accepted is refused to its caller."""
        self._log.error("job_failed_on_bad_value", job=job_id, error=str(error)[:200])
        await self._reload(job_id, {})
        failure = InternalError(f"job {job_id} holds a value that the database refuses; it was ended")
        live = self.jobs.get(job_id)
        if live is not None and not live.run.state.is_terminal:
            step = _Step()
            detail = "the database refused a value of this job"
            end = CancelRequested(detail=detail, now=True, failure=("INTERNAL", detail, ""))
            work = _Work(job_id, end, None, live, self._future())
            self._take(step, work)
            await self._commit(step, everything=False)
            self._finish(step)
        for work in works:
            if not work.done.done():
                if work.new is not None:
                    work.done.set_exception(failure)
                else:
                    work.done.set_result([])

    async def _reload(self, job_id: str, before: dict[int, LeaseRun]) -> None:
        """Throw a job's memory away and read it again; leases that still fit are kept.

        Args:
            job_id: The job.
            before: Leases as they were before the events that could not be made durable.
        """
        # Memory is ahead of the database until the job has been read: nothing may be offered from it meanwhile.
        self._committing = True
        try:
            loaded = await self._loader.load(job_id)
        finally:
            self._committing = False
        old = self.jobs.get(job_id)
        if loaded is None:
            self.jobs.pop(job_id, None)
            return
        if old is None:
            old = LiveJob(loaded.header, loaded.run)
        leases = {**old.run.leases, **before}
        # Sessions know leases by number, so that a number must not come to mean another lease.
        loaded.run.next_lease = old.run.next_lease
        old.header, old.run, old.committed_seq = loaded.header, loaded.run, loaded.run.seq
        old.pending.clear()
        self.jobs[job_id] = old
        for lease_id, lease in leases.items():
            stage = old.run.stages[lease.stage]
            fits = {
                shard: attempt
                for shard, attempt in lease.tasks.items()
                if shard < len(stage.shards)
                and not stage.shards.ended[shard]
                and (stage.tasks[shard].attempt if shard in stage.tasks else 1) == attempt
            }
            if fits:
                self._keep_lease(old, lease_id, lease, fits)
        # Last, as a stage whose lease was kept is released, and its other tasks are to be offered.
        self._effects.committed(old, [])

    def _keep_lease(self, live: LiveJob, lease_id: int, lease: LeaseRun, tasks: dict[int, int]) -> None:
        grant = TasksGranted(
            lease=lease_id,
            executor=lease.executor,
            stage=lease.stage,
            tasks=tuple(tasks.items()),
            token=lease.token,
            time=lease.start,
            deadline=lease.deadline,
        )
        live.run.stages[lease.stage].released = True
        apply(live.run, [grant])

    def _abandon(self, works: list[_Work], error: Exception) -> None:
        self._log.error("partitions_lost", error=str(error))
        self._valid_until = 0.0
        for work in (*works, *self._queue):
            if not work.done.done():
                work.done.set_exception(UnavailableError("the owner of the job changed; try again"))
        self._queue.clear()

    def _finish(self, step: _Step) -> None:
        """Let out what has become durable."""
        now = self._clock.now()
        for live, _ in step.touched.values():
            live.committed_seq = live.run.seq
            for seq, change in live.pending:
                if is_event(change):
                    live.events.append(event_view(live.run, change, seq=seq, time=now))
            live.pending.clear()
            if live.run.state.is_terminal:
                self._retire(live)
        for work, changes in step.works:
            if not work.done.done():
                work.done.set_result(changes)
        for live, changes in step.touched.values():
            self._effects.committed(live, changes)
            live.announce()
        self._effects.settled()

    def _retire(self, live: LiveJob) -> None:
        """Forget ended jobs, the oldest first."""
        self._ended.append(live.header.id)
        while len(self._ended) > KEEP_ENDED:
            old = self._ended.popleft()
            ended = self.jobs.get(old)
            if ended is not None and ended.run.state.is_terminal:
                del self.jobs[old]

    # -- Small things ---------------------------------------------------------------------------------------------

    def _post(self, job_id: str, event: Event | None) -> asyncio.Future[list[Change]]:
        work = _Work(job_id, event, None, None, self._future())
        self._queue.append(work)
        self._wake.set()
        return work.done

    def _future(self) -> asyncio.Future[list[Change]]:
        future: asyncio.Future[list[Change]] = asyncio.get_running_loop().create_future()
        # Nobody may be waiting: then an error in it is no surprise worth a log line.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return future

    def _refuse_when_full(self) -> None:
        if len(self._queue) >= MAX_QUEUE:
            raise OverloadedError("too many requests are waiting for the database; try again", retry_after_s=1.0)
        if not self.is_inside_lease:
            raise UnavailableError("this scheduler does not own its partitions at the moment", retry_after_s=1.0)
