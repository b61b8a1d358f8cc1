from __future__ import annotations

import io
from typing import TYPE_CHECKING

from pixloom.cli.progress import LiveProgress, PlainProgress, Rates
from pixloom.resources import ItemCounts, Job, JobError, JobState, Node, NodeState, Snapshot

if TYPE_CHECKING:
    import pytest


def _node(name: str, state: NodeState, *, ok: int = 0, rejected: int = 0, dependencies: tuple[str, ...] = ()) -> Node:
    counts = ItemCounts(ok=ok, rejected=rejected)
    return Node(id=name, op="a@1", step_index=0, state=state, items=counts, dependencies=list(dependencies))


def _snapshot(state: JobState, *nodes: Node) -> Snapshot:
    job = Job(id="j", name="n", workflow="n", version=1, sha256="", generation=1, state=state, actual_duration_s=2.5)
    return Snapshot(job=job, nodes=list(nodes))


def test_each_change_is_one_line_without_cursor_tricks() -> None:
    stream = io.StringIO()
    with PlainProgress(stream) as progress:
        progress.show(_snapshot(JobState.RUNNING, _node("a", NodeState.QUEUED)))
        progress.show(_snapshot(JobState.RUNNING, _node("a", NodeState.RUNNING, ok=1)))
        progress.show(_snapshot(JobState.RUNNING, _node("a", NodeState.RUNNING, ok=2)))
        progress.show(_snapshot(JobState.COMPLETED, _node("a", NodeState.COMPLETED, ok=3, rejected=1)))

    assert stream.getvalue().splitlines() == [
        "job j: RUNNING",
        "a: RUNNING",
        "a: COMPLETED (3 ok, 1 rejected)",
        "job j: COMPLETED after 2.5 s",
    ]


def test_failed_node_says_why() -> None:
    stream = io.StringIO()
    error = JobError(reason="NO_SUCH_FOLDER", detail="There is no folder x.")
    node = _node("a", NodeState.FAILED).model_copy(update={"error": error})

    PlainProgress(stream).show(_snapshot(JobState.FAILED, node))

    assert "a: FAILED: There is no folder x." in stream.getvalue()


def test_rate_and_time_left_follow_from_two_snapshots() -> None:
    times = iter([0.0, 2.0])
    rates = Rates(lambda: next(times))
    feed = _node("feed", NodeState.COMPLETED, ok=100)

    def node(ok: int) -> Node:
        return _node("a", NodeState.RUNNING, ok=ok, dependencies=("feed",))

    assert rates.of(node(10), {"feed": feed}) == (None, None)
    assert rates.of(node(30), {"feed": feed}) == (10.0, 7.0)


def test_time_left_is_unknown_while_the_feed_goes_on() -> None:
    times = iter([0.0, 1.0])
    rates = Rates(lambda: next(times))
    nodes = {"feed": _node("feed", NodeState.RUNNING, ok=100)}
    rates.of(_node("a", NodeState.RUNNING, dependencies=("feed",)), nodes)

    assert rates.of(_node("a", NodeState.RUNNING, ok=5, dependencies=("feed",)), nodes) == (5.0, None)


def test_name_that_looks_like_markup_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = _snapshot(JobState.RUNNING, _node("a", NodeState.RUNNING))
    job = snapshot.job.model_copy(update={"name": "[/red] [bold]batch"})

    with LiveProgress(lambda: 0.0, color=False) as progress:
        progress.show(snapshot.model_copy(update={"job": job}))

    assert "[/red] [bold]batch  RUNNING" in capsys.readouterr().err
