from __future__ import annotations

import pytest

from pixloom.graph.plan import StageKind
from pixloom.v1 import executor_pb2, job_pb2
from pixloom_scheduler.costs import CostModel
from tests.support.live_jobs import live_job


def result(outcome: job_pb2.AttemptOutcome.ValueType, seconds: int) -> executor_pb2.TaskResult:
    made = executor_pb2.TaskResult(shard=0, attempt=1, outcome=outcome)
    made.start_time.FromSeconds(1_000)
    made.end_time.FromSeconds(1_000 + seconds)
    return made


def learned(*results: executor_pb2.TaskResult) -> dict[str, float]:
    run = live_job(1, [(StageKind.WHOLE, [])]).run
    model = CostModel({})
    model.learn(run, executor_pb2.Report(stage=0, results=results))
    return model.costs


def test_what_ended_well_tells_the_cost() -> None:
    assert list(learned(result(job_pb2.ATTEMPT_OUTCOME_OK, 4)).values()) == [pytest.approx(4)]


@pytest.mark.parametrize(
    "outcome",
    [job_pb2.ATTEMPT_OUTCOME_CANCELLED, job_pb2.ATTEMPT_OUTCOME_LOST, job_pb2.ATTEMPT_OUTCOME_FAILED],
)
def test_what_was_ended_early_does_not(outcome: job_pb2.AttemptOutcome.ValueType) -> None:
    assert learned(result(outcome, 1)) == {}
