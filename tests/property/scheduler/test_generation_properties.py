"""What holds when a job that has ended is taken up again."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixloom.graph.plan import StageKind
from pixloom_scheduler.core.changes import GenerationOpened, RetriedItems
from pixloom_scheduler.core.events import (
    CancelRequested,
    RecoverRequested,
    RejectsFound,
    RetryRequested,
    StartRequested,
)
from pixloom_scheduler.core.states import IllegalTransitionError, JobState, NodeState
from tests.support.core_world import CoreWorld, durable_view, plan_of, random_shape

SEEDS = st.integers(0, 2**32)
SOURCE, MAPPED, WHOLE = StageKind.SOURCE, StageKind.MAPPED, StageKind.WHOLE


def world(seed: int, **options) -> CoreWorld:
    rng = random.Random(seed)
    return CoreWorld(
        plan_of(random_shape(rng), max_attempts=rng.randint(1, 2), **options), rng, pages=rng.randint(1, 3)
    )


def end_early(w: CoreWorld) -> None:
    """Run a job until it ends by itself, or cancel it on the way."""
    w.happen(StartRequested())
    for _ in range(w.rng.randint(0, 80)):
        if w.job.state.is_terminal:
            return
        w.step()
    if not w.job.state.is_terminal:
        w.happen(CancelRequested("enough", now=True))


def recover(w: CoreWorld, again: tuple[int, ...] = ()) -> GenerationOpened:
    changes = w.happen(RecoverRequested(most=1000, again=again))
    return next(change for change in changes if isinstance(change, GenerationOpened))


@settings(max_examples=200, deadline=None)
@given(SEEDS)
def test_a_job_recovered_often_enough_completes_with_every_item_counted_once(seed):
    w = world(seed)
    end_early(w)
    for generation in range(2, 40):
        if w.job.state is JobState.COMPLETED:
            break
        recover(w)
        assert w.job.generation == generation
        assert durable_view(w.replayed()) == durable_view(w.job)
        w.run(6000)
    assert w.job.state is JobState.COMPLETED
    assert durable_view(w.replayed()) == durable_view(w.job)
    assert set(w.endings.values()) <= {1}
    for stage in w.job.stages:
        node = w.job.nodes[stage.plan.nodes[0]]
        if stage.plan.kind is MAPPED and node.state is NodeState.COMPLETED:
            given_items = sum(w.job.stages[edge.producer].items_out for edge in stage.plan.inputs)
            assert given_items == node.ok + node.filtered + node.rejected


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_what_a_node_asked_for_gave_before_does_not_count_any_more(seed):
    w = world(seed)
    end_early(w)
    if w.job.state is JobState.COMPLETED:
        return
    node = w.rng.randrange(len(w.job.nodes))
    opened = recover(w, again=(node,))
    assert node in opened.reset
    behind = {node}
    for stage in w.job.stages:
        if any(edge.producer in behind for edge in stage.plan.inputs):
            behind.add(stage.plan.index)
    assert behind <= set(opened.reset)
    assert all(w.job.stages[index].since == w.job.generation for index in opened.reset)
    assert durable_view(w.replayed()) == durable_view(w.job)
    w.run(6000)
    assert durable_view(w.replayed()) == durable_view(w.job)


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_finished_shards_are_not_done_again_unless_their_input_changes(seed):
    w = world(seed)
    end_early(w)
    if w.job.state is JobState.COMPLETED:
        return
    done = {
        (stage.plan.index, shard)
        for stage in w.job.stages
        for shard in range(len(stage.shards))
        if stage.shards.ended[shard] and shard not in stage.failed_shards
    }
    opened = recover(w)
    w.run(6000)
    again = {(stage, shard) for generation, stage, shard in w.endings if generation == 2}
    assert not {place for place in done & again if place[0] not in opened.reset}


def test_recover_is_idempotent_and_bounded():
    w = CoreWorld(plan_of([(SOURCE, []), (WHOLE, [0])]), random.Random(1))
    w.happen(StartRequested())
    w.happen(CancelRequested("enough", now=True))
    recover(w)
    assert w.happen(RecoverRequested(most=1)) == []
    w.happen(CancelRequested("enough", now=True))
    with pytest.raises(IllegalTransitionError, match="1 of 1 times"):
        w.happen(RecoverRequested(most=1))
    assert w.job.state is JobState.CANCELLED


def test_a_job_that_completed_is_not_recovered():
    w = CoreWorld(plan_of([(SOURCE, []), (MAPPED, [0])]), random.Random(11))
    w.run()
    while w.job.state is not JobState.COMPLETED:
        recover(w)
        w.run()
    with pytest.raises(IllegalTransitionError):
        w.happen(RecoverRequested(most=5))


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_retried_items_run_alone_and_count_once(seed):
    rng = random.Random(seed)
    shape = [(SOURCE, []), (MAPPED, [0]), (MAPPED, [1]), (WHOLE, [2])]
    w = CoreWorld(plan_of(shape, max_attempts=4), rng, pages=2, page_items=9)
    w.run()
    stage = w.job.stages[1]
    rejected = w.job.nodes[1].rejected
    shards = [shard for shard in range(len(stage.shards)) if stage.shards.items_of(shard)]
    if w.job.state is not JobState.COMPLETED or not rejected or not shards:
        return
    # As if the first item of a shard had been rejected at the only node of the stage.
    shard = rng.choice(shards)
    subset = stage.shards.subsets.get(shard)
    items = RetriedItems(1, shard, (subset[0] if subset else 0,), (0,), ((0, "TRUNCATED"),))
    before = len(stage.shards)
    w.happen(RetryRequested())
    assert w.job.state is JobState.RECOVERING
    assert w.happen(RetryRequested()) == []
    assert w.happen(RejectsFound(generation=7, retried=(items,))) == []
    w.happen(RejectsFound(generation=1, retried=(items,)))
    assert w.job.state is JobState.RUNNING
    assert w.job.nodes[1].rejected == rejected - 1
    assert durable_view(w.replayed()) == durable_view(w.job)
    w.run(6000)
    # The item ran alone, and those behind it took it up: the collection op started over.
    assert len(stage.shards) > before
    assert w.job.stages[3].since == 2
    node = w.job.nodes[1]
    assert w.job.stages[0].items_out == node.ok + node.filtered + node.rejected
    assert durable_view(w.replayed()) == durable_view(w.job)


def test_there_must_be_something_to_retry():
    w = CoreWorld(plan_of([(SOURCE, []), (WHOLE, [0])]), random.Random(5))
    w.run()
    while w.job.state is not JobState.COMPLETED:
        recover(w)
        w.run()
    with pytest.raises(IllegalTransitionError, match="no such item"):
        w.happen(RetryRequested(reasons=("TRUNCATED",)))
