"""The loop that owns partitions: everything that happens to their jobs goes through it, one group commit at a time.

Durable events wait in a queue. A step takes what is there, decides and applies it in memory, and makes all of it
durable in one transaction; what arrives meanwhile is the next step's. Only after the commit do replies, publishes,
watches and acknowledgements leave (`Effects`). Volatile events (claims, offers, hand-backs) change nothing durable and
are answered at once.

If Postgres refuses a value, or something unforeseen happens while a job's events are worked out, nothing of the batch
was written: the jobs touched are loaded again and their events are applied one job per transaction, so that the bad
value fails one job and not the partition.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

import structlog

from pixloom.errors import InternalError, OverloadedError, PixloomError, UnavailableError
from pixloom_scheduler.alarms import wait_or_set
from pixloom_scheduler.core.apply import apply
from pixloom_scheduler.core.changes import Change, Durable, JobAccepted
from pixloom_scheduler.core.decide import decide
from pixloom_scheduler.core.events import CancelRequested, Event, StartRequested
from pixloom_scheduler.core.settle import settle
from pixloom_scheduler.core.states import IllegalTransitionError
from pixloom_scheduler.job import partition_of
from pixloom_scheduler.journal.batch import NewJob, Stamp
from pixloom_scheduler.journal.committer import (
    BadRowError,
    CommitsLostError,
    JournalWriter,
    OwnershipLostError,
    RepeatedRequestError,
)
from pixloom_scheduler.lease import Lease
from pixloom_scheduler.live import LiveJob
from pixloom_scheduler.reloading import keep_leases
from pixloom_scheduler.step import OWNER_CHANGED, Effects, JobLoader, Step, Work, keep, new_future, refuse, when_durable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pixloom_scheduler.clock import DatabaseClock
    from pixloom_scheduler.core.model import LeaseRun
    from pixloom_scheduler.journal.loader import LoadedJob
    from pixloom_scheduler.journal.ownership import Owned

__all__ = ["Effects", "JobLoader", "Replica"]

MAX_ROWS: Final = 5000
STEP_S: Final = 0.008  # a step takes no further event then, so that the loop is free for streams and lease renewals
MAX_QUEUE: Final = 20_000
KEEP_ENDED: Final = 512  # ended jobs, in memory for those who are about to ask for them


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
        self.readers = 0
        self._journal = journal
        self._loader = loader
        self._clock = clock
        self._effects = effects
        self._costs = costs
        self.lease = Lease(usual_s=lease_s, monotonic=monotonic)
        self.losses = 0
        self._monotonic = monotonic
        self._queue: deque[Work] = deque()
        self._wake = asyncio.Event()
        self._renewed = asyncio.Event()
        self._ended: deque[str] = deque()
        self._committing = False
        self._stopping = False
        self._leaving: frozenset[int] = frozenset()
        self._left = asyncio.Event()
        self._log = structlog.get_logger("replica")

    # -- What others ask ------------------------------------------------------------------------------------------

    @property
    def is_committing(self) -> bool:
        """Whether the state in memory is ahead of the database."""
        return self._committing

    @property
    def is_inside_lease(self) -> bool:
        """Whether this replica may still speak for its partitions."""
        return self.lease.is_valid

    async def in_time(self) -> None:
        """Return once no renewal is overdue: whatever can wait does so, or it is done for somebody else's partitions."""
        while self.stamps and self.lease.is_overdue:
            self._renewed.clear()
            await self._renewed.wait()

    def own(
        self, owned: Iterable[Owned], jobs: Iterable[LoadedJob], *, since: float, length_s: float | None = None
    ) -> None:
        """Begin to serve partitions just taken, with those of their unfinished jobs that are loaded already.

        Their lease of `length_s` seconds (as long as one would be now, if not given) counts from `since`, monotonic
        time before they were taken, however long it took to load the jobs.
        """
        self.lease.begin(since=since, length_s=length_s or self.lease.length_s, among_others=bool(self.stamps))
        for partition in owned:
            self.stamps[partition.id] = Stamp(partition.epoch, partition.commit_seq)
        for loaded in jobs:
            self.admit(loaded)
        self._wake.set()

    def admit(self, loaded: LoadedJob) -> asyncio.Future[list[Change]]:
        """Begin to serve a job that was loaded from a partition of ours; it can be worked on when the future ends."""
        live = LiveJob(loaded.header, loaded.run, committed_seq=loaded.run.seq)
        self.jobs[loaded.header.id] = live
        settled = self._post(live.header.id, None)
        # Not before: back-offs that are over by now find their stages released.
        when_durable(settled, lambda: self._effects.resumed(live))
        return settled

    def serves(self, partition: int) -> bool:
        """Return whether this replica takes commands for a partition."""
        return partition in self.stamps and partition not in self._leaving

    def epoch_of(self, partition: int) -> int:
        """Return the epoch in which this replica owns a partition; 0 if it does not."""
        return self.stamps[partition].epoch if partition in self.stamps else 0

    def open_partitions(self) -> list[int]:
        """Return the partitions that take new jobs."""
        return sorted(self.stamps.keys() - self._leaving)

    async def leave(self, partitions: Iterable[int]) -> None:
        """Make everything durable that waits for partitions, then serve them no more; `run` must be running."""
        self._leaving = frozenset(partitions) & self.stamps.keys()
        while self._leaving & self.stamps.keys():
            self._wake.set()
            self._left.clear()
            await self._left.wait()
        self._leaving = frozenset()

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
        epoch = self.epoch_of(partition_of(job_id))
        if job_id not in self.jobs:
            loaded = await self._loader.load(job_id)
            # Had the partition been elsewhere meanwhile, more might have happened to the job since.
            is_ours = epoch and epoch == self.epoch_of(partition_of(job_id))
            if loaded is None or not loaded.run.state.is_terminal or not is_ours:
                return None
            if job_id not in self.jobs:
                live = self.jobs[job_id] = LiveJob(loaded.header, loaded.run, committed_seq=loaded.run.seq)
                self._retire(live)
        return self.jobs.get(job_id)

    async def submit(self, new: NewJob, live: LiveJob, *, start: bool) -> LiveJob:
        """Make a job durable and return it, unless too much is waiting or the partition is not owned any more."""
        self._refuse_when_full()
        work = Work(live.header.id, StartRequested() if start else None, new, live, new_future())
        if not self.serves(work.partition):
            raise UnavailableError(OWNER_CHANGED, retry_after_s=0.1)
        self._queue.append(work)
        self._wake.set()
        await asyncio.shield(work.done)
        return live

    async def command(self, job_id: str, event: Event) -> list[Change]:
        """Let an event happen to a job and return what it changed, once that is durable.

        Raises:
            StateConflictError: If the event does not fit the job's state.
        """
        self._refuse_when_full()
        # Whoever asked may have gone by the time it happens; it happens all the same.
        return await asyncio.shield(self._post(job_id, event))

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
            CommitsLostError: If the database went back in time.
        """
        while not (self._stopping and not self._queue):
            timeout = max(0.0, self.lease.due_s) if self.stamps else None
            if not self._queue:
                await wait_or_set(self._wake, timeout)
            self._wake.clear()
            await self._step()
            if self.readers:
                # Those who wait for all to be durable look before the next step changes it again.
                await asyncio.sleep(0)
            if self._leaving:
                # Between two steps all that was decided is durable.
                waiting = {work.partition for work in self._queue}
                self._drop(frozenset(self.stamps.keys() & self._leaving - waiting))

    def stop(self) -> None:
        """Let `run` end once the queue is empty."""
        self._stopping = True
        self._wake.set()

    async def _step(self) -> None:
        works: list[Work] = []
        step = Step()
        begin = self._monotonic()
        try:
            while self._queue and len(step.batch.rows) < MAX_ROWS and self._monotonic() - begin < STEP_S:
                work = self._queue.popleft()
                works.append(work)
                self._take(step, work)
            renewing = self._is_renewal_due()
            if not step.batch.is_empty or renewing:
                await self._commit(step, everything=renewing)
        except BadRowError as error:
            self._log.warning("batch_refused", error=str(error)[:200], jobs=len(step.touched))
            await self._commit_one_by_one(works)
            return
        except CommitsLostError as error:
            self._abandon(works, error)
            raise
        self._finish(step)

    def _take(self, step: Step, work: Work) -> None:
        """Decide and apply one event, and collect what it writes."""
        if work.partition not in self.stamps:
            refuse(work)
            return
        live = work.live or self.jobs.get(work.job_id)
        if live is None:
            work.done.set_result([])
            return
        changes: list[Change] = []
        # The clock is corrected at every commit; the journal of a job never goes back.
        now = max(self._clock.now(), live.run.updated)
        work.note_leases(live)
        try:
            if work.new is not None:
                self.jobs[work.job_id] = live
                step.batch.jobs.append(work.new)
                self._apply(step, live, [JobAccepted()], changes, now=now)
            if work.event is not None:
                self._apply(step, live, decide(live.run, work.event, now, self._costs), changes, now=now)
            while more := settle(live.run, now):
                self._apply(step, live, more, changes, now=now)
        except IllegalTransitionError as error:
            work.conflict(error)
            return
        except PixloomError as error:
            work.done.set_exception(error)
            return
        except Exception as error:
            self._log.error("event_not_applied", **work.account_of(error))
            raise BadRowError(f"{type(error).__name__} in job {work.job_id}") from error
        _, all_changes = step.touched.setdefault(work.job_id, (live, []))
        all_changes.extend(changes)
        step.works.append((work, changes))

    def _apply(self, step: Step, live: LiveJob, changes: list[Change], collected: list[Change], *, now: float) -> None:
        for change in changes:
            apply(live.run, [change], time=now)
            if isinstance(change, Durable):
                step.write(live, change, now)
        collected.extend(changes)

    async def _commit(self, step: Step, *, everything: bool) -> None:
        """Make a step durable, but for what belongs to partitions that turn out to be lost."""
        while True:
            try:
                await self._commit_whole(step, everything=everything)
            except OwnershipLostError as error:
                self._log.warning("partitions_lost", partitions=sorted(error.partitions))
                self._drop(error.partitions)
                self.losses += 1
                if not self.stamps:
                    self.lease.note_lateness()
                step.forget(error.partitions)
            except RepeatedRequestError as error:
                self._log.warning("requests_repeated", jobs=len(error.jobs))
                step.forget_new(error.jobs, self.jobs)
            else:
                return
            # The numbers stay the same: had the batch been committed after all, the database would say so.
            if step.batch.is_empty and not (everything and self.stamps):
                return

    async def _commit_whole(self, step: Step, *, everything: bool) -> None:
        batch = step.batch
        partitions = set(self.stamps) if everything else {live.header.partition for live, _ in step.touched.values()}
        for partition in partitions:
            stamp = self.stamps[partition]
            batch.stamps[partition] = Stamp(stamp.epoch, stamp.seq + 1)
        batch.lease_s = self.lease.length_s
        sent = self._monotonic()
        self._committing = True
        try:
            time = await self._journal.commit(batch)
        finally:
            self._committing = False
        self.stamps.update(batch.stamps)
        self._clock.set(time)
        if everything and self.stamps.keys() <= partitions:
            self.lease.renew(sent=sent, length_s=batch.lease_s)
            self._renewed.set()

    def _is_renewal_due(self) -> bool:
        return bool(self.stamps) and self.lease.due_s < 0

    async def _commit_one_by_one(self, works: list[Work]) -> None:
        by_job: dict[str, list[Work]] = {}
        for work in works:
            by_job.setdefault(work.job_id, []).append(work)
        for job_id, own_works in by_job.items():
            await self._reload(job_id, {n: held for work in reversed(own_works) for n, held in work.leases.items()})
            if self._is_renewal_due():
                # There may be many of them, and each takes its time.
                await self._commit(Step(), everything=True)
        for job_id, own_works in by_job.items():
            step = Step()
            for live in [work.live for work in own_works if work.new is not None and work.live is not None]:
                run = live.run
                live.run = type(run).of(job_id, run.partition, run.plan, priority=run.priority)
                live.forget_unwritten()
            try:
                for work in own_works:
                    if not work.done.done():
                        self._take(step, work)
                if not step.batch.is_empty:
                    await self._commit(step, everything=self._is_renewal_due())
            except BadRowError as error:
                await self._fail_job(job_id, own_works, error)
                continue
            self._finish(step)

    async def _fail_job(self, job_id: str, works: list[Work], error: BadRowError) -> None:
        """End the job whose value Postgres refuses; a job that was never accepted is refused to its caller."""
        self._log.error("job_failed_on_bad_value", job=job_id, error=str(error)[:200])
        await self._reload(job_id, {})
        failure = InternalError(f"job {job_id} holds a value that the database refuses; it was ended")
        live = self.jobs.get(job_id)
        if live is not None and not live.run.state.is_terminal:
            step = Step()
            detail = "the database refused a value of this job"
            end = CancelRequested(detail=detail, now=True, failure=("INTERNAL", detail, ""))
            try:
                self._take(step, Work(job_id, end, None, live, new_future()))
                await self._commit(step, everything=False)
            except BadRowError:
                # Not even its end can be written: it is left alone, as one that cannot be read.
                self._let_go([live])
            else:
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
        if partition_of(job_id) not in self.stamps:
            return
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
        old.forget_unwritten()
        self.jobs[job_id] = old
        keep_leases(old, leases)
        # Last, as a stage whose lease was kept is released, and its other tasks are to be offered.
        self._effects.resumed(old)

    def _abandon(self, works: list[Work], error: Exception) -> None:
        self._log.error("commits_lost", error=str(error))
        self.lease.end()
        for work in (*works, *self._queue):
            refuse(work)
        self._queue.clear()

    def _drop(self, partitions: frozenset[int]) -> None:
        """Forget partitions that this replica does not own any more, with their jobs and whoever waits for those."""
        for partition in partitions:
            self.stamps.pop(partition, None)
        gone = [live for live in self.jobs.values() if live.header.partition in partitions]
        self._queue = deque(keep(self._queue, partitions))
        self._let_go(gone)
        self._left.set()
        self._renewed.set()

    def _let_go(self, gone: list[LiveJob]) -> None:
        for live in gone:
            del self.jobs[live.header.id]
            live.is_gone = True
            live.announce()
        self._effects.dropped(gone)

    def _finish(self, step: Step) -> None:
        """Let out what has become durable."""
        for live, _ in step.touched.values():
            live.committed_seq = live.run.seq
            live.events += live.pending
            live.pending.clear()
            if live.run.state.is_terminal:
                self._retire(live)
        for work, changes in step.works:
            if not work.done.done():
                work.done.set_result(changes)
        for live, changes in step.touched.values():
            self._effects.committed(live, changes)
        self._effects.settled()
        # Last: executors wait for work, watchers only look.
        for live, _ in step.touched.values():
            live.announce()

    def _retire(self, live: LiveJob) -> None:
        """Forget ended jobs, the oldest first."""
        self._ended.append(live.header.id)
        while len(self._ended) > KEEP_ENDED:
            old = self._ended.popleft()
            ended = self.jobs.get(old)
            if ended is not None and ended.run.state.is_terminal:
                del self.jobs[old]

    def _post(self, job_id: str, event: Event | None) -> asyncio.Future[list[Change]]:
        work = Work(job_id, event, None, None, new_future())
        if not self.serves(work.partition):
            refuse(work)
            return work.done
        self._queue.append(work)
        self._wake.set()
        return work.done

    def _refuse_when_full(self) -> None:
        if len(self._queue) >= MAX_QUEUE:
            raise OverloadedError("too many requests are waiting for the database; try again", retry_after_s=1.0)
        if not self.is_inside_lease:
            raise UnavailableError("this scheduler does not own its partitions at the moment", retry_after_s=1.0)
