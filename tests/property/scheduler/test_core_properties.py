from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixloom.graph.plan import OnError, StageKind
from pixloom_scheduler.core.changes import NewPlan
from pixloom_scheduler.core.events import (
    CancelRequested,
    DispatchFilled,
    PauseRequested,
    StartRequested,
    TasksClaimed,
    UpdateRequested,
)
from pixloom_scheduler.core.states import JobState, NodeState
from tests.support.core_world import CoreWorld, durable_view, plan_of, random_shape

SEEDS = st.integers(0, 2**32)


def world(seed: int, **options) -> CoreWorld:
    rng = random.Random(seed)
    return CoreWorld(
        plan_of(random_shape(rng), max_attempts=rng.randint(1, 4), **options), rng, pages=rng.randint(1, 3)
    )


def begin(w: CoreWorld, most: int) -> None:
    """Start the job and take at most `most` steps; it may have ended by then."""
    w.happen(StartRequested())
    for _ in range(w.rng.randint(0, most)):
        if not w.job.state.is_terminal:
            w.step()


@settings(max_examples=150, deadline=None)
@given(SEEDS)
def test_every_job_ends_and_every_node_with_it(seed):
    w = world(seed)
    w.run()
    assert w.job.state.is_terminal
    assert all(node.state.is_terminal for node in w.job.nodes)
    failed = any(node.state is NodeState.FAILED for node in w.job.nodes)
    assert (w.job.state is JobState.FAILED) == failed


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_replaying_the_journal_gives_the_live_state(seed):
    w = world(seed)
    begin(w, 120)
    assert durable_view(w.replayed()) == durable_view(w.job)


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_a_replayed_job_runs_to_the_same_kind_of_end(seed):
    w = world(seed)
    begin(w, 60)
    w.job = w.replayed()
    if w.job.state.is_terminal:
        return
    w.job.unsettled.update(range(len(w.job.stages)))
    w.run()
    assert all(node.state.is_terminal for node in w.job.nodes)


@settings(max_examples=150, deadline=None)
@given(SEEDS)
def test_whoever_pauses_and_changes_a_job_its_journal_gives_the_live_state_and_every_item_counts_once(seed):
    w = world(seed)
    w.meddles = True
    w.run(6000)
    assert durable_view(w.replayed()) == durable_view(w.job)
    assert set(w.endings.values()) <= {1}
    assert not w.job.leases
    assert all(not stage.active and not stage.backing_off for stage in w.job.stages)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_nothing_starts_while_a_job_is_paused(seed):
    w = world(seed)
    begin(w, 40)
    if w.job.state.is_terminal:
        return
    w.happen(PauseRequested(now=w.rng.random() < 0.5))
    offered = {
        stage.plan.index: [(shard, task.attempt) for shard, task in stage.tasks.items() if task.offered]
        for stage in w.job.stages
    }
    held = set(w.job.leases)
    for stage, keys in offered.items():
        assert w.happen(DispatchFilled(stage, 10)) == []
        assert w.happen(TasksClaimed("x", 1, stage, tuple(keys), lambda _: b"")) == []
    assert set(w.job.leases) == held


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_a_job_started_by_another_plan_runs_as_if_it_had_been_accepted_with_it(seed):
    w = world(seed)
    other = plan_of(random_shape(w.rng), max_attempts=2)
    w.happen(UpdateRequested(priority=7))
    w.happen(StartRequested(NewPlan(other, b"plan", b"{}")))
    assert w.job.plan is other
    # The job's row has the new plan from the commit of the start on.
    w.plan = other
    w.run()
    assert [node.plan for node in w.job.nodes] == list(other.nodes)
    assert durable_view(w.replayed()) == durable_view(w.job)
    assert w.job.priority == 7


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_each_shard_ends_once(seed):
    w = world(seed)
    w.run()
    assert set(w.endings.values()) <= {1}


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_items_in_equal_ok_plus_filtered_plus_rejected_at_every_completed_item_node(seed):
    w = world(seed)
    w.run()
    for stage in w.job.stages:
        if stage.plan.kind is not StageKind.MAPPED or w.job.nodes[stage.plan.nodes[0]].state is not NodeState.COMPLETED:
            continue
        given_items = sum(w.job.stages[edge.producer].items_out for edge in stage.plan.inputs)
        node = w.job.nodes[stage.plan.nodes[0]]
        assert given_items == node.ok + node.filtered + node.rejected


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_a_node_is_released_only_when_what_it_waits_for_has_ended(seed):
    w = world(seed)
    w.happen(StartRequested())
    for _ in range(150):
        if w.job.state.is_terminal:
            break
        w.step()
        for stage in w.job.stages:
            if stage.released and stage.plan.kind is StageKind.WHOLE:
                assert all(w.job.stages[edge.producer].ended for edge in stage.plan.inputs)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.booleans())
def test_cancel_ends_every_job_and_nothing_starts_after_it(seed, now):
    w = world(seed)
    begin(w, 40)
    if w.job.state.is_terminal:
        return
    w.happen(CancelRequested("enough", now=now))
    held = set(w.job.leases)
    steps = 0
    while not w.is_over() and steps < 500:
        steps += 1
        w.step()
        assert set(w.job.leases) <= held
    assert w.job.state is JobState.CANCELLED
    assert durable_view(w.replayed()) == durable_view(w.job)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_on_error_fail_never_counts_as_a_reject(seed):
    w = world(seed, on_error={1: OnError.FAIL, 2: OnError.FAIL})
    w.run()
    assert durable_view(w.replayed()) == durable_view(w.job)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_max_failed_ratio_decides_when_the_node_ends(ratio):
    shape = [(StageKind.SOURCE, []), (StageKind.MAPPED, [0]), (StageKind.WHOLE, [1])]
    w = CoreWorld(plan_of(shape, max_failed_ratio={1: ratio}), random.Random(3), page_items=30)
    w.run()
    node = w.job.nodes[1]
    assert node.rejected > 0
    assert node.state is (NodeState.FAILED if ratio == 0.0 else NodeState.COMPLETED)
    if ratio == 0.0:
        assert w.job.nodes[2].state is NodeState.SKIPPED
        assert w.job.failure is not None
        assert w.job.failure[0] == "MAX_FAILED_RATIO"
