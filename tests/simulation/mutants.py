"""Planted faults: the engine with one guard taken out. Every one of them must be caught, or the simulation is blind.

A mutant is a replacement in the text of a real function or statement, so that it is an error the minute the code it
alters is no longer there.
"""

from __future__ import annotations
import __future__

import contextlib
import importlib
import inspect
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.faults import Faults

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MUTANTS", "Mutant", "planted"]

SCHEDULER = "pixloom_scheduler."
SESSIONS = SCHEDULER + "rpc.session:ExecutorSessions."
REPORTS = SCHEDULER + "rpc.reports:Reports."
COMMITTER = SCHEDULER + "journal.committer:"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One planted fault.

    Attributes:
        name: What is wrong with it.
        target: Module and name of the function, method or text constant.
        old: Text that is replaced, exactly once.
        new: Text that takes its place.
        faults: What must go wrong for it to matter, beside what a seed draws.
    """

    name: str
    target: str
    old: str
    new: str
    faults: dict[str, Any] = field(default_factory=dict)

    def mix(self) -> Faults | None:
        """Return the faults to run it under; None for what the seed draws."""
        return Faults(**self.faults) if self.faults else None


_TAKEOVER: Final = {"replicas": 2, "scheduler_freeze": 0.4, "child_fail": 0.1, "unknown_commits": 0.02}
_FORGED: Final = {"report_forge": 0.6, "child_partial": 0.2, "child_fail": 0.2}
_RESTART: Final = {"scheduler_kill": 0.4, "child_fail": 0.3, "stream_snap": 0.2}
_SLOW: Final = {"database": 0.1, "child_fail": 0.2, "child_partial": 0.3}
_RECOVERED: Final = {"commands": True, "child_fail": 0.3, "child_hang": 0.1}
_SIBLINGS: Final = {"siblings": True}

MUTANTS: Final = (
    Mutant(
        "the fence does not check the epoch",
        COMMITTER + "FIRST",
        "p.epoch = v.epoch AND ",
        "",
        _TAKEOVER,
    ),
    Mutant(
        "the fence does not check the commit number",
        COMMITTER + "FIRST",
        " AND p.commit_seq = v.n - 1",
        "",
        {"restore": 0.2, "child_fail": 0.1},
    ),
    Mutant(
        "a renewal does not check the epoch",
        COMMITTER + "RENEW",
        "p.epoch = v.epoch AND ",
        "",
        _TAKEOVER,
    ),
    Mutant(
        "a takeover does not raise the epoch",
        SCHEDULER + "journal.ownership:_TAKE",
        "epoch = p.epoch + 1",
        "epoch = p.epoch",
        _TAKEOVER,
    ),
    Mutant(
        "a former owner takes its batch for committed",
        COMMITTER + "Committer._judge",
        "if foreign:",
        "if False:",
        _TAKEOVER,
    ),
    Mutant(
        "commits that the database lost are not noticed",
        COMMITTER + "Committer._judge",
        "if behind:",
        "if False:",
        {"restore": 0.2, "child_fail": 0.1},
    ),
    Mutant(
        "who outlives a restore of the database takes partitions",
        SCHEDULER + "journal.ownership:Ownership._was_restored",
        "known is not None and (",
        "False and (",
        {"restore": 0.2, "replicas": 3, "scheduler_leave": 0.4},
    ),
    Mutant(
        "an unanswered commit is taken for done",
        COMMITTER + "Committer.commit",
        "await self._drop_connection()",
        "return 0.0",
        {"unknown_commits": 0.1},
    ),
    Mutant(
        "a batch is counted twice after an unanswered commit",
        COMMITTER + "Committer.commit",
        "await self._drop_connection()",
        "raise BadRowError(str(error)) from error",
        {"unknown_commits": 0.1, "child_fail": 0.3},
    ),
    Mutant(
        "a reply leaves before its commit",
        SCHEDULER + "replica:Replica._step",
        "await self._commit(step, everything=renewing)",
        "[work.done.set_result(changes) for work, changes in step.works if not work.done.done()]\n"
        "        await self._commit(step, everything=renewing)",
    ),
    Mutant(
        "an acknowledgement leaves before its commit",
        REPORTS + "take",
        """future.add_done_callback(
        lambda done: self._reported(session, live, report, done, open_reports, siblings=siblings)
    )""",
        "self._acknowledge(session, report, frozenset(result.shard for result in event.results), open_reports)",
    ),
    Mutant(
        "a publish leaves before its commit",
        SCHEDULER + "dispatch:Dispatcher.fill",
        "self._replica.is_committing or not self._replica.is_inside_lease",
        "False",
        _SLOW,
    ),
    Mutant(
        "who has lost its lease goes on speaking",
        SCHEDULER + "replica:Replica.is_inside_lease",
        "self.lease.is_valid",
        "True",
        {"replicas": 2, "scheduler_freeze": 0.3, "stream_stall": 1.0, "queue_repeat": 0.6, "child_fail": 0.4},
    ),
    Mutant(
        "what is handed over is not granted",
        SCHEDULER + "dispatch:Dispatcher._hand",
        "granted < len(offer.shards)",
        "False",
        {"commands": True, "executor_kill": 0.3},
    ),
    Mutant(
        "a token is not checked at adoption",
        SCHEDULER + "grants:Grants.adopt",
        "if not genuine:",
        "if False:",
        {"lease_forge": 1.0, "child_fail": 0.2},
    ),
    Mutant(
        "a task that is granted is adopted once more",
        SCHEDULER + "core.decide:_adopt",
        " or (task is not None and (task.lease or task.due))",
        "",
        {"replicas": 2, "scheduler_freeze": 0.3, "scheduler_kill": 0.3, "stream_snap": 0.5, "child_hang": 0.1},
    ),
    Mutant(
        "a result is accepted whatever lease it names",
        REPORTS + "take",
        "known = session.holdings.leases.get(report.lease_token)",
        "known = next(iter(session.holdings.leases.values()), None)",
        _FORGED,
    ),
    Mutant(
        "a result of another generation is accepted",
        REPORTS + "take",
        "report.generation != live.run.generation",
        "False",
        _FORGED,
    ),
    Mutant(
        "a result of another attempt is accepted",
        SCHEDULER + "core.decide:_report",
        "lease.tasks.get(shard) != result.attempt",
        "shard not in lease.tasks",
        _FORGED,
    ),
    Mutant(
        "an ended task is granted",
        SCHEDULER + "core.decide:_claim",
        " or ended[shard]",
        "",
        {"hand_over": False, "queue_repeat": 0.6, "queue_reorder": 0.3},
    ),
    Mutant(
        "a granted task is granted again",
        SCHEDULER + "core.decide:_claim",
        "task.lease or ",
        "",
        {"hand_over": False, "queue_repeat": 0.6, "child_hang": 0.1},
    ),
    Mutant(
        "a task of a cancelled job is granted",
        SCHEDULER + "core.decide:_claim",
        "or job.cancelling is not None",
        "",
        {"hand_over": False, "commands": True, "stream_stall": 0.5, "child_hang": 0.2},
    ),
    Mutant(
        "a task is released when the first of its parents has ended",
        SCHEDULER + "core.settle:_release",
        "not all(job.stages[edge.producer].ended",
        "not any(job.stages[edge.producer].ended",
    ),
    Mutant(
        "shards are cut again when the journal is replayed",
        SCHEDULER + "journal.rows:_decode_attempt",
        "Cut(*cuts[i : i + 4])",
        "Cut(*cuts[i : i + 3], 4)",
    ),
    Mutant(
        "a shard that was split twice reads other items",
        SCHEDULER + "core.outcomes:_retry_items",
        "result.retry_indexes if parent is None else",
        "result.retry_indexes if True else",
        {"child_partial": 0.9},
    ),
    Mutant(
        "the tasks of an executor that is gone are not queued again",
        SCHEDULER + "grants:Grants.lose",
        "self._replica.report(lease.job_id, LeaseLost(number))",
        "continue",
        {"executor_kill": 0.5},
    ),
    Mutant(
        "a dispatch that vanished is not offered again",
        SCHEDULER + "dispatch:Dispatcher._look_forever",
        "await self.look()",
        "continue",
        {"hand_over": False, "queue_loss": 0.3},
    ),
    Mutant(
        "what a claim was refused is not offered again",
        SCHEDULER + "dispatch:Dispatcher.claimed",
        "granted < len(offer.shards)",
        "False",
        {"hand_over": False, "commands": True},
    ),
    Mutant(
        "a task that was taken back counts as an attempt",
        SCHEDULER + "core.decide:_report",
        "result.outcome is Outcome.CANCELLED and job.cancelling is None",
        "False",
        {"commands": True, "child_hang": 0.2},
    ),
    Mutant(
        "a job that is started with params keeps its old plan in the database",
        SCHEDULER + "journal.revisions:_REPLAN",
        "plan = v.plan, ",
        "",
        {"commands": True},
    ),
    Mutant(
        "what a stage gave before it was reset counts in the next generation",
        SCHEDULER + "core.generations:_reset",
        "stage.since = job.generation",
        "pass",
        _RECOVERED,
    ),
    Mutant(
        "a claim of an older generation is granted",
        SCHEDULER + "core.decide:_claim",
        "or event.generation != job.generation",
        "",
        {**_RECOVERED, "queue_repeat": 0.6, "queue_reorder": 0.3, "stream_stall": 0.5},
    ),
    Mutant(
        "a stage that goes on takes failed shards for done",
        SCHEDULER + "core.generations:_reopen",
        "stage.shards.ended[shard] = 0",
        "pass",
        _RECOVERED,
    ),
    Mutant(
        "what reads from a stage that starts again keeps its end",
        SCHEDULER + "core.generations:_inherited_fate",
        "if fates[producer] is _Fate.RESET:",
        "if False:",
        _RECOVERED,
    ),
    Mutant(
        "a message id is used again",
        SCHEDULER + "task_stream:TaskStream.publish",
        '"Nats-Msg-Id": batch.dispatch_id',
        '"Nats-Msg-Id": f"{batch.job_id}.{batch.stage}.{(batch.ordinary.shards or [batch.tasks[0].shard])[0]}"',
        {"hand_over": False, "child_fail": 0.3},
    ),
    Mutant(
        "back-offs are forgotten by a restart",
        SCHEDULER + "outside:Outside.resumed",
        "if task.due:",
        "if False:",
        _RESTART,
    ),
    Mutant(
        "an executor does not send a result again",
        "pixloom_executor.leases:LeaseBook.unacknowledged",
        "for report in self._reports.values()",
        "for report in ()",
        {"stream_snap": 1.0, "stream_stall": 0.3},
    ),
    Mutant(
        "what is granted after its claim was given up is kept",
        "pixloom_executor.session:Session._hand_back",
        "claim is not None and grant.lease_token",
        "False",
        {"hand_over": False, "stream_stall": 0.6, "executor_freeze": 0.3},
    ),
    Mutant(
        "tasks that were handed back while the stream was down stay leased",
        SCHEDULER + "grants:Grants.adopt",
        "if gone:",
        "if False:",
        {"stream_snap": 2.0, "executor_drain": 0.5, "child_hang": 0.2},
    ),
    Mutant(
        "what was lost with a partition is written all the same",
        SCHEDULER + "step:Step.forget",
        "self.batch.without(partitions, lost)",
        "self.batch.without(frozenset(), frozenset())",
        _TAKEOVER,
    ),
    Mutant(
        "what a stage gave is served though not all of it is there",
        SCHEDULER + "gathered:GatheredOutputs.get",
        " or outputs.shards != run.stages[stage].done",
        "",
        {"replicas": 2, "child_fail": 0.3, "executor_kill": 0.3, "scheduler_leave": 0.3},
    ),
    Mutant(
        "a grant of some of the tasks in columns is taken for all of them",
        SESSIONS + "_claim",
        "keys.shards and granted.tasks == tasks",
        "keys.shards",
        {"hand_over": False, "commands": True, "stream_stall": 0.5, "child_hang": 0.2, "executor_kill": 0.3},
    ),
    Mutant(
        "attempts of results in columns are not looked at",
        SCHEDULER + "rpc.results:_read_columns",
        "                attempt=attempt,",
        "                attempt=stage.tasks[shard].attempt if shard in stage.tasks else attempt,",
        _FORGED,
    ),
    Mutant(
        "tasks in columns all read from the first place",
        SCHEDULER + "inputs:InputReader.ordinary",
        "place_of[shards.edge[shard], shards.source[shard]]",
        "0",
    ),
    Mutant(
        "who lost a partition has its old jobs when it comes back",
        SCHEDULER + "replica:Replica._let_go",
        "del self.jobs[live.header.id]",
        "pass",
        {"replicas": 2, "scheduler_freeze": 0.3, "scheduler_leave": 0.3, "child_fail": 0.2},
    ),
    Mutant(
        "every scheduler takes a whole limit for itself",
        SCHEDULER + "limits:share_of",
        "divmod(limit, replicas)",
        "(limit, 0)",
        {"replicas": 3, "limit_pool": 3, "child_partial": 0.3, "child_fail": 0.2, "commands": True},
    ),
    Mutant(
        "a scheduler without a share of a limit runs nothing",
        SCHEDULER + "limits:share_of",
        "max(1, each + (place < over))",
        "each + (place < over)",
        {"replicas": 3, "limit_pool": 2},
    ),
    Mutant(
        "a sibling's result goes to the lease of another",
        REPORTS + "take",
        "known.siblings, report)",
        "dict.fromkeys(known.siblings, known.number), report)",
        _SIBLINGS,
    ),
    Mutant(
        "a token does not say which tasks it is for",
        SCHEDULER + "tokens:TokenMint._mac",
        '",".join(f"{shard}.{attempt}" for shard, attempt in tasks)',
        '""',
        {**_SIBLINGS, "lease_forge": 3.0, "child_fail": 0.2, "child_partial": 0.3},
    ),
    Mutant(
        "siblings that an executor still holds are handed over again",
        SCHEDULER + "core.model:StageRun.is_untouched",
        " and not self.tasks",
        "",
        {**_SIBLINGS, "scheduler_kill": 0.4, "child_fail": 0.2, "child_hang": 0.1},
    ),
    Mutant(
        "of siblings that are lost only one is queued again",
        SCHEDULER + "executors:HeldLease.held",
        "self.siblings.values() or (self.number,)",
        "(self.number,)",
        {**_SIBLINGS, "executor_kill": 0.5},
    ),
    Mutant(
        "adopted siblings are taken for tasks of one stage",
        SCHEDULER + "grants:Grants.adopt",
        "self._remember(session, live, *grants, are_siblings=lease.siblings)",
        "self._remember(session, live, *grants)",
        {**_SIBLINGS, "scheduler_kill": 0.8, "child_fail": 0.2, "child_hang": 0.1},
    ),
)


@contextlib.contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Let the engine have a fault for a while.

    Raises:
        LookupError: If the text that it replaces is not there, or not once.
    """
    module_name, _, path = mutant.target.partition(":")
    module = importlib.import_module(module_name)
    holder: Any = module
    *outer, name = path.split(".")
    for part in outer:
        holder = getattr(holder, part)
    original = inspect.getattr_static(holder, name)
    setattr(holder, name, _altered(mutant, original, module.__dict__))
    try:
        yield
    finally:
        setattr(holder, name, original)


def _altered(mutant: Mutant, original: Any, namespace: dict[str, Any]) -> Any:
    if isinstance(original, str):
        return _replaced(mutant, original)
    function: Any = original.fget if isinstance(original, property) else original
    text = _replaced(mutant, textwrap.dedent(inspect.getsource(function)))
    made: dict[str, Any] = {}
    code = compile(text, f"<{mutant.name}>", "exec", flags=__future__.annotations.compiler_flag, dont_inherit=True)
    exec(code, namespace, made)  # noqa: S102  # the text is the engine's own
    return made[function.__name__]


def _replaced(mutant: Mutant, text: str) -> str:
    if text.count(mutant.old) != 1:
        raise LookupError(f"`{mutant.old}` is {text.count(mutant.old)} times in {mutant.target}")
    return text.replace(mutant.old, mutant.new)
