"""From when on a node counts as RUNNING, and when its job is expected to end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixloom.graph.plan import StageKind
from pixloom_scheduler.core.events import DispatchFilled, Result, TasksClaimed, TasksReported, TasksReturned
from pixloom_scheduler.core.states import NodeState, Outcome
from pixloom_scheduler.core.view import node_state
from pixloom_scheduler.estimates import Estimates
from tests.support.live_jobs import NOW, happen, live_job

if TYPE_CHECKING:
    from pixloom_scheduler.live import LiveJob

SOURCE: tuple[StageKind, list[int]] = (StageKind.SOURCE, [])


def claim(live: LiveJob, *shards: int, stage: int = 0) -> None:
    happen(live, DispatchFilled(stage=stage, most=len(shards)))
    happen(live, TasksClaimed("x", 1, stage, tuple((shard, 1) for shard in shards), lambda _: b"token"))


def seen(live: LiveJob, index: int = 0) -> tuple[NodeState, float]:
    return node_state(live.run, index), live.run.nodes[index].begun


def test_a_node_whose_only_task_was_handed_back_has_not_begun() -> None:
    live = live_job(1, [SOURCE])
    claim(live, 0)
    assert seen(live) == (NodeState.RUNNING, NOW)
    happen(live, TasksReturned(1, (0,)))
    assert seen(live) == (NodeState.QUEUED, 0.0)
    claim(live, 0)
    assert seen(live) == (NodeState.RUNNING, NOW)


def test_a_node_goes_on_running_while_one_of_its_tasks_is_leased_or_has_ended() -> None:
    live = live_job(1, [SOURCE, (StageKind.MAPPED, [0])], shard_size=1)
    claim(live, 0)
    happen(live, TasksReported(1, (Result(0, 1, Outcome.OK, items_out=3, start=NOW, end=NOW),)))
    claim(live, 0, 1, stage=1)
    claim(live, 2, stage=1)
    happen(live, TasksReturned(2, (0,)))
    happen(live, TasksReturned(3, (2,)))
    assert seen(live, 1) == (NodeState.RUNNING, NOW)
    happen(live, TasksReported(2, (Result(1, 1, Outcome.OK, items_out=1, start=NOW, end=NOW),)))
    claim(live, 0, stage=1)
    happen(live, TasksReturned(4, (0,)))
    assert seen(live, 1) == (NodeState.RUNNING, NOW)


def test_no_end_is_expected_of_what_no_executor_can_run() -> None:
    live = live_job(1, [(StageKind.WHOLE, [])])
    assert Estimates(costs={}, slots=lambda _: 0).of(live.run, now=NOW + 1.0).left_s is None
    assert Estimates(costs={}, slots=lambda _: 1).of(live.run, now=NOW + 1.0).left_s is not None
