"""Reads reports at the edge: protobuf in, checked core values out.

Nothing behind this module needs to distrust a report: text is free of NUL and bounded, counts match the stage, and
what is too large for a journal row is refused.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import orjson

from pixloom.graph.plan import StageKind
from pixloom.v1 import executor_pb2, item_pb2, job_pb2
from pixloom_scheduler.core.changes import NodeTally
from pixloom_scheduler.core.events import Result
from pixloom_scheduler.core.states import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from google.protobuf.timestamp_pb2 import Timestamp

    from pixloom_scheduler.core.model import StageRun

__all__ = ["is_unambiguous", "outputs_of", "read_report", "read_result", "read_siblings"]

MAX_TEXT: Final = 1024
MAX_VALUE_BYTES: Final = 64 * 1024
MAX_PAYLOAD_BYTES: Final = 256 * 1024
MAX_OUTPUT_BYTES: Final = 4096
"""Most bytes of the items of an ordinary result."""

LATEST_S: Final = 253_402_300_799.0
"""The last second of the year 9999."""

_FIELDS: Final = executor_pb2.TaskResult.DESCRIPTOR.fields_by_name
_ORDINARY: Final = [_FIELDS[name] for name in ("outcome", "start_time", "end_time", "counts")]
_OUTPUT: Final = _FIELDS["output"]
_VALUE: Final = _FIELDS["value_json"]
_OUTCOMES: Final = {
    job_pb2.ATTEMPT_OUTCOME_OK: Outcome.OK,
    job_pb2.ATTEMPT_OUTCOME_PARTIAL: Outcome.PARTIAL,
    job_pb2.ATTEMPT_OUTCOME_FAILED: Outcome.FAILED,
    job_pb2.ATTEMPT_OUTCOME_LOST: Outcome.LOST,
    job_pb2.ATTEMPT_OUTCOME_CANCELLED: Outcome.CANCELLED,
}


def _text(value: str) -> str:
    return value[:MAX_TEXT].replace("\0", "�") if value else ""


def _seconds(time: Timestamp) -> float:
    # Whole microseconds, as the database keeps them, and a time that there is: an executor's clock may show anything.
    seconds = (time.seconds * 1_000_000 + time.nanos // 1000) / 1e6
    return seconds if 0.0 <= seconds <= LATEST_S else min(max(seconds, 0.0), LATEST_S)


def read_report(stage: StageRun, report: executor_pb2.Report) -> tuple[Result, ...]:
    """Return reported results as the core takes them; one that cannot be read becomes a FAILED one that says why."""
    results = [read_result(stage, message) for message in report.results]
    if report.HasField("ordinary"):
        results += _read_columns(stage, report.ordinary)
    return tuple(results)


def read_siblings(
    stages: Sequence[StageRun], leases: Mapping[int, int], report: executor_pb2.Report
) -> tuple[tuple[int, Result], ...]:
    """Return the reported results of siblings as the core takes them, each with its lease.

    Args:
        stages: The stages of their job.
        leases: Leases of the siblings by stage, by which the report names them; what is not among them is left out.
        report: The report.
    """
    found = []
    for message in report.results:
        lease = leases.get(message.shard)
        if lease is not None:
            result = read_result(stages[message.shard], message)
            result.shard = 0
            found.append((lease, result))
    return tuple(found)


def read_result(stage: StageRun, message: executor_pb2.TaskResult) -> Result:
    """Return a reported result as the core takes it; one that cannot be read becomes a FAILED one that says why."""
    return _read_ordinary(stage, message) or _read_any(stage, message)


def is_unambiguous(report: executor_pb2.Report) -> bool:
    """Return whether a report says one thing of each of its tasks: its outputs may be remembered as they stand in it.

    Of others, the journal alone knows which of their results counted.
    """
    columns = report.ordinary
    rows = len(columns.shards)
    return (
        len({*columns.shards, *(result.shard for result in report.results)}) == rows + len(report.results)
        and len(columns.items) == rows
        and len(columns.outputs) == rows
    )


def outputs_of(report: executor_pb2.Report) -> Iterator[tuple[int, item_pb2.Manifest]]:
    """Yield shard and output of the results in an unambiguous report, of whatever is wrong as well."""
    for result in report.results:
        yield result.shard, result.output
    columns = report.ordinary
    for shard, items, output in zip(columns.shards, columns.items, columns.outputs, strict=True):
        yield shard, item_pb2.Manifest(count=items, inline=output)


def _read_columns(stage: StageRun, columns: executor_pb2.OrdinaryResults) -> list[Result]:
    """Read results that were reported as columns."""
    rows = len(columns.shards)
    others = (columns.attempts, columns.started_us, columns.ended_us, columns.items, columns.outputs)
    problem = ""
    if any(len(column) != rows for column in others) or len(columns.elapsed_ns) != len(stage.plan.nodes):
        problem = "its columns differ in length"
    elif stage.plan.kind is not StageKind.MAPPED:
        problem = "tasks of this stage have no ordinary results"
    if problem:
        return [
            _malformed(shard, attempt, problem)
            for shard, attempt in zip(columns.shards, columns.attempts, strict=False)
        ]
    latest_us = LATEST_S * 1e6
    found = []
    for shard, attempt, started_us, ended_us, items, output in zip(columns.shards, *others, strict=True):
        # A record with its place takes two bytes at least: a count alone must not make shards of what is not there.
        if not items or not 2 * items <= len(output) <= MAX_OUTPUT_BYTES or max(started_us, ended_us) > latest_us:
            found.append(_malformed(shard, attempt, "an ordinary result has no items, too long ones or an odd time"))
            continue
        found.append(
            Result(
                shard=shard,
                attempt=attempt,
                outcome=Outcome.OK,
                start=started_us / 1e6,
                end=ended_us / 1e6,
                items_out=items,
                retryable=False,
                payload=_head_of_payload(items, len(output)) + output,
            )
        )
    return found


@lru_cache(maxsize=4096)
def _head_of_payload(items: int, size: int) -> bytes:
    """Return what stands before `size` bytes of items in a payload that says nothing else: they are its last field."""
    manifest = item_pb2.Manifest(count=items, inline=bytes(size))
    return executor_pb2.TaskResult(output=manifest).SerializeToString()[:-size]


def _malformed(shard: int, attempt: int, problem: str) -> Result:
    return Result(shard=shard, attempt=attempt, outcome=Outcome.FAILED, reason="MALFORMED_REPORT", detail=problem)


def _read_ordinary(stage: StageRun, message: executor_pb2.TaskResult) -> Result | None:
    """Read a result of a task all of whose items passed, or of a run that gave a value; None for another one.

    Nearly all are of these kinds. Asking a message for its fields at once takes a fraction of asking for each.
    """
    # They come by their numbers: before these five there is room for shard and attempt alone, behind them for nothing.
    last = message.ListFields()[-5:]
    if [field for field, _ in last[:4]] != _ORDINARY or len(last) < 5:
        return None
    (_, outcome), (_, start), (_, end), (_, counts), (field, found) = last
    if (
        outcome != job_pb2.ATTEMPT_OUTCOME_OK
        or len(counts) != len(stage.plan.nodes)
        or message.ByteSize() > MAX_PAYLOAD_BYTES
    ):
        return None
    result = Result(
        shard=message.shard,
        attempt=message.attempt,
        outcome=Outcome.OK,
        start=_seconds(start),
        end=_seconds(end),
        retryable=False,
    )
    if field is _OUTPUT:
        count = result.items_out = found.count
        if any(node.ok != count or node.filtered or node.rejected for node in counts):
            return None
        result.payload = executor_pb2.TaskResult(output=found).SerializeToString() if count else None
        return result
    if field is not _VALUE or len(found) > MAX_VALUE_BYTES or any(node.filtered or node.rejected for node in counts):
        return None
    try:
        result.value, result.has_value = orjson.loads(found), True
    except orjson.JSONDecodeError:
        return None
    if any(node.ok for node in counts):
        # A run without items counts itself.
        result.tallies = tuple(NodeTally(ok=node.ok) for node in counts)
    return result


def _read_any(stage: StageRun, message: executor_pb2.TaskResult) -> Result:
    start, end = _seconds(message.start_time), _seconds(message.end_time)
    outcome = _OUTCOMES.get(message.outcome)
    problem = "the report has no outcome" if outcome is None else _mistake(stage, message)
    value: Any = None
    has_value = False
    if problem is None:
        try:
            value, has_value = _value(message)
        except orjson.JSONDecodeError:
            problem = "its value is not JSON"
    if problem is not None or outcome is None:
        return Result(
            shard=message.shard,
            attempt=message.attempt,
            outcome=Outcome.FAILED,
            reason="MALFORMED_REPORT",
            detail=problem or "",
            start=start,
            end=end,
        )
    return Result(
        shard=message.shard,
        attempt=message.attempt,
        outcome=outcome,
        reason=_text(message.reason),
        detail=_text(message.detail),
        start=start,
        end=end,
        items_out=message.output.count,
        tallies=_tallies(message),
        retry_indexes=tuple(message.retry_indexes),
        retry_after_s=message.retry_after.seconds + message.retry_after.nanos / 1e9
        if message.HasField("retry_after")
        else 0.0,
        retryable=message.retryable,
        cursor=_text(message.next_cursor),
        end_of_source=message.end,
        value=value,
        has_value=has_value,
        payload=_payload(message),
        warnings=tuple(_text(warning) for warning in message.warnings[:20]) if message.warnings else (),
    )


def _mistake(stage: StageRun, message: executor_pb2.TaskResult) -> str | None:
    if message.counts and len(message.counts) != len(stage.plan.nodes):
        return f"it counts {len(message.counts)} nodes where the stage has {len(stage.plan.nodes)}"
    if len(message.value_json) > MAX_VALUE_BYTES:
        return f"its value is larger than {MAX_VALUE_BYTES // 1024} KiB; store it as an artifact"
    items = stage.shards.items_of(message.shard) if message.shard < len(stage.shards) else 0
    if message.retry_indexes and any(index >= items for index in message.retry_indexes):
        return "it wants items tried again that it was not given"
    if message.outcome == job_pb2.ATTEMPT_OUTCOME_PARTIAL:
        again = message.retry_indexes
        # A shard of no items in particular would be a shard of all of them.
        if stage.plan.kind is not StageKind.MAPPED or not again or len(set(again)) < len(again):
            return "it is PARTIAL and does not say, once each, which items are to be tried again"
    if message.ByteSize() > MAX_PAYLOAD_BYTES:
        return f"it is larger than {MAX_PAYLOAD_BYTES // 1024} KiB"
    return None


def _tallies(message: executor_pb2.TaskResult) -> tuple[NodeTally, ...]:
    counts = message.counts
    if not counts:
        return ()
    count = message.output.count
    for node in counts:
        if node.ok != count or node.filtered or node.rejected:
            break
    else:
        return ()
    tallies = []
    for node in counts:
        filtered, rejected = dict(node.filtered), dict(node.rejected)
        reasons: dict[str, int] = {}
        for reason, number in (*filtered.items(), *rejected.items()):
            reasons[_text(reason)] = reasons.get(_text(reason), 0) + number
        tallies.append(
            NodeTally(
                ok=node.ok,
                filtered=sum(filtered.values()),
                rejected=sum(rejected.values()),
                reasons=reasons or None,
            )
        )
    return tuple(tallies)


def _value(message: executor_pb2.TaskResult) -> tuple[Any, bool]:
    value = orjson.loads(message.value_json) if message.value_json else None
    if message.HasField("artifact"):
        artifact = {
            "sha256": _text(message.artifact.sha256),
            "size_bytes": message.artifact.size_bytes,
            "media_type": _text(message.artifact.media_type),
        }
        return {"$artifact": artifact, **({"facts": value} if value is not None else {})}, True
    return value, bool(message.value_json)


def _payload(message: executor_pb2.TaskResult) -> bytes | None:
    """Return what is needed to find outputs and rejects again, and nothing else."""
    if not (message.output.count or message.rejects.count or message.kept):
        return None
    if not (message.rejects.count or message.kept):
        return executor_pb2.TaskResult(output=message.output).SerializeToString()
    payload = executor_pb2.TaskResult(kept=message.kept)
    if message.output.count:
        payload.output.CopyFrom(message.output)
    if message.rejects.count:
        payload.rejects.CopyFrom(message.rejects)
    return payload.SerializeToString()
