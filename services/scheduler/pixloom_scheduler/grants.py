"""Leases: granted to executors that claim or are handed work, adopted from earlier owners, handed back, given up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pixloom_scheduler.core.changes import LeaseAdopted, TasksGranted
from pixloom_scheduler.core.events import LeaseAnnounced, LeaseLost, SiblingsHandedOver, TasksClaimed, TasksReturned
from pixloom_scheduler.executors import HeldLease, Holdings
from pixloom_scheduler.turns import task_s

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pixloom.v1 import executor_pb2
    from pixloom_scheduler.core.changes import Change
    from pixloom_scheduler.dispatch import Dispatcher
    from pixloom_scheduler.executors import ExecutorSession
    from pixloom_scheduler.live import LiveJob
    from pixloom_scheduler.replica import Replica
    from pixloom_scheduler.timers import Timers
    from pixloom_scheduler.tokens import Tasks, TokenMint

__all__ = ["Grants", "SiblingsGranted"]

SIBLINGS: Final = -1
"""Stands in a token for the stage of siblings, which is not one."""


class SiblingsGranted(NamedTuple):
    """Siblings are leased to an executor.

    Attributes:
        token: What it must show.
        tasks: Stage and attempt of each.
    """

    token: bytes
    tasks: Tasks


class Grants:
    """Gives leases and takes them back; nothing of it is durable.

    Args:
        replica: Owner of the jobs.
        dispatcher: Is told of what is held, and offers what was handed back.
        mint: Makes and recognises tokens.
        timers: For deadlines.
        costs: Seconds an item by op, as learned so far.
    """

    def __init__(
        self,
        *,
        replica: Replica,
        dispatcher: Dispatcher,
        mint: TokenMint,
        timers: Timers,
        costs: Mapping[str, float],
    ) -> None:
        self._replica = replica
        self._dispatcher = dispatcher
        self._mint = mint
        self._timers = timers
        self._costs = costs

    def grant(
        self,
        session: ExecutorSession,
        live: LiveJob,
        *,
        generation: int,
        stage: int,
        tasks: Tasks,
        handed_over: bool = False,
    ) -> TasksGranted | None:
        """Grant those of some tasks to an executor that are still offered; None if there are none."""
        event = TasksClaimed(
            executor=session.id,
            generation=generation,
            stage=stage,
            tasks=tasks,
            mint=lambda granted: self._mint.mint(
                job=live.header.id, generation=generation, stage=stage, tasks=granted, executor=session.id
            ),
        )
        for change in self._replica.handle_now(live, event):
            if isinstance(change, TasksGranted):
                self._remember(session, live, change, handed_over=handed_over)
                live.announce()
                return change
        return None

    def grant_siblings(
        self, session: ExecutorSession, live: LiveJob, stages: tuple[int, ...]
    ) -> SiblingsGranted | None:
        """Grant the only tasks of those of some stages that were not offered before; None if there are none."""
        job, generation = live.header.id, live.run.generation
        event = SiblingsHandedOver(
            executor=session.id,
            stages=stages,
            mint=lambda granted: self._mint.mint(
                job=job, generation=generation, stage=SIBLINGS, tasks=_first_attempts(granted), executor=session.id
            ),
        )
        grants = [change for change in self._replica.handle_now(live, event) if isinstance(change, TasksGranted)]
        if not grants:
            return None
        self._remember(session, live, *grants, handed_over=True, are_siblings=True)
        live.announce()
        return SiblingsGranted(grants[0].token, _first_attempts(grant.stage for grant in grants))

    def adopt(self, session: ExecutorSession, lease: executor_pb2.Lease) -> bool:
        """Recognise a lease that an earlier owner, or this one before the stream broke, granted."""
        live = self._replica.find(lease.job_id)
        if live is None:
            return False
        # The stream broke and is back within its grace: the lease was never given up.
        running = {
            number: held
            for number, held in live.run.leases.items()
            if held.token == lease.lease_token and held.executor == session.id
        }
        if running:
            known = session.holdings.leases.get(lease.lease_token)
            if known is None:
                siblings = {held.stage: number for number, held in running.items()} if lease.siblings else {}
                tasks_left = sum(len(held.tasks) for held in running.values())
                known = HeldLease(lease.job_id, next(iter(running)), tasks_left, siblings=siblings)
                session.holdings.hold(lease.lease_token, known)
            known.stream = session.stream
            # Tasks that were handed back while the stream was down.
            gone = tuple(sorted(known.names(running) - frozenset(lease.held)))
            if gone:
                self._returned(session, live, lease.lease_token, gone)
            return True
        tasks = tuple((task.shard, task.attempt) for task in lease.tasks)
        genuine = self._mint.is_genuine(
            lease.lease_token,
            job=lease.job_id,
            generation=lease.generation,
            stage=SIBLINGS if lease.siblings else lease.stage,
            tasks=tasks,
            executor=session.id,
        )
        if not genuine:
            return False
        grants: list[TasksGranted] = []
        for event in _announced(lease, tasks, executor=session.id):
            changes = self._replica.handle_now(live, event)
            grants += [change.grant for change in changes if isinstance(change, LeaseAdopted)]
        if grants:
            self._remember(session, live, *grants, are_siblings=lease.siblings)
        return bool(grants)

    def give_back(self, session: ExecutorSession, message: executor_pb2.GiveBack) -> None:
        """Take back tasks that were not started."""
        known = session.holdings.leases.get(message.lease_token)
        if known is None or known.job_id != message.job_id:
            return
        live = self._replica.find(message.job_id)
        if live is None:
            session.holdings.let_go(message.lease_token)
            return
        self._returned(session, live, message.lease_token, tuple(message.shards))

    def not_received(self, session: ExecutorSession, known: frozenset[bytes]) -> None:
        """Take back what was granted on a stream that broke before its executor read it.

        What was granted on the new one meanwhile is on its way: what its executor announced makes room for more.

        Args:
            session: The executor's new session, with what was granted on the one before.
            known: Tokens of the leases that the executor knows of.
        """
        leases = session.holdings.leases
        for token in [token for token in leases if token not in known and leases[token].stream != session.stream]:
            lease = session.holdings.leases[token]
            live = self._replica.find(lease.job_id)
            held = lease.held(live.run, token) if live is not None else {}
            if live is None or not held:
                session.holdings.let_go(token)
            else:
                self._returned(session, live, token, tuple(lease.names(held)))

    def lose(self, session: ExecutorSession, current: ExecutorSession | None) -> None:
        """Give up the leases of a session that is gone, but for those that its executor announced in a later one."""
        holdings, announced = session.holdings.leases, current.holdings.leases if current is not None else {}
        if current is None or current.holdings is not session.holdings:
            session.holdings = Holdings()
            lost = {token: lease for token, lease in holdings.items() if token not in announced}
        else:
            # What was granted on it after the other one was opened: that one will never tell of it.
            lost = {token: lease for token, lease in holdings.items() if lease.stream == session.stream}
        for token, lease in lost.items():
            live = self._replica.find(lease.job_id)
            for number in lease.held(live.run, token) if live is not None else ():
                self._replica.report(lease.job_id, LeaseLost(number))
            session.holdings.let_go(token)

    def _returned(self, session: ExecutorSession, live: LiveJob, token: bytes, shards: tuple[int, ...]) -> None:
        held = session.holdings.leases[token]
        changes: list[Change] = []
        for number, tasks in held.parts(shards):
            changes += self._replica.handle_now(live, TasksReturned(number, tasks))
        session.holdings.done(token, len(shards))
        if held.is_over(live.run):
            session.holdings.let_go(token)
        if live.run.cancelling is not None:
            # It may have been the last that the end of the job waited for.
            self._replica.settle(live.header.id)
        self._dispatcher.note(live, changes)
        self._dispatcher.fill()

    def _remember(
        self,
        session: ExecutorSession,
        live: LiveJob,
        *grants: TasksGranted,
        handed_over: bool = False,
        are_siblings: bool = False,
    ) -> None:
        first = grants[0]
        lease = HeldLease(
            live.header.id,
            first.lease,
            sum(len(grant.tasks) for grant in grants),
            task_s(live.run, first.stage, self._costs),
            handed_over,
            session.stream,
            {grant.stage: grant.lease for grant in grants} if are_siblings else {},
        )
        session.holdings.hold(first.token, lease)
        for grant in grants:
            self._dispatcher.leased(live, grant.lease, grant.stage)
        self._watch(live, first.deadline)

    def _watch(self, live: LiveJob, deadline: float) -> None:
        """Look at a job's leases at the earliest of their deadlines: nearly all of them end long before."""
        if not live.lease_watch or deadline < live.lease_watch:
            live.lease_watch = deadline
            self._timers.at(deadline, lambda: self._expire(live, deadline), job=live.header.id)

    def _expire(self, live: LiveJob, moment: float) -> None:
        if self._replica.find(live.header.id) is not live or live.lease_watch != moment:
            return
        live.lease_watch = 0.0
        for number, lease in live.run.leases.items():
            if lease.deadline > moment:
                self._watch(live, lease.deadline)
            else:
                detail = "it did not end in time although its executor is alive"
                self._replica.report(live.header.id, LeaseLost(number, "DEADLINE", detail))


def _first_attempts(stages: Iterable[int]) -> Tasks:
    return tuple((stage, 1) for stage in stages)


def _announced(lease: executor_pb2.Lease, tasks: Tasks, *, executor: str) -> Iterator[LeaseAnnounced]:
    """Yield what an announced lease is to the job: one lease, or one of each sibling."""
    held = frozenset(lease.held)
    parts = [(lease.stage, tasks, held)]
    if lease.siblings:
        parts = [(stage, ((0, attempt),), frozenset([0])) for stage, attempt in tasks if stage in held]
    for stage, part, part_held in parts:
        grant = TasksGranted(
            lease=0, executor=executor, stage=stage, tasks=part, token=lease.lease_token, time=0.0, deadline=0.0
        )
        yield LeaseAnnounced(lease.generation, grant, part_held, beside=len(parts) - 1)
