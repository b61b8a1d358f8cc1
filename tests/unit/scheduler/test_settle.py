"""What follows from stages that ended, in jobs of any length."""

from __future__ import annotations

from pixloom.graph.plan import StageKind
from pixloom_scheduler.core.events import (
    CancelRequested,
    DispatchFilled,
    NodeResolved,
    RecoverRequested,
    Result,
    TasksClaimed,
    TasksReported,
)
from pixloom_scheduler.core.states import JobState, NodeState, Outcome
from tests.support.live_jobs import happen, live_job

LONG = 3000
"""Far more nodes than calls may lie within one another."""


def test_all_that_follows_a_failed_node_is_skipped_and_names_it_however_long_the_chain_is():
    shape = [(StageKind.SOURCE, []), *((StageKind.WHOLE, [index]) for index in range(LONG))]
    live = live_job(1, shape, max_attempts=1)
    happen(live, DispatchFilled(stage=0, most=1))
    happen(live, TasksClaimed("x", 1, 0, ((0, 1),), lambda _: b"token"))
    happen(live, TasksReported(1, (Result(0, 1, Outcome.FAILED, reason="BROKEN", detail="it is broken"),)))

    first, *others = live.run.nodes
    assert (first.state, first.error) == (NodeState.FAILED, ("BROKEN", "it is broken"))
    assert {node.state for node in others} == {NodeState.SKIPPED}
    assert {node.error for node in others} == {("UPSTREAM_FAILED", "node n0 failed")}
    assert live.run.state is JobState.FAILED


def test_the_reason_for_which_nodes_are_skipped_does_not_grow_from_one_to_the_next():
    shape = [(StageKind.SOURCE, []), *((StageKind.WHOLE, [index]) for index in range(LONG))]
    live = live_job(1, shape, when={0: "false"})
    happen(live, NodeResolved(stage=0, run=False, generation=1))

    first, *others = live.run.nodes
    assert first.error == ("WHEN_FALSE", "its condition `false` was false")
    assert {node.error for node in others} == {
        ("UPSTREAM_SKIPPED", "node n0 was skipped: its condition `false` was false")
    }
    assert live.run.state is JobState.COMPLETED


def test_what_an_earlier_generation_asked_for_decides_nothing_in_this_one():
    live = live_job(1, [(StageKind.SOURCE, [])], when={0: "true"})
    happen(live, CancelRequested("enough", now=True))
    happen(live, RecoverRequested(most=3))
    assert (live.run.generation, live.run.stages[0].resolving) == (2, True)
    assert happen(live, NodeResolved(stage=0, run=False, generation=1)) == []
    happen(live, NodeResolved(stage=0, run=True, generation=2))
    assert live.run.stages[0].released
