"""Commands that a job refuses, and those that are repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pixloom.graph.plan import StageKind
from pixloom_scheduler.core.changes import AttemptEnded, RecoveryAccepted
from pixloom_scheduler.core.events import (
    CancelRequested,
    DispatchFilled,
    Event,
    PauseRequested,
    RecoverRequested,
    Result,
    ResumeRequested,
    RetryRequested,
    TasksClaimed,
    TasksReported,
)
from pixloom_scheduler.core.states import IllegalTransitionError, JobState, NodeState, Outcome
from tests.support.live_jobs import happen, live_job

if TYPE_CHECKING:
    from pixloom_scheduler.live import LiveJob

RECOVER = RecoverRequested(most=2, request="once")


def running_job() -> LiveJob:
    """Return a job whose only task has been granted."""
    live = live_job(1, [(StageKind.SOURCE, [])], max_attempts=1)
    happen(live, DispatchFilled(stage=0, most=1))
    happen(live, TasksClaimed("x", 1, 0, ((0, 1),), lambda _: b"token"))
    return live


def fail(live: LiveJob) -> None:
    """Let the only task fail for good, and the job with it."""
    if not live.run.leases:
        happen(live, DispatchFilled(stage=0, most=1))
        happen(live, TasksClaimed("x", live.run.generation, 0, ((0, 1),), lambda _: b"token"))
    (lease,) = live.run.leases
    happen(live, TasksReported(lease, (Result(0, 1, Outcome.FAILED, reason="BROKEN", detail="it is broken"),)))
    assert live.run.state is JobState.FAILED


@pytest.mark.parametrize(
    "command", [PauseRequested(), ResumeRequested(), RecoverRequested(most=3), RetryRequested()], ids=repr
)
def test_nothing_but_a_cancel_fits_a_job_that_is_being_cancelled(command: Event) -> None:
    live = running_job()
    happen(live, CancelRequested("enough"))
    with pytest.raises(IllegalTransitionError) as refused:
        happen(live, command)
    assert (refused.value.state, refused.value.because) == (JobState.RUNNING, "it is being cancelled")


def test_the_recovery_too_many_is_refused_with_the_numbers() -> None:
    live = running_job()
    for _ in range(2):
        fail(live)
        happen(live, RecoverRequested(most=2))
    fail(live)
    with pytest.raises(IllegalTransitionError) as refused:
        happen(live, RecoverRequested(most=2))
    assert (refused.value.state, refused.value.wanted) == (JobState.FAILED, "recover")
    assert refused.value.because == "it was recovered 2 of 2 times (max_recovery_attempts); try `rerun`"


@pytest.mark.parametrize("command", [RECOVER, RetryRequested(request="once")], ids=["recover", "retry"])
def test_a_job_is_taken_up_once_by_a_call_whatever_became_of_it_since(command: Event) -> None:
    live = running_job()
    fail(live)
    happen(live, command)
    assert live.run.generation == 2
    fail(live)
    assert happen(live, command) == []
    assert (live.run.state, live.run.generation) == (JobState.FAILED, 2)


def test_the_id_of_a_call_is_not_taken_for_another_one() -> None:
    live = running_job()
    fail(live)
    happen(live, RECOVER)
    fail(live)
    for other in (RetryRequested(request="once"), RecoverRequested(most=2, again=(0,), request="once")):
        with pytest.raises(IllegalTransitionError, match="request_id once was used for another call"):
            happen(live, other)
    changes = happen(live, RecoverRequested(most=2, request="twice"))
    assert [change.request for change in changes if isinstance(change, RecoveryAccepted)] == ["twice"]


def test_a_task_that_never_began_as_its_job_was_cancelled_counts_as_neither_done_nor_failed() -> None:
    live = running_job()
    happen(live, CancelRequested("enough"))
    (lease,) = live.run.leases
    changes = happen(live, TasksReported(lease, (Result(0, 1, Outcome.CANCELLED, reason="CANCELLED"),)))
    assert [change.outcome for change in changes if isinstance(change, AttemptEnded)] == [Outcome.CANCELLED]
    stage = live.run.stages[0]
    assert (stage.done, stage.failed, live.run.state) == (0, 0, JobState.CANCELLED)
    assert live.run.nodes[0].state is NodeState.CANCELLED

    happen(live, RecoverRequested(most=1))
    happen(live, DispatchFilled(stage=0, most=1))
    happen(live, TasksClaimed("x", 2, 0, ((0, 1),), lambda _: b"token"))
    assert live.run.stages[0].active == 1
