"""What holds when a job that has ended is taken up again."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixloom.graph.plan import StageKind
from pixloom_scheduler.core.changes import GenerationOpened, JobAccepted, JobStarted, RetriedItems
from pixloom_scheduler.core.events import (
    CancelRequested,
    RecoverRequested,
    RejectsFound,
    RetryRequested,
    StartRequested,
)
from pixloom_scheduler.core.generations import carried_change, is_carried_end, stages_from
from pixloom_scheduler.core.states import IllegalTransitionError, JobState, NodeState
from pixloom_scheduler.journal.check.audit import RULES, JobAudit
from pixloom_scheduler.journal.rows import decode
from tests.support.core_world import CoreWorld, durable_view, plan_of, random_shape, stage_view

if TYPE_CHECKING:
    from pixloom_scheduler.journal.check.findings import Violation

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


def retry_some(w: CoreWorld) -> None:
    """Let some rejected items of a job that has ended be tried again, if there are any in its mapped stages."""
    changes = w.happen(RetryRequested())
    if w.job.recovery is None:
        assert any(isinstance(change, GenerationOpened) for change in changes)
        return
    found = []
    for stage in w.job.stages:
        rejected = w.job.nodes[stage.plan.nodes[0]].rejected
        shards = [
            shard
            for shard in range(len(stage.shards))
            if stage.shards.ended[shard] and shard not in stage.failed_shards
        ]
        if stage.plan.kind is MAPPED and rejected and shards:
            shard = w.rng.choice(shards)
            subset = stage.shards.subsets.get(shard)
            # As if one of its items had been rejected, and not yet tried again.
            place = len(stage.retried.get(shard, ()))
            reason = w.rng.choice(
                [reason for reason in w.job.nodes[stage.plan.nodes[0]].reasons if reason != "DUPLICATE"]
            )
            found.append(RetriedItems(stage.plan.index, shard, (subset[0] if subset else 0,), (place,), ((0, reason),)))
    w.happen(RejectsFound(w.job.generation, tuple(found)))


def several_generations(seed: int) -> CoreWorld:
    """Return a job that has ended once or more often."""
    w = world(seed)
    end_early(w)
    for _ in range(w.rng.randint(0, 3)):
        if w.job.state is JobState.COMPLETED and not any(node.rejected for node in w.job.nodes):
            break
        if w.job.state is JobState.COMPLETED or w.rng.random() < 0.4:
            retry_some(w)
        else:
            recover(w)
        w.run(6000)
    return w


def complete_nodes(w: CoreWorld) -> list[int]:
    """Return the nodes from which on a job may be made of this one."""
    incomplete = {node.plan.stage for node in w.job.nodes if not is_carried_end(node.state, node.error[0])}
    return [node for node in range(len(w.job.nodes)) if incomplete <= stages_from(w.plan, node)]


@settings(max_examples=300, deadline=None)
@given(SEEDS)
def test_a_job_made_of_another_takes_over_what_is_not_behind_the_node_and_runs_the_rest_alone(seed):
    old = several_generations(seed)
    possible = complete_nodes(old)
    if not possible:
        return
    again = stages_from(old.plan, old.rng.choice(possible))
    changes = [carried_change(decode(record), old.plan, again) for record in old.records()]
    new = CoreWorld(old.plan, old.rng, pages=old.pages)
    start = JobStarted(time=old.now, deadline=0.0)
    new.begin_with([JobAccepted(made_of="old", from_node="n"), start, *(change for change in changes if change)])
    carried = [index for index in range(len(old.plan.stages)) if index not in again]

    def views(w: CoreWorld) -> list[object]:
        nodes = [w.job.nodes[node] for index in carried for node in w.plan.stages[index].nodes]
        counts = [(n.state, n.ok, n.filtered, n.rejected, n.reasons, n.retry_count, n.error, n.value) for n in nodes]
        return [counts, [stage_view(w.job.stages[index]) for index in carried]]

    assert views(new) == views(old)
    assert (new.job.recoveries, new.job.generation) == (0, old.job.generation)
    assert not any(new.job.stages[index].done or new.job.stages[index].items_out for index in again)
    assert durable_view(new.replayed()) == durable_view(new.job)
    inherited = set(new.endings)
    if not new.job.state.is_terminal:
        new.run(6000)
    assert {stage for place, stage, shard in new.endings if (place, stage, shard) not in inherited} <= again
    assert views(new) == views(old)
    assert durable_view(new.replayed()) == durable_view(new.job)
    violations: list[Violation] = []
    audit = JobAudit(
        new.job.id, partition=7, plan=new.plan, project="default", counted={"debug.noop@1"}, report=violations.append
    )
    for record in new.records():
        audit.feed(record)
    # Executors here split what they were to try no more, so that the policy is broken in the old job already.
    assert [violation for violation in violations if violation.rule != RULES["policy"]] == []


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_whoever_recovers_a_job_that_was_made_of_a_recovered_one_is_told_that_it_runs(seed):
    old = several_generations(seed)
    possible = complete_nodes(old)
    if not possible or old.job.generation == 1:
        return
    again = stages_from(old.plan, possible[0])
    changes = [carried_change(decode(record), old.plan, again) for record in old.records()]
    new = CoreWorld(old.plan, old.rng, pages=old.pages)
    new.begin_with([JobAccepted(), JobStarted(time=old.now, deadline=0.0), *(change for change in changes if change)])
    if new.job.state is JobState.RUNNING:
        with pytest.raises(IllegalTransitionError, match="RUNNING"):
            new.happen(RecoverRequested(most=5))
