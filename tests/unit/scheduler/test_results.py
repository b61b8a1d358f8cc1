"""What executors may report, and what becomes of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pixloom.graph.plan import StageKind
from pixloom.v1 import executor_pb2, job_pb2
from pixloom_scheduler.core.changes import AttemptEnded
from pixloom_scheduler.core.events import DispatchFilled, TasksClaimed, TasksReported
from pixloom_scheduler.core.states import Outcome
from pixloom_scheduler.journal.rows import COLUMNS, encode
from pixloom_scheduler.rpc.results import read_result
from tests.support.live_jobs import NOW, happen, live_job


@pytest.mark.parametrize("start", [-(10**13), -1, 0, 10**13])
@pytest.mark.parametrize("end", [-(10**13), 0, 10**13])
def test_times_that_no_calendar_has_are_taken_within_those_of_the_job(start: int, end: int) -> None:
    live = live_job(1, [(StageKind.SOURCE, [])])
    happen(live, DispatchFilled(stage=0, most=1))
    happen(live, TasksClaimed("x", 1, 0, ((0, 1),), lambda _: b"token"))
    message = executor_pb2.TaskResult(shard=0, attempt=1, outcome=job_pb2.ATTEMPT_OUTCOME_OK, end=True)
    message.start_time.seconds, message.end_time.seconds = start, end
    changes = happen(live, TasksReported(1, (read_result(live.run.stages[0], message),)))
    (ended,) = (change for change in changes if isinstance(change, AttemptEnded))
    row: Any = dict(
        zip(
            COLUMNS,
            encode(ended, day=live.header.day, job_id=live.header.id, seq=1, time=NOW, project="default", generation=1),
            strict=True,
        )
    )
    for name in ("start_time", "end_time"):
        assert row[name] is None or row[name] <= datetime.fromtimestamp(NOW, UTC)


@pytest.mark.parametrize(
    ("stage", "again", "outcome"),
    [
        (1, [0, 2], Outcome.PARTIAL),
        # A slice without indexes is all of its items: those that are done would come out twice.
        (1, [], Outcome.FAILED),
        (1, [1, 1], Outcome.FAILED),
        (1, [3], Outcome.FAILED),
        (0, [0], Outcome.FAILED),
    ],
)
def test_a_partial_result_names_each_item_that_is_left_once(stage: int, again: list[int], outcome: Outcome) -> None:
    live = live_job(1, [(StageKind.SOURCE, []), (StageKind.MAPPED, [0])])
    happen(live, DispatchFilled(stage=0, most=1))
    happen(live, TasksClaimed("x", 1, 0, ((0, 1),), lambda _: b"token"))
    page = executor_pb2.TaskResult(shard=0, attempt=1, outcome=job_pb2.ATTEMPT_OUTCOME_OK, end=True)
    page.output.count = 3
    happen(live, TasksReported(1, (read_result(live.run.stages[0], page),)))
    message = executor_pb2.TaskResult(shard=0, attempt=1, outcome=job_pb2.ATTEMPT_OUTCOME_PARTIAL, retry_indexes=again)
    assert read_result(live.run.stages[stage], message).outcome is outcome
