"""What must be true of every field of the resources: a table for each, with a check for each field.

A check is given what can be read of a job at one moment and says whether the field's value follows from the rest: a
counter from what is really listed, a time from the event that set it, a duration from two times. A field without a
check fails `test_every_field_has_a_check`.
"""

# ruff: noqa: ARG005 - every check of a table takes the same, and few need all of it

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from pixloom.graph.canonical import digest_of
from pixloom.resources import Attempt, Event, ItemCounts, Job, JobError, Node, Output, Snapshot, TaskCounts
from tests.support.job_sight import durable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pydantic import BaseModel

    from tests.support.job_sight import Sight

__all__ = ["CHECKS", "Given", "check_sight", "require_true"]

EVENT_TYPES: Final = {
    "job_created", "job_started", "job_paused", "job_resumed", "job_cancelling", "job_updated", "job_recovering",
    "generation_opened", "node_released", "node_ended", "job_ended",
}  # fmt: skip
TERMINAL: Final = {"COMPLETED", "FAILED", "SKIPPED", "CANCELLED"}
DONE: Final = {"OK", "PARTIAL"}
CLOCKS: Final = timedelta(seconds=1)
"""How far apart the clocks of database, executors and this process are taken to be."""

Table = dict[str, "Callable[[Any, Sight, Given], object]"]


@dataclass(frozen=True, slots=True)
class Given:
    """What is known of a job before it is looked at.

    Attributes:
        id: Its id.
        spec: Its document.
        name: Its name.
        version: Version of its workflow.
        params: Params of the run.
        tags: Its tags.
        metadata: Its metadata.
        priority: Its priority.
        external_id: The caller's own id.
        trace_id: Trace of the call that created it.
        created: Times before and after that call, seconds.
        firsts: Nodes with which the stages begin.
        ends: Nodes whose items are at their end.
        needs: Nodes that each node waits for.
        recoveries: Times it was recovered.
    """

    id: str
    spec: dict[str, Any]
    name: str
    version: int
    params: dict[str, Any]
    tags: dict[str, str]
    metadata: dict[str, Any]
    priority: int
    external_id: str | None
    trace_id: str | None
    created: tuple[float, float]
    firsts: tuple[str, ...]
    ends: tuple[str, ...]
    needs: Mapping[str, list[str]]
    recoveries: int = field(default=0)

    def node(self, name: str) -> dict[str, Any]:
        """Return a node of the document."""
        found: dict[str, Any] = next(node for node in self.spec["nodes"] if node["id"] == name)
        return found


def require_true(resource: BaseModel, sight: Sight, given: Given, moment: str) -> None:
    """Require every field of a resource to be true."""
    for name, check in CHECKS[type(resource)].items():
        value = getattr(resource, name)
        assert check(resource, sight, given), f"{moment}: {type(resource).__name__}.{name} is {value!r} in {resource!r}"


def check_sight(sight: Sight, given: Given, moment: str) -> None:
    """Require everything that is shown of a job to be true."""
    require_true(sight.job, sight, given, moment)
    for node in sight.nodes.values():
        require_true(node, sight, given, moment)
        for attempt in sight.attempts[node.id]:
            require_true(attempt, sight, given, moment)
    for event in sight.events:
        require_true(event, sight, given, moment)
    require_true(sight.snapshot, sight, given, moment)
    # Every row of the journal is an event or an attempt, and none is missing.
    seqs = sorted([event.seq for event in sight.events] + [attempt.seq for attempt in sight.all_attempts])
    assert seqs == list(range(1, sight.job.seq + 1)), moment


# -- What follows from what -------------------------------------------------------------------------------------------


def _within(time: datetime | None, since: float, until: float) -> bool:
    slack = CLOCKS.total_seconds()
    return time is not None and since - slack <= time.timestamp() <= until + slack


def _is_duration(seconds: float | None, start: datetime | None, end: datetime | None, sight: Sight) -> bool:
    """Return whether a duration is the time from start to end, or to now, or unset before the start."""
    if start is None:
        return seconds is None
    if seconds is None:
        return False
    if end is not None:
        return abs(seconds - (end - start).total_seconds()) < 2e-6
    return _within(start + timedelta(seconds=seconds), sight.since, sight.until)


def _state_of_job(sight: Sight) -> str | None:
    return next((e.state for e in reversed(sight.events) if e.type.startswith("job_") and e.state), None)


def _counts(items: Iterable[Any]) -> ItemCounts:
    found = Counter(str(item.state) for item in items)
    return ItemCounts(ok=found["OK"], filtered=found["FILTERED"], rejected=found["REJECTED"])


def _latest(attempts: list[Attempt]) -> list[Attempt]:
    """Return the attempts of the generation that a node was last run in."""
    newest = max((attempt.generation for attempt in attempts), default=0)
    return [attempt for attempt in attempts if attempt.generation == newest]


def _tasks(attempts: list[Attempt], *, ended: bool) -> tuple[int, int]:
    """Return how many tasks have ended, and how many of them in failure."""
    last = {attempt.task: attempt for attempt in attempts}
    failed = sum(ended and attempt.outcome == "FAILED" for attempt in last.values())
    return sum(attempt.outcome in DONE for attempt in last.values()) + failed, failed


def _job_items_are_true(job: Job, sight: Sight, given: Given) -> bool:
    listed = [_counts(sight.items[node]) for node in sight.nodes]
    ok = sum(_counts(sight.items[node]).ok for node in given.ends)
    dropped = (sum(counts.filtered for counts in listed), sum(counts.rejected for counts in listed))
    # Before all of it has ended, items may be on their way to where they are counted.
    is_ok = job.items.ok == ok if job.state.is_final else job.items.ok <= ok
    return is_ok and (job.items.filtered, job.items.rejected) == dropped


def _job_tasks_are_true(job: Job, sight: Sight, given: Given) -> bool:
    shown = [sight.nodes[node].tasks for node in given.firsts]
    total, done, failed = (sum(getattr(tasks, name) for tasks in shown) for name in ("total", "done", "failed"))
    return job.tasks == TaskCounts(total=total, done=done, failed=failed)


def _node_tasks_are_true(node: Node, sight: Sight, _: Given) -> bool:
    done, failed = _tasks(_latest(sight.attempts[node.id]), ended=node.state in TERMINAL)
    is_whole = node.state != "COMPLETED" or node.tasks.total == node.tasks.done
    return (node.tasks.done, node.tasks.failed) == (done, failed) and node.tasks.total >= done and is_whole


def _error_is_true(error: JobError | None, event: Event | None, node: str | None, states: set[str]) -> bool:
    if event is None or event.state not in states:
        return error is None
    return error == JobError(reason=event.reason or "", detail=event.detail or "", node=node)


def _result_is_true(node: Node, sight: Sight, _: Given) -> bool:
    if node.state != "COMPLETED":
        return node.result is None and node.id not in sight.results.nodes
    shown = sight.results.nodes.get(node.id)
    if node.result is None or shown != node.result or node.result.node != node.id:
        return False
    match str(node.result.kind):
        case "collection":
            return node.result.count == _counts(sight.items[node.id]).ok
        case "artifact":
            return node.result.artifact is not None and len(node.result.artifact.sha256) == 64
        case _:
            return node.result.artifact is None and node.result.count is None


def _estimated_end_is_true(job: Job, sight: Sight, _: Given) -> bool:
    if job.state != "RUNNING" or job.estimated_end_time is None:
        return job.estimated_end_time is None
    return job.estimated_end_time.timestamp() >= sight.since - CLOCKS.total_seconds()


def _estimated_duration_is_true(job: Job, _: Sight, __: Given) -> bool:
    if job.estimated_end_time is None or job.start_time is None:
        return job.estimated_duration_s is None
    seconds = (job.estimated_end_time - job.start_time).total_seconds()
    return job.estimated_duration_s is not None and abs(job.estimated_duration_s - seconds) < 1e-3


def _time_of_event(event: Event, sight: Sight, _: Given) -> bool:
    """Return whether the time of an event is the one that it gave to what it happened to."""
    job = sight.job
    if event.time is None or job.update_time is None or not job.update_time >= event.time:
        return False
    if event is sight.first_event("job_started"):
        return event.time == job.start_time
    if event.type == "job_ended" and event is sight.events[-1]:
        return event.time == job.end_time
    if event.type == "node_ended" and event is sight.last_event("node_ended", event.node):
        return event.time == sight.nodes[event.node or ""].end_time
    return True


def _begins_when_its_first_attempt_does(node: Node, sight: Sight, _: Given) -> bool:
    attempts = sight.attempts[node.id]
    if attempts:
        # In a next generation it begins anew, or goes on where it was.
        begins = [min(one.start_time for one in of if one.start_time) for of in (attempts, _latest(attempts))]
        return node.start_time in begins
    if node.start_time is None:
        return node.state in {"PENDING", "QUEUED", "SKIPPED", "CANCELLED"}
    return sight.job.start_time is not None and node.start_time >= sight.job.start_time


def _waits_with_a_reason(node: Node, sight: Sight, _: Given) -> bool:
    if node.state in TERMINAL or (node.state == "RUNNING" and sight.job.state == "RUNNING"):
        return node.waiting_reason is None
    return bool(node.waiting_reason)


def _is_executor_of_an_attempt(attempt: Attempt, sight: Sight, _: Given) -> bool:
    return bool(re.fullmatch(r"[\w.:-]{8,}", attempt.executor_id)) and (
        attempt.outcome == "LOST" or attempt.executor_id in sight.executors
    )


# -- The tables -------------------------------------------------------------------------------------------------------

JOB: Final[Table] = {
    "id": lambda j, s, g: j.id == g.id == s.snapshot.job.id,
    "name": lambda j, s, g: j.name == g.name,
    "workflow": lambda j, s, g: j.workflow == g.spec["name"],
    "version": lambda j, s, g: j.version == g.version,
    "sha256": lambda j, s, g: j.sha256 == digest_of(g.spec),
    "generation": lambda j, s, g: j.generation == 1 + sum(e.type == "generation_opened" for e in s.events),
    "state": lambda j, s, g: j.state == _state_of_job(s) == s.results.state and j.state.is_final == s.results.complete,
    "reason": lambda j, s, g: j.reason == (j.error.reason if j.error else {"CANCELLED": "CANCELLED"}.get(j.state)),
    "progress": lambda j, s, g: (j.progress == 100) == (j.state == "COMPLETED") and 0 <= j.progress <= 100,
    "current_step": lambda j, s, g: (
        j.current_step == next((n.step_index for n in s.nodes.values() if n.state not in TERMINAL), len(s.nodes))
    ),
    "total_steps": lambda j, s, g: j.total_steps == len(g.spec["nodes"]) == len(s.nodes),
    "tasks": _job_tasks_are_true,
    "items": _job_items_are_true,
    "params": lambda j, s, g: j.params == g.params,
    "tags": lambda j, s, g: j.tags == g.tags,
    "metadata": lambda j, s, g: j.metadata == g.metadata,
    "priority": lambda j, s, g: j.priority == g.priority,
    "project": lambda j, s, g: j.project == "default",
    "external_id": lambda j, s, g: j.external_id == g.external_id,
    "recovery_attempts": lambda j, s, g: (
        j.recovery_attempts
        == g.recoveries
        == sum(e.type == "job_recovering" and e.detail == "recovered" for e in s.events)
    ),
    "max_recovery_attempts": lambda j, s, g: j.max_recovery_attempts == g.spec["max_recovery_attempts"],
    "error": lambda j, s, g: _error_is_true(
        j.error,
        next((e for e in reversed(s.events) if e.type == "job_ended"), None) if j.state.is_final else None,
        next((e.node for e in reversed(s.events) if e.type == "job_ended"), None),
        {"FAILED"},
    ),
    "create_time": lambda j, s, g: _within(j.create_time, *g.created),
    "update_time": lambda j, s, g: (
        j.update_time == max([e.time for e in s.events[-1:]] + [j.last_checkpoint_time or j.create_time])
    ),
    "start_time": lambda j, s, g: (j.start_time is None) == (s.first_event("job_started") is None),
    "end_time": lambda j, s, g: (j.end_time is not None) == j.state.is_final,
    "last_checkpoint_time": lambda j, s, g: (
        (j.last_checkpoint_time is None) == (not s.all_attempts)
        and all(a.end_time <= j.last_checkpoint_time <= j.update_time for a in s.all_attempts)
    ),
    "estimated_end_time": _estimated_end_is_true,
    "estimated_duration_s": _estimated_duration_is_true,
    "actual_duration_s": lambda j, s, g: _is_duration(j.actual_duration_s, j.start_time, j.end_time, s),
    "trace_id": lambda j, s, g: j.trace_id == g.trace_id,
    "outputs": lambda j, s, g: (
        j.outputs
        == ({n: s.nodes[w].result for n, w in g.spec["outputs"].items() if s.nodes[w].result} if j.end_time else {})
    ),
    "seq": lambda j, s, g: j.seq == len(s.events) + len(s.all_attempts),
    "warnings": lambda j, s, g: j.warnings == [],
}

NODE: Final[Table] = {
    "id": lambda n, s, g: s.nodes[n.id] is n,
    "op": lambda n, s, g: re.fullmatch(rf"{re.escape(g.node(n.id)['op'])}@\d+", n.op),
    "step_index": lambda n, s, g: g.spec["nodes"][n.step_index]["id"] == n.id,
    "state": lambda n, s, g: (
        (n.state in TERMINAL) == (n.end_time is not None)
        and (n.end_time is None or n.state == getattr(s.last_event("node_ended", n.id), "state", None))
    ),
    "waiting_reason": _waits_with_a_reason,
    "dependencies": lambda n, s, g: n.dependencies == g.needs[n.id],
    "retry_count": lambda n, s, g: n.retry_count == sum(a.number > 1 for a in _latest(s.attempts[n.id])),
    "max_attempts": lambda n, s, g: n.max_attempts == g.node(n.id).get("retry", {}).get("max_attempts", 4),
    "result": _result_is_true,
    "error": lambda n, s, g: _error_is_true(
        n.error, s.last_event("node_ended", n.id) if n.end_time else None, n.id, {"FAILED", "SKIPPED", "CANCELLED"}
    ),
    "items": lambda n, s, g: n.items == _counts(s.items[n.id]),
    "tasks": _node_tasks_are_true,
    "reasons": lambda n, s, g: n.reasons == Counter(i.reason for i in s.items[n.id] if i.state != "OK"),
    "estimated_duration_s": lambda n, s, g: (
        n.estimated_duration_s
        == g.node(n.id).get("estimated_duration_s", None if n.end_time else n.estimated_duration_s)
    ),
    "actual_duration_s": lambda n, s, g: _is_duration(n.actual_duration_s, n.start_time, n.end_time, s),
    "start_time": _begins_when_its_first_attempt_does,
    "end_time": lambda n, s, g: n.end_time is None or n.end_time >= (n.start_time or n.end_time),
    "generation": lambda n, s, g: (
        max((a.generation for a in s.attempts[n.id]), default=1) <= n.generation <= s.job.generation
    ),
}

ATTEMPT: Final[Table] = {
    "id": lambda a, s, g: a.id == f"{a.task}.{a.number}",
    "node": lambda a, s, g: a in s.attempts[a.node],
    "task": lambda a, s, g: re.fullmatch(rf"{g.id}\.{a.generation}\.\d+\.\d+", a.task),
    "number": lambda a, s, g: (
        [b.number for b in s.all_attempts if b.task == a.task]
        == list(range(1, 1 + sum(b.task == a.task for b in s.all_attempts)))
    ),
    "generation": lambda a, s, g: 1 <= a.generation <= s.job.generation,
    "executor_id": _is_executor_of_an_attempt,
    "outcome": lambda a, s, g: a.outcome in {"OK", "PARTIAL", "FAILED", "LOST", "CANCELLED"},
    "reason": lambda a, s, g: (a.reason is None) == (a.outcome == "OK"),
    "detail": lambda a, s, g: (a.detail is None) == (a.outcome == "OK"),
    "start_time": lambda a, s, g: s.job.start_time <= a.start_time <= a.end_time,
    "end_time": lambda a, s, g: a.end_time <= s.job.last_checkpoint_time,
    "items": lambda a, s, g: (a.items == ItemCounts()) if a.outcome == "FAILED" else a.items.ok >= 0,
    "seq": lambda a, s, g: 1 < a.seq <= s.job.seq,
}

EVENT: Final[Table] = {
    "seq": lambda e, s, g: 1 <= e.seq <= s.job.seq,
    "type": lambda e, s, g: e.type in EVENT_TYPES,
    "time": _time_of_event,
    "node": lambda e, s, g: e.node in s.nodes if e.type.startswith("node_") else e.node is None or e.node in s.nodes,
    "state": lambda e, s, g: (
        (e.state is None) == (e.type in {"job_cancelling", "job_updated", "generation_opened", "node_released"})
    ),
    "reason": lambda e, s, g: (e.reason is None) == (e.state not in {"FAILED", "SKIPPED", "CANCELLED"}),
    "detail": lambda e, s, g: bool(e.detail) or e.reason is None,
    "generation": lambda e, s, g: (
        e.generation == 1 + sum(other.type == "generation_opened" and other.seq <= e.seq for other in s.events)
    ),
}

SNAPSHOT: Final[Table] = {
    "job": lambda x, s, g: durable(x.job) == durable(s.job),
    "nodes": lambda x, s, g: durable(x.nodes) == durable(list(s.nodes.values())),
}

CHECKS: Final[dict[type[BaseModel], Table]] = {Job: JOB, Node: NODE, Attempt: ATTEMPT, Event: EVENT, Snapshot: SNAPSHOT}
PARTS: Final = (TaskCounts, ItemCounts, JobError, Output)
"""Resources inside these: compared as a whole by the checks of the fields that hold them."""
