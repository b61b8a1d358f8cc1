from __future__ import annotations

import asyncio

import pytest

from pixloom.v1 import executor_pb2 as pb
from pixloom.v1 import job_pb2
from pixloom_executor.children.batch_run import BatchRun
from pixloom_executor.marker import Position
from tests.unit.executor.tasks import batch_of, call


@pytest.fixture
async def delivered() -> list[pb.TaskResult]:
    return []


@pytest.fixture
async def run(delivered: list[pb.TaskResult]) -> BatchRun:
    batch = batch_of(
        [call("debug.noop", "a"), call("debug.noop", "b")], [pb.Task(shard=n, attempt=2) for n in range(3)]
    )
    return BatchRun(batch=batch, deliver=delivered.append, done=asyncio.get_running_loop().create_future())


def at(task: int, item: int | None = None, *, in_op: bool = True, call: int = 0) -> Position:
    return Position(batch=1, task=task, in_op=in_op, item=item, call=call, deadline_ns=0, task_start_ns=0, done=0)


def result(shard: int) -> pb.TaskResult:
    return pb.TaskResult(shard=shard, attempt=2, outcome=job_pb2.ATTEMPT_OUTCOME_OK)


async def test_a_result_is_delivered_once(run: BatchRun, delivered: list[pb.TaskResult]) -> None:
    run.take([result(0), result(0)])
    assert [entry.shard for entry in delivered] == [0]
    assert run.has_pending


async def test_only_tasks_without_result_are_sent_again(run: BatchRun) -> None:
    assert [task.shard for task in run.frame(1).batch.tasks] == [0, 1, 2]
    run.take([result(1)])
    assert [task.shard for task in run.frame(2).batch.tasks] == [0, 2]
    assert len(run.batch.tasks) == 3


async def test_a_suspect_item_first_runs_alone_and_is_then_rejected(
    run: BatchRun, delivered: list[pb.TaskResult]
) -> None:
    run.frame(1)
    run.blame(at(1, 4, call=1), "CRASHED", "died")
    frame = run.frame(2)
    assert (frame.alone, frame.verdicts) == ({1: [4]}, {})
    run.blame(at(1, 4, call=1), "CRASHED", "died")
    frame = run.frame(3)
    assert frame.alone == {1: []}
    verdict = frame.verdicts[1][4]
    assert (verdict.call, verdict.reason) == (1, "CRASHED")
    assert delivered == []


async def test_positions_are_told_by_the_tasks_that_were_sent(run: BatchRun) -> None:
    run.frame(1)
    run.take([result(0)])
    run.frame(2)
    run.blame(at(0, 0), "TIMEOUT", "hung")
    assert run.frame(3).alone == {1: [0]}


async def test_a_run_over_all_items_fails_and_may_be_tried_again(run: BatchRun, delivered: list[pb.TaskResult]) -> None:
    run.frame(1)
    run.blame(at(2), "TIMEOUT", "hung")
    failed = delivered[0]
    assert (failed.shard, failed.attempt, failed.reason, failed.retryable) == (2, 2, "TIMEOUT", True)
    assert failed.outcome == job_pb2.ATTEMPT_OUTCOME_FAILED


async def test_a_task_lost_twice_outside_of_any_op_is_lost(run: BatchRun, delivered: list[pb.TaskResult]) -> None:
    run.frame(1)
    run.blame(at(0, in_op=False), "CRASHED", "died")
    assert delivered == []
    run.blame(at(0, in_op=False), "CRASHED", "died")
    assert delivered[0].outcome == job_pb2.ATTEMPT_OUTCOME_LOST


async def test_what_has_a_result_is_never_blamed(run: BatchRun, delivered: list[pb.TaskResult]) -> None:
    run.frame(1)
    run.take([result(0)])
    run.blame(at(0, 1), "CRASHED", "died")
    assert run.frame(2).alone == {}


async def test_cancelled_tasks_say_so(run: BatchRun, delivered: list[pb.TaskResult]) -> None:
    run.take([result(1)])
    run.cancel_pending()
    assert [entry.outcome for entry in delivered[1:]] == [job_pb2.ATTEMPT_OUTCOME_CANCELLED] * 2
    assert not run.has_pending
