"""Stages that run the same op go to an executor together, and each keeps a lease of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pixloom.graph.catalogue import OpKind
from pixloom.graph.plan import Edge, OnError, RetryPolicy, StageKind
from pixloom_scheduler.core.apply import apply
from pixloom_scheduler.core.changes import AttemptEnded, LeaseAdopted, TasksGivenUp, TasksGranted, TasksOffered
from pixloom_scheduler.core.decide import decide
from pixloom_scheduler.core.events import (
    BackoffEnded,
    CancelRequested,
    LeaseAnnounced,
    LeaseLost,
    PauseRequested,
    Result,
    ResumeRequested,
    SiblingsHandedOver,
    SiblingsReported,
    TasksReported,
)
from pixloom_scheduler.core.policy import deadline_s
from pixloom_scheduler.core.states import NodeState, Outcome
from pixloom_scheduler.siblings import are_siblings, may_have_siblings
from pixloom_scheduler.turns import Turns
from tests.support.live_jobs import NOW, happen, live_job, offer

THREE: list[Any] = [(StageKind.WHOLE, [])] * 3


def job_of(count=3, *, kind=OpKind.ITEM, **options):
    """Return a job of so many stages that may be siblings."""
    live = live_job(1, [(StageKind.WHOLE, [])] * count, **options)
    for plan in live.run.plan.nodes:
        object.__setattr__(plan, "kind", kind)
    return live


def handed(*stages, executor="x"):
    return SiblingsHandedOver(executor, stages, lambda granted: repr(granted).encode())


def done(value=None):
    return Result(0, 1, Outcome.OK, value=value, has_value=value is not None)


def test_each_stage_gets_a_lease_of_its_own_under_one_token():
    live = job_of()
    changes = happen(live, handed(0, 1, 2))
    assert [change.stage for change in changes if isinstance(change, TasksOffered)] == [0, 1, 2]
    grants = [change for change in changes if isinstance(change, TasksGranted)]
    assert [(grant.lease, grant.stage, grant.tasks) for grant in grants] == [
        (1, 0, ((0, 1),)),
        (2, 1, ((0, 1),)),
        (3, 2, ((0, 1),)),
    ]
    assert {grant.token for grant in grants} == {b"(0, 1, 2)"}
    assert live.run.next_lease == 4
    assert not any(stage.has_ready for stage in live.run.stages)
    assert [stage.active for stage in live.run.stages] == [1, 1, 1]


def test_the_token_covers_what_was_granted_and_nothing_else():
    live = job_of()
    offer(live, 1)
    changes = happen(live, handed(0, 1, 2, 7))
    grants = [change for change in changes if isinstance(change, TasksGranted)]
    assert [(grant.stage, grant.token) for grant in grants] == [(0, b"(0, 2)"), (2, b"(0, 2)")]


def test_what_was_offered_leased_or_tried_before_is_not_handed_over():
    live = job_of(4)
    offer(live, 0)
    happen(live, handed(1))
    happen(live, handed(2))
    happen(live, TasksReported(2, (Result(0, 1, Outcome.FAILED, "OP_ERROR", retryable=True),)))
    happen(live, handed(3))
    happen(live, TasksReported(3, (done(),)))
    assert happen(live, handed(0, 1, 2, 3)) == []


@pytest.mark.parametrize("command", [PauseRequested(), CancelRequested("enough")])
def test_nothing_is_handed_over_of_a_job_that_is_paused_or_ends(command):
    live = job_of()
    happen(live, handed(0))
    happen(live, command)
    assert decide(live.run, handed(1, 2), NOW, {}) == []


def test_a_stage_of_items_is_no_sibling():
    live = live_job(1, [(StageKind.SOURCE, []), (StageKind.WHOLE, [])])
    assert [change.stage for change in happen(live, handed(0, 1)) if isinstance(change, TasksGranted)] == [1]


def test_their_deadline_leaves_time_for_all_of_them():
    live = job_of(3)
    for plan in live.run.plan.nodes:
        object.__setattr__(plan, "timeout_s", 100.0)
    (first, *_) = (change for change in happen(live, handed(0, 1, 2)) if isinstance(change, TasksGranted))
    assert first.deadline == NOW + deadline_s(live.run, live.run.stages[0], 3)
    assert first.deadline > NOW + 500


def test_an_adopted_sibling_has_the_time_of_all_that_are_held_with_it():
    live = job_of(3)
    for plan in live.run.plan.nodes:
        object.__setattr__(plan, "timeout_s", 100.0)
    grant = TasksGranted(lease=0, executor="x", stage=1, tasks=((0, 1),), token=b"t", time=0.0, deadline=0.0)
    (adopted,) = decide(live.run, LeaseAnnounced(1, grant, frozenset([0]), beside=2), NOW, {})
    assert isinstance(adopted, LeaseAdopted)
    assert adopted.grant.deadline == NOW + deadline_s(live.run, live.run.stages[1], 3)


def test_results_end_their_own_stages_and_a_second_one_of_a_stage_changes_nothing():
    live = job_of()
    happen(live, handed(0, 1, 2))
    event = SiblingsReported(((3, done("c")), (1, done("a")), (1, done("again"))))
    ends = [change for change in happen(live, event) if isinstance(change, AttemptEnded)]
    assert [end.stage for end in ends] == [2, 0]
    assert [node.value for node in live.run.nodes] == ["a", None, "c"]
    assert list(live.run.leases) == [2]
    assert happen(live, event) == []


def test_a_result_of_another_attempt_or_lease_changes_nothing():
    live = job_of()
    happen(live, handed(0, 1))
    stale = replace(done("late"), attempt=2)
    assert happen(live, SiblingsReported(((1, stale), (9, done("none"))))) == []


def test_one_that_fails_is_tried_again_alone_and_the_others_have_ended():
    live = job_of()
    happen(live, handed(0, 1, 2))
    failed = Result(0, 1, Outcome.FAILED, "STORE_ERROR", retryable=True)
    happen(live, SiblingsReported(((1, done()), (2, failed), (3, done()))))
    assert [stage.ended for stage in live.run.stages] == [True, False, True]
    happen(live, BackoffEnded(1, (0,)))
    assert live.run.stages[1].has_ready
    assert not may_have_siblings(live.run, 1)
    assert happen(live, handed(1)) == []


def test_one_that_fails_for_good_takes_no_other_with_it():
    live = job_of()
    happen(live, handed(0, 1, 2))
    refused = Result(0, 1, Outcome.FAILED, "OP_ERROR", "node n1: no", retryable=False)
    happen(live, SiblingsReported(((1, done()), (2, refused), (3, done()))))
    states = [node.state for node in live.run.nodes]
    assert states == [NodeState.COMPLETED, NodeState.FAILED, NodeState.COMPLETED]


def test_what_is_taken_back_in_a_pause_has_no_outcome_and_goes_on_afterwards():
    live = job_of()
    happen(live, handed(0, 1, 2))
    happen(live, PauseRequested(now=True))
    cancelled = Result(0, 1, Outcome.CANCELLED, "CANCELLED")
    changes = happen(live, SiblingsReported(((1, done()), (2, cancelled), (3, cancelled))))
    assert sum(isinstance(change, TasksGivenUp) for change in changes) == 2
    assert not live.run.leases
    happen(live, ResumeRequested())
    assert [stage.has_ready for stage in live.run.stages] == [False, True, True]
    assert live.run.stages[1].tasks[0].attempt == 1


def test_one_that_is_lost_goes_out_again_as_its_next_attempt():
    live = job_of()
    happen(live, handed(0, 1, 2))
    happen(live, LeaseLost(2))
    assert [stage.tasks[0].attempt for stage in live.run.stages] == [1, 2, 1]
    assert list(live.run.leases) == [1, 3]


def test_stages_that_run_the_same_may_go_together():
    live = job_of(2)
    assert may_have_siblings(live.run, 0)
    assert are_siblings(live.run, 0, 1)


@pytest.mark.parametrize(
    "difference",
    [
        {"op": "debug.sleep@1"},
        {"timeout_s": 1.5},
        {"on_error": OnError.FAIL},
        {"deliver": True},
        {"feeds_pixels": True},
        {"limits": {"max_pixels": 5}},
    ],
)
def test_nodes_that_differ_in_more_than_params_go_alone(difference):
    live = job_of(2)
    for name, value in difference.items():
        object.__setattr__(live.run.plan.nodes[1], name, value)
    assert not are_siblings(live.run, 0, 1)


@pytest.mark.parametrize("difference", [{"pool": "gpu"}, {"retry": RetryPolicy(max_attempts=2)}])
def test_stages_of_another_pool_or_policy_go_alone(difference):
    live = job_of(2)
    for name, value in difference.items():
        object.__setattr__(live.run.plan.stages[1], name, value)
    assert not are_siblings(live.run, 0, 1)


def test_params_may_differ():
    live = job_of(2)
    live.run.plan.nodes[1].params["number"] = 1
    assert are_siblings(live.run, 0, 1)


def test_an_op_over_items_a_last_attempt_and_a_stage_with_inputs_go_alone():
    assert not may_have_siblings(job_of(1, kind=OpKind.COLLECTION).run, 0)
    assert not may_have_siblings(job_of(1, max_attempts=1).run, 0)
    live = job_of(2)
    object.__setattr__(live.run.plan.stages[1], "inputs", (Edge(producer=0, port="items", position=None),))
    assert not may_have_siblings(live.run, 1)


def test_what_is_held_elsewhere_goes_nowhere_else():
    live = job_of(2)
    grant = TasksGranted(lease=1, executor="x", stage=1, tasks=((0, 1),), token=b"t", time=0.0, deadline=0.0)
    apply(live.run, [LeaseAdopted(grant)])
    assert not may_have_siblings(live.run, 1)


def turns_of(*lives):
    jobs = {live.run.id: live for live in lives}
    turns = Turns(costs={}, limits_of=lambda _run, _stage: (), find=jobs.get)
    for live in lives:
        turns.mark(live, range(len(live.run.stages)))
    return turns


def test_stages_are_taken_from_the_end_up_to_one_that_does_not_fit():
    live = job_of(6)
    turns = turns_of(live)
    assert turns.take_while(live, 5, lambda stage: stage != 2, most=9) == [5, 4, 3]
    assert [turns.has(live.run.id, stage) for stage in range(6)] == [True, True, True, False, False, False]
    assert turns.next("cpu", lambda _: True) == (live, 2)


def test_no_more_are_taken_than_asked_for_and_none_of_another_job():
    live, other = job_of(4), live_job(2, THREE)
    turns = turns_of(live, other)
    assert turns.take_while(live, 3, lambda _: True, most=3) == [3, 2, 1]
    assert turns.take_while(live, 0, lambda _: True, most=3) == [0]
    assert turns.take_while(live, 0, lambda _: True, most=3) == []
    assert turns.next("cpu", lambda _: True) == (other, 2)


def test_what_was_taken_and_not_handed_over_can_be_marked_again():
    live = job_of(3)
    turns = turns_of(live)
    turns.take_while(live, 2, lambda _: True, most=3)
    turns.mark(live, [0, 2])
    assert turns.take_while(live, 2, lambda _: True, most=3) == [2, 0]
