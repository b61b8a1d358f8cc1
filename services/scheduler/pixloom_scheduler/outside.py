"""What happens outside once something is durable: dispatch, timers, resolutions, spans, cancels."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from pixloom.errors import UnavailableError
from pixloom_scheduler.core.changes import (
    AttemptEnded,
    CancelAccepted,
    Change,
    JobEnded,
    JobStarted,
    JobUpdated,
    NodeEnded,
    PauseAccepted,
    RejectsAsked,
    ResolutionAsked,
)
from pixloom_scheduler.core.events import BackoffEnded, TimeRanOut
from pixloom_scheduler.core.states import JobState, NodeState

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from pixloom_scheduler.core.events import Event
    from pixloom_scheduler.dispatch import Dispatcher
    from pixloom_scheduler.executors import ExecutorRegistry
    from pixloom_scheduler.live import LiveJob
    from pixloom_scheduler.rejects import RejectFinder
    from pixloom_scheduler.replica import Replica
    from pixloom_scheduler.resolver import Resolver
    from pixloom_scheduler.rpc.session import ExecutorSessions
    from pixloom_scheduler.timers import Timers
    from pixloom_scheduler.traces import Traces

__all__ = ["Outside"]


class Outside:
    """The effects of a replica; `connect` ties it to the parts that are made after it."""

    def __init__(
        self,
        *,
        executors: ExecutorRegistry,
        timers: Timers,
        traces: Traces,
        resolver: Resolver,
        rejects: RejectFinder,
    ) -> None:
        self._executors = executors
        self._timers = timers
        self._traces = traces
        self._resolver = resolver
        self._rejects = rejects
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("scheduler")

    def connect(self, *, replica: Replica, dispatcher: Dispatcher, sessions: ExecutorSessions) -> None:
        """Tie the effects to the parts that carry them out."""
        self._replica = replica
        self._dispatcher = dispatcher
        self._sessions = sessions

    def served_pools(self) -> frozenset[str]:
        """Return the pools that executors in session serve."""
        return self._executors.pools()

    def settled(self) -> None:
        """Dispatch from a state that is durable."""
        self._dispatcher.fill()

    def resumed(self, live: LiveJob) -> None:
        """Set up what a job loaded from the database needs."""
        run = live.run
        if run.deadline:
            self._watch_deadline(live, run.deadline)
        for stage in run.stages:
            for shard, task in stage.tasks.items():
                if task.due:
                    self._watch_backoff(live, stage.plan.index, (shard,), task.due)
        self._dispatcher.note_all(live)

    def committed(self, live: LiveJob, changes: list[Change]) -> None:
        """Carry out what follows from changes that are durable now."""
        self._dispatcher.note(live, changes)
        for change in changes:
            match change:
                case AttemptEnded():
                    if change.due:
                        self._watch_backoff(live, change.stage, (change.shard,), change.due)
                    if change.split is not None and change.split.due:
                        self._watch_split(live, change)
                case ResolutionAsked():
                    self._work(live, self._resolver.resolve(live, change.stage))
                case RejectsAsked():
                    self._work(live, self._rejects.find(live))
                case NodeEnded():
                    self._end_node(live, change)
                case JobStarted():
                    if change.deadline:
                        self._watch_deadline(live, change.deadline)
                case CancelAccepted() | PauseAccepted():
                    self._dispatcher.withdraw_job(live.header.id)
                    self._sessions.cancel_tasks(live.header.id, live.run.generation, None, now=change.now)
                case JobUpdated():
                    if change.priority is not None:
                        # What waits to be claimed was chosen by the priority of before.
                        self._dispatcher.withdraw_job(live.header.id)
                case JobEnded():
                    if change.state is not JobState.COMPLETED:
                        self._dispatcher.withdraw_job(live.header.id)
                    self._timers.forget(live.header.id)
                    live.lease_watch = 0.0
                    self._traces.job_ended(live)
                    self._log.info(
                        "job_ended",
                        job=live.header.id,
                        workflow=live.header.workflow,
                        state=str(change.state),
                        reason=change.reason,
                        duration_s=round(live.run.end - live.run.start, 3) if live.run.start else 0.0,
                        trace_id=live.header.trace_context.get("traceparent", "")[3:35],
                    )
                case _:
                    pass

    def dropped(self, jobs: list[LiveJob]) -> None:
        """Forget what belongs to another replica now."""
        gone = frozenset(live.header.id for live in jobs)
        self._dispatcher.drop(gone)
        self._sessions.forget(gone)
        for job_id in gone:
            self._timers.forget(job_id)

    def _end_node(self, live: LiveJob, change: NodeEnded) -> None:
        self._traces.node_ended(live, change.node)
        if change.state in (NodeState.FAILED, NodeState.SKIPPED):
            stage = live.run.nodes[change.node].plan.stage
            if live.run.stages[stage].released:
                self._sessions.cancel_tasks(live.header.id, live.run.generation, stage, now=True)

    def _watch_backoff(self, live: LiveJob, stage: int, shards: tuple[int, ...], due: float) -> None:
        def end() -> None:
            if self._replica.find(live.header.id) is live:
                changes = self._replica.handle_now(live, BackoffEnded(stage, shards))
                self._dispatcher.note(live, changes)
                self._dispatcher.fill()

        self._timers.at(due, end, job=live.header.id)

    def _watch_split(self, live: LiveJob, change: AttemptEnded) -> None:
        split = change.split
        if split is None:
            return
        subsets = live.run.stages[change.stage].shards.subsets
        wanted = set(split.subsets)
        shards = tuple(shard for shard, subset in subsets.items() if subset in wanted)
        self._watch_backoff(live, change.stage, shards, split.due)

    def _watch_deadline(self, live: LiveJob, due: float) -> None:
        def end() -> None:
            # The job may have been taken up again since, with more time, or be elsewhere.
            if self._replica.find(live.header.id) is live and live.run.deadline == due:
                self._replica.report(live.header.id, TimeRanOut())

        self._timers.at(due, end, job=live.header.id)

    def _work(self, live: LiveJob, finding: Coroutine[Any, Any, Event]) -> None:
        """Find something out off the loop, and let the job know."""

        async def work() -> None:
            event = await finding
            with contextlib.suppress(UnavailableError):  # the job's next owner finds it out again
                if not live.is_gone:
                    await self._replica.report(live.header.id, event)

        task = asyncio.create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
