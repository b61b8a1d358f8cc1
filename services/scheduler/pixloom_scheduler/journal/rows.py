"""Durable changes as journal rows and back."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final

import orjson

from pixloom_scheduler.core.changes import (
    AttemptEnded,
    CancelAccepted,
    Cut,
    Durable,
    GenerationOpened,
    JobAccepted,
    JobEnded,
    JobStarted,
    JobUpdated,
    NodeEnded,
    NodeReleased,
    NodeTally,
    PauseAccepted,
    RecoveryAccepted,
    ResumeAccepted,
    RetriedItems,
    Split,
)
from pixloom_scheduler.core.states import JobState, NodeState, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["COLUMNS", "KINDS", "decode", "decode_tallies", "encode"]

COLUMNS: Final = (
    "day",
    "job_id",
    "seq",
    "time",
    "project",
    "kind",
    "generation",
    "stage",
    "shard",
    "attempt",
    "outcome",
    "executor",
    "reason",
    "detail",
    "start_time",
    "end_time",
    "items_out",
    "flags",
    "counts",
    "cuts",
    "payload",
    "data",
)

KINDS: Final[dict[type[object], int]] = {
    JobAccepted: 1,
    JobStarted: 2,
    PauseAccepted: 3,
    ResumeAccepted: 4,
    CancelAccepted: 5,
    NodeReleased: 6,
    AttemptEnded: 7,
    NodeEnded: 8,
    JobEnded: 9,
    JobUpdated: 10,
    RecoveryAccepted: 11,
    GenerationOpened: 12,
}
_BY_KIND: Final = {kind: cls for cls, kind in KINDS.items()}
_OUTCOMES: Final = (Outcome.OK, Outcome.PARTIAL, Outcome.FAILED, Outcome.LOST, Outcome.CANCELLED)
_OUTCOME_NUMBER: Final = {outcome: number for number, outcome in enumerate(_OUTCOMES, start=1)}

_ENDS_SHARD, _FAILED, _SEALS, _CARRIED, _HAS_VALUE = 1, 2, 4, 8, 16

Row = tuple[Any, ...]


def _time(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def encode(change: Durable, *, day: date, job_id: str, seq: int, time: float, project: str, generation: int) -> Row:
    """Return the journal row of a change, in the order of `COLUMNS`.

    Args:
        change: What happened.
        day: Day on which the job was created.
        job_id: The job.
        seq: Number of the row in the job's journal.
        time: When it is written, seconds by the database's clock.
        project: Project of the job.
        generation: Generation of the job.
    """
    head = (day, job_id, seq, datetime.fromtimestamp(time, UTC), project, KINDS[type(change)], generation)
    match change:
        case AttemptEnded():
            return head + _attempt(change)
        case NodeEnded():
            data = {"node": change.node, "state": change.state}
            return head + _event(data, reason=change.reason, detail=change.detail, end=change.time)
        case JobEnded():
            data = {"state": change.state, "node": change.node}
            return head + _event(data, reason=change.reason, detail=change.detail, end=change.time)
        case JobStarted():
            params = None if change.new_plan is None else change.new_plan.params_json
            asked = {} if change.request is None else {"request": change.request}
            return head + _event({"deadline": change.deadline, **asked}, start=change.time, payload=params)
        case PauseAccepted():
            return head + _event({"now": True} if change.now else {})
        case RecoveryAccepted():
            return head + _event(_recovery(change))
        case GenerationOpened():
            retried = [
                [items.stage, items.shard, items.indexes, items.places, items.rejected] for items in change.retried
            ]
            return head + _event({"reset": change.reset, "reopened": change.reopened, "retried": retried})
        case JobAccepted():
            made_of = {"made_of": change.made_of, "from_node": change.from_node}
            return head + _event(made_of if change.made_of else {})
        case JobUpdated():
            return head + _event({"tags": change.tags, "priority": change.priority})
        case CancelAccepted():
            return head + _event({"now": change.now, "failure": change.failure}, detail=change.detail)
        case NodeReleased():
            resolved = {str(node): value for node, value in change.params.items()}
            return head + _event({"stage": change.stage, "params": resolved})
        case _:
            return head + _event({})


def _recovery(change: RecoveryAccepted) -> dict[str, Any]:
    asked = {"request": change.request} if change.request else {}
    return {
        **asked,
        "is_recovery": change.is_recovery,
        "again": change.again,
        "retries_rejects": change.retries_rejects,
        "nodes": change.nodes,
        "reasons": change.reasons,
    }


def _event(
    data: dict[str, Any],
    *,
    reason: str = "",
    detail: str = "",
    start: float = 0.0,
    end: float = 0.0,
    payload: bytes | None = None,
) -> Row:
    encoded = orjson.dumps(data).decode() if data else None
    empty = (None,) * 5
    return (*empty, reason or None, detail or None, _time(start), _time(end), None, None, None, None, payload, encoded)


def _attempt(change: AttemptEnded) -> Row:
    data: dict[str, Any] = {}
    counts: list[int] | None = None
    if change.tallies:
        counts = [n for tally in change.tallies for n in (tally.ok, tally.filtered, tally.rejected)]
        if any(tally.reasons for tally in change.tallies):
            data["reasons"] = [tally.reasons for tally in change.tallies]
    if change.due:
        data["due"] = change.due
    if change.split is not None:
        split = change.split
        data["split"] = [split.subsets, split.attempt, split.failures, split.lost, split.due]
    if change.cursor is not None:
        data["cursor"] = change.cursor
    if change.has_value:
        data["value"] = change.value
    if change.warnings:
        data["warnings"] = change.warnings
    flags = (
        (_ENDS_SHARD if change.ends_shard else 0)
        | (_FAILED if change.failed else 0)
        | (_SEALS if change.seals else 0)
        | (_CARRIED if change.carried else 0)
        | (_HAS_VALUE if change.has_value else 0)
    )
    cuts = [n for cut in change.cuts for n in (cut.stage, cut.edge, cut.items, cut.size)] if change.cuts else None
    return (
        change.stage,
        change.shard,
        change.attempt,
        _OUTCOME_NUMBER[change.outcome],
        change.executor,
        change.reason or None,
        change.detail or None,
        _time(change.start),
        _time(change.end),
        change.items_out,
        flags,
        counts,
        cuts,
        change.payload,
        orjson.dumps(data).decode() if data else None,
    )


def decode(row: Mapping[str, Any]) -> Durable:
    """Return the change that a journal row was made of; its payload stays in the database."""
    data: dict[str, Any] = row["data"] or {}
    kind = _BY_KIND[row["kind"]]
    if kind is AttemptEnded:
        return _decode_attempt(row, data)
    end = row["end_time"].timestamp() if row["end_time"] else 0.0
    if kind is NodeEnded:
        return NodeEnded(
            node=data["node"],
            state=NodeState(data["state"]),
            reason=row["reason"] or "",
            detail=row["detail"] or "",
            time=end,
        )
    if kind is JobEnded:
        return JobEnded(
            state=JobState(data["state"]),
            reason=row["reason"] or "",
            detail=row["detail"] or "",
            node=data["node"],
            time=end,
        )
    if kind is JobStarted:
        return JobStarted(time=row["start_time"].timestamp(), deadline=data["deadline"], request=data.get("request"))
    if kind is CancelAccepted:
        failure = data["failure"]
        return CancelAccepted(
            detail=row["detail"] or "",
            now=data["now"],
            failure=(failure[0], failure[1], failure[2]) if failure else None,
        )
    if kind is NodeReleased:
        return NodeReleased(stage=data["stage"], params={int(node): params for node, params in data["params"].items()})
    if kind is PauseAccepted:
        return PauseAccepted(now=data.get("now", False))
    if kind is RecoveryAccepted:
        return RecoveryAccepted(
            is_recovery=data["is_recovery"],
            again=tuple(data["again"]),
            retries_rejects=data["retries_rejects"],
            nodes=tuple(data["nodes"]),
            reasons=tuple(data["reasons"]),
            request=data.get("request", ""),
        )
    if kind is GenerationOpened:
        return GenerationOpened(
            reset=tuple(data["reset"]),
            reopened=tuple(data["reopened"]),
            retried=tuple(
                RetriedItems(stage, shard, tuple(indexes), tuple(places), tuple(map(tuple, rejected)))
                for stage, shard, indexes, places, rejected in data["retried"]
            ),
        )
    if kind is JobUpdated:
        return JobUpdated(tags=data["tags"], priority=data["priority"])
    if kind is ResumeAccepted:
        return ResumeAccepted()
    return JobAccepted(made_of=data.get("made_of", ""), from_node=data.get("from_node", ""))


def decode_tallies(counts: Sequence[int], reasons: Sequence[dict[str, int] | None] | None) -> tuple[NodeTally, ...]:
    """Return what an attempt counted, node by node, from the column `counts` and the `reasons` in its data."""
    reasons = reasons or [None] * (len(counts) // 3)
    return tuple(
        NodeTally(ok=counts[i], filtered=counts[i + 1], rejected=counts[i + 2], reasons=reasons[i // 3])
        for i in range(0, len(counts), 3)
    )


def _decode_attempt(row: Mapping[str, Any], data: dict[str, Any]) -> AttemptEnded:
    flags: int = row["flags"]
    cuts: list[int] = row["cuts"] or []
    split = data.get("split")
    return AttemptEnded(
        stage=row["stage"],
        shard=row["shard"],
        attempt=row["attempt"],
        outcome=_OUTCOMES[row["outcome"] - 1],
        executor=row["executor"] or "",
        reason=row["reason"] or "",
        detail=row["detail"] or "",
        start=row["start_time"].timestamp() if row["start_time"] else 0.0,
        end=row["end_time"].timestamp() if row["end_time"] else 0.0,
        ends_shard=bool(flags & _ENDS_SHARD),
        failed=bool(flags & _FAILED),
        items_out=row["items_out"],
        tallies=decode_tallies(row["counts"] or (), data.get("reasons")),
        cuts=tuple(Cut(*cuts[i : i + 4]) for i in range(0, len(cuts), 4)),
        split=Split(tuple(tuple(subset) for subset in split[0]), *split[1:]) if split else None,
        due=data.get("due", 0.0),
        cursor=data.get("cursor"),
        seals=bool(flags & _SEALS),
        value=data.get("value"),
        has_value=bool(flags & _HAS_VALUE),
        carried=bool(flags & _CARRIED),
        warnings=tuple(data.get("warnings", ())),
    )
