"""Whatever becomes of tasks that were handed over together, each of them counts once."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from pixloom.graph.plan import StageKind
from pixloom_scheduler.core.states import JobState, NodeState
from tests.support.core_world import CoreWorld, durable_view, plan_of

if TYPE_CHECKING:
    from collections.abc import Iterable

SEEDS = st.integers(0, 2**32)


def shape_of(rng: random.Random) -> Iterable[tuple[StageKind, list[int]]]:
    """Yield a source, some stages that read nothing, and at times one that reads of several."""
    yield StageKind.SOURCE, []
    count = rng.randint(2, 8)
    for _ in range(count):
        yield StageKind.WHOLE, []
    if rng.random() < 0.5:
        yield StageKind.WHOLE, sorted(rng.sample(range(count + 1), 2))


def world(seed: int) -> CoreWorld:
    rng = random.Random(seed)
    return CoreWorld(plan_of([*shape_of(rng)], max_attempts=rng.randint(1, 4)), rng, hands_over=True)


@settings(max_examples=150, deadline=None)
@given(SEEDS)
def test_every_job_ends_with_every_task_counted_once_and_its_journal_gives_the_live_state(seed: int) -> None:
    w = world(seed)
    w.meddles = seed % 2 == 0
    w.run(6000)
    assert set(w.endings.values()) <= {1}
    assert not w.job.leases
    assert durable_view(w.replayed()) == durable_view(w.job)
    failed = any(node.state is NodeState.FAILED for node in w.job.nodes)
    assert (w.job.state is JobState.FAILED) == failed


def test_stages_are_handed_over_together_in_these_worlds() -> None:
    worlds = [world(seed) for seed in range(20)]
    for w in worlds:
        w.run(6000)
    assert sum(w.handed_over > 1 for w in worlds) > 15
