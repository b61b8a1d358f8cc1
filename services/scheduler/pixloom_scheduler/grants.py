"""Leases: granted to executors that claim or are handed work, adopted from earlier owners, handed back, given up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixloom_scheduler.core.changes import LeaseAdopted, TasksGranted
from pixloom_scheduler.core.events import LeaseAnnounced, LeaseLost, TasksClaimed, TasksReturned
from pixloom_scheduler.executors import HeldLease, Holdings
from pixloom_scheduler.turns import task_s

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pixloom.v1 import executor_pb2
    from pixloom_scheduler.dispatch import Dispatcher
    from pixloom_scheduler.executors import ExecutorSession
    from pixloom_scheduler.live import LiveJob
    from pixloom_scheduler.replica import Replica
    from pixloom_scheduler.timers import Timers
    from pixloom_scheduler.tokens import Tasks, TokenMint

__all__ = ["Grants"]


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

    def adopt(self, session: ExecutorSession, lease: executor_pb2.Lease) -> bool:
        """Recognise a lease that an earlier owner, or this one before the stream broke, granted."""
        live = self._replica.find(lease.job_id)
        if live is None:
            return False
        # The stream broke and is back within its grace: the lease was never given up.
        for number, running in live.run.leases.items():
            if running.token == lease.lease_token and running.executor == session.id:
                known = session.holdings.leases.get(lease.lease_token)
                if known is None:
                    known = HeldLease(lease.job_id, number, len(running.tasks))
                    session.holdings.hold(lease.lease_token, known)
                known.stream = session.stream
                # Tasks that were handed back while the stream was down.
                gone = tuple(sorted(running.tasks.keys() - frozenset(lease.held)))
                if gone:
                    self._returned(session, live, lease.lease_token, gone)
                return True
        tasks = tuple((task.shard, task.attempt) for task in lease.tasks)
        genuine = self._mint.is_genuine(
            lease.lease_token,
            job=lease.job_id,
            generation=lease.generation,
            stage=lease.stage,
            tasks=tasks,
            executor=session.id,
        )
        if not genuine:
            return False
        grant = TasksGranted(
            lease=0,
            executor=session.id,
            stage=lease.stage,
            tasks=tasks,
            token=lease.lease_token,
            time=0.0,
            deadline=0.0,
        )
        changes = self._replica.handle_now(live, LeaseAnnounced(lease.generation, grant, frozenset(lease.held)))
        for change in changes:
            if isinstance(change, LeaseAdopted):
                self._remember(session, live, change.grant)
        return bool(changes)

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

        Args:
            session: The executor's new session, with what was granted on the one before.
            known: Tokens of the leases that the executor knows of.
        """
        for token in [token for token in session.holdings.leases if token not in known]:
            lease = session.holdings.leases[token]
            live = self._replica.find(lease.job_id)
            held = live.run.leases.get(lease.number) if live is not None else None
            if live is None or held is None or held.token != token:
                session.holdings.let_go(token)
            else:
                self._returned(session, live, token, tuple(held.tasks))

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
            # Numbers of leases begin anew when a job was elsewhere meanwhile.
            held = live.run.leases.get(lease.number) if live is not None else None
            if held is not None and held.token == token:
                self._replica.report(lease.job_id, LeaseLost(lease.number))
            session.holdings.let_go(token)

    def _returned(self, session: ExecutorSession, live: LiveJob, token: bytes, shards: tuple[int, ...]) -> None:
        number = session.holdings.leases[token].number
        changes = self._replica.handle_now(live, TasksReturned(number, shards))
        session.holdings.done(token, len(shards))
        if number not in live.run.leases:
            session.holdings.let_go(token)
        if live.run.cancelling is not None:
            # It may have been the last that the end of the job waited for.
            self._replica.settle(live.header.id)
        self._dispatcher.note(live, changes)
        self._dispatcher.fill()

    def _remember(
        self, session: ExecutorSession, live: LiveJob, grant: TasksGranted, *, handed_over: bool = False
    ) -> None:
        seconds = task_s(live.run, grant.stage, self._costs)
        lease = HeldLease(live.header.id, grant.lease, len(grant.tasks), seconds, handed_over, session.stream)
        session.holdings.hold(grant.token, lease)
        self._dispatcher.leased(live, grant.lease, grant.stage)
        self._watch(live, grant.deadline)

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
