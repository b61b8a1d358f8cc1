"""Why a node waits, in words for people. Worked out when somebody reads it; the hot path pays nothing.

the job has not been started · paused · the job is being cancelled
1 of 3 dependencies have ended, waits for thumbs and sheet · waits for its condition · waits for items of photos
retry 2 of 3 in 8 s
limit 4 reached: jobs in flight, 2 jobs first
no executor serves pool gpu · no executor serves pool cpu, 2 are draining · no executor of pool cpu offers user.darken@2
limit 1 reached: pool gpu · share 2 of limit 4 reached: op image.convert, where several schedulers divide it
2 jobs with higher priority first · queued behind 3 jobs · waits for a free executor, 8 of 8 slots are busy
about to be taken by an executor, 7 of 8 slots are busy
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from pixloom.graph.plan import StageKind
from pixloom_scheduler.core.states import JobState, NodeState
from pixloom_scheduler.core.view import node_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pixloom_scheduler.core.model import JobRun, StageRun
    from pixloom_scheduler.dispatch import Dispatcher
    from pixloom_scheduler.executors import ExecutorRegistry
    from pixloom_scheduler.live import LiveJob

__all__ = ["WaitingReasons"]

MOST_NAMES: Final = 3
"""Dependencies that are named; of more, only the number is told."""


class WaitingReasons:
    """Tells why nodes of jobs in memory wait."""

    def __init__(self, *, dispatcher: Dispatcher, executors: ExecutorRegistry) -> None:
        self._dispatcher = dispatcher
        self._executors = executors

    def of(self, live: LiveJob, *, now: float) -> list[str]:
        """Return a sentence for each node, empty for those that do not wait.

        Args:
            live: The job.
            now: Seconds on the database's clock.
        """
        run = live.run
        if run.state.is_terminal:
            return [""] * len(run.nodes)
        whole = _of_job(run)
        leased = {lease.stage for lease in run.leases.values()}
        stages: dict[int, str] = {}
        queues: dict[str, str] = {}
        reasons = []
        for index, node in enumerate(run.nodes):
            stage = node.plan.stage
            if node.state.is_terminal or (stage in leased and not whole):
                reasons.append("")
                continue
            if stage not in stages:
                stages[stage] = whole or self._of_stage(live, stage, now, queues)
            first = run.plan.nodes[run.plan.stages[stage].nodes[0]].id
            joined = "" if whole or not stages[stage] or index == run.plan.stages[stage].nodes[0] else f"with {first}: "
            reasons.append(joined + stages[stage])
        return reasons

    def _of_stage(self, live: LiveJob, index: int, now: float, queues: dict[str, str]) -> str:
        run = live.run
        stage = run.stages[index]
        if not stage.released:
            return _before_release(run, stage)
        admission = self._dispatcher.admission
        if admission.is_waiting(run.id):
            limit = admission.reached(live) or "others are about to begin"
            ahead = admission.ahead_of(live)
            return f"{limit}, {_jobs(ahead)} first" if ahead else limit
        if node_state(run, stage.plan.nodes[0]) is NodeState.RETRYING:
            due, task = min((task.due, task.failures) for task in stage.tasks.values() if task.due)
            return f"retry {task} of {stage.plan.retry.max_attempts - 1} in {max(0, math.ceil(due - now))} s"
        if not stage.has_ready and not stage.active:
            return _before_input(run, stage)
        return self._of_queue(live, stage, queues)

    def _of_queue(self, live: LiveJob, stage: StageRun, queues: dict[str, str]) -> str:
        run, pool = live.run, stage.plan.pool
        if pool not in self._executors.pools():
            draining = sum(pool in session.hello.pools for session in self._executors)
            leaving = f", {draining} {'is' if draining == 1 else 'are'} draining" if draining else ""
            return f"no executor serves pool {pool}{leaving}"
        ops = [run.plan.nodes[node].op for node in stage.plan.nodes]
        if not self._executors.offers(pool, ops):
            lacking = [op for op in ops if not self._executors.offers(pool, [op])]
            return f"no executor of pool {pool} offers {_listed(lacking or ops)}"
        concurrency = self._dispatcher.concurrency
        names = concurrency.names_of(run, stage.plan.index)
        full = concurrency.full(names)
        if full and not stage.active:
            return "; ".join(full)
        if self._dispatcher.turns.is_held(run.id):
            return "waits for executors to say what they still run of it"
        if stage.active:
            return self._of_executors(pool)
        if pool not in queues:
            queues[pool] = self._of_turn(run, pool)
        return queues[pool]

    def _of_turn(self, run: JobRun, pool: str) -> str:
        before = list(self._dispatcher.turns.before(run, pool))
        higher = sum(other.priority > run.priority for other in before)
        if higher:
            return f"{_jobs(higher)} with higher priority first"
        return f"queued behind {_jobs(len(before))}" if before else self._of_executors(pool)

    def _of_executors(self, pool: str) -> str:
        serving = [session for session in self._executors if pool in session.hello.pools and not session.draining]
        slots = sum(session.hello.slots for session in serving)
        # Heartbeats are a second apart: what an executor was granted since keeps slots busy as well.
        busy = sum(min(max(session.busy, len(session.holdings.leases)), session.hello.slots) for session in serving)
        what = "waits for a free executor" if busy >= slots else "about to be taken by an executor"
        return f"{what}, {busy} of {slots} slots are busy"


def _of_job(run: JobRun) -> str:
    if run.cancelling is not None:
        return "the job is being cancelled"
    match run.state:
        case JobState.PENDING:
            return "the job has not been started"
        case JobState.PAUSED:
            return "paused"
        case JobState.RECOVERING:
            return "the job is being planned again"
        case _:
            return ""


def _before_release(run: JobRun, stage: StageRun) -> str:
    first = run.plan.nodes[stage.plan.nodes[0]]
    if stage.resolving:
        return "waits for its condition" if first.when else "its params are being worked out"
    needs = sorted({*first.needs, *stage.plan.after})
    open_needs = [run.plan.nodes[need].id for need in needs if not run.nodes[need].state.is_terminal]
    if not open_needs:
        return "about to be released"
    ended = len(needs) - len(open_needs)
    some = "dependency has" if len(needs) == 1 else "dependencies have"
    names = f", waits for {_listed(open_needs)}" if len(open_needs) <= MOST_NAMES else ""
    return f"{ended} of {len(needs)} {some} ended{names}"


def _before_input(run: JobRun, stage: StageRun) -> str:
    if stage.plan.kind is not StageKind.MAPPED:
        return "about to end"
    producers = [run.stages[edge.producer] for edge in stage.plan.inputs]
    names = [run.plan.nodes[producer.plan.nodes[-1]].id for producer in producers if not producer.ended]
    return f"waits for items of {_listed(sorted(set(names)))}" if names else "about to end"


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count:,} jobs"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else ""
