"""An op that makes a word of its own for every item makes no counts without end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixloom.graph.plan import StageKind
from pixloom_scheduler.core.apply import apply
from pixloom_scheduler.core.changes import AttemptEnded, Cut, NodeTally, RetriedItems
from pixloom_scheduler.core.events import RejectsFound, Result, RetryRequested, TasksClaimed, TasksReported
from pixloom_scheduler.core.reasons import MOST_REASONS, OTHER, bound_reasons
from pixloom_scheduler.core.states import Outcome
from tests.support.live_jobs import happen, live_job, offer

if TYPE_CHECKING:
    from pixloom_scheduler.core.model import JobRun
    from pixloom_scheduler.live import LiveJob

ITEMS = 300
"""Items of a shard, each rejected with a word of its own."""


def wide_job(shards: int) -> LiveJob:
    """Return a job with so many shards to run."""
    live = live_job(1, [(StageKind.SOURCE, []), (StageKind.MAPPED, [0])], shard_size=ITEMS)
    cut = Cut(stage=1, edge=0, items=shards * ITEMS, size=ITEMS)
    page = AttemptEnded(
        stage=0, shard=0, attempt=1, outcome=Outcome.OK, executor="x", start=0.0, end=0.0, items_out=shards * ITEMS,
        cuts=(cut,), seals=True,
    )  # fmt: skip
    apply(live.run, [page])
    offer(live, 1, most=shards)
    return live


def words(first: int, count: int = ITEMS) -> dict[str, int]:
    return {f"WORD_{number}": 1 for number in range(first, first + count)}


def report(live: LiveJob, shards: range, *, lease: int = 1) -> list[AttemptEnded]:
    """Let shards end together, each item rejected with a word of its own."""
    happen(live, TasksClaimed("x", 1, 1, tuple((shard, 1) for shard in shards), lambda _: b"%d" % lease))
    results = tuple(
        Result(shard, 1, Outcome.OK, tallies=(NodeTally(rejected=ITEMS, reasons=words(shard * ITEMS)),))
        for shard in shards
    )
    (number,) = live.run.leases
    changes = happen(live, TasksReported(number, results))
    return [change for change in changes if isinstance(change, AttemptEnded)]


def reasons_of(run: JobRun) -> dict[str, int]:
    return run.nodes[1].reasons


def test_reasons_within_the_bound_are_counted_as_they_are() -> None:
    live = wide_job(4)
    report(live, range(3))
    assert reasons_of(live.run) == words(0, 3 * ITEMS)


def test_reasons_beyond_the_bound_are_counted_as_other_within_one_report() -> None:
    live = wide_job(5)
    report(live, range(5))
    assert reasons_of(live.run) == {**words(0, MOST_REASONS), OTHER: 5 * ITEMS - MOST_REASONS}
    assert live.run.nodes[1].rejected == 5 * ITEMS


def test_reasons_beyond_the_bound_are_counted_as_other_over_many_reports() -> None:
    live = wide_job(5)
    ended = [change for shard in range(5) for change in report(live, range(shard, shard + 1))]
    assert reasons_of(live.run) == {**words(0, MOST_REASONS), OTHER: 5 * ITEMS - MOST_REASONS}
    # What is journaled counts the same in whatever order it is summed.
    again = wide_job(5)
    apply(again.run, ended[::-1])
    assert reasons_of(again.run) == reasons_of(live.run)


def test_known_reasons_and_other_itself_go_on_to_be_counted() -> None:
    live = wide_job(5)
    report(live, range(4))
    tally = NodeTally(rejected=3, reasons={"WORD_7": 1, OTHER: 1, "NEW": 1})
    ended = AttemptEnded(
        stage=1, shard=4, attempt=1, outcome=Outcome.OK, executor="x", start=0.0, end=0.0, tallies=(tally,)
    )
    (bounded,) = bound_reasons(live.run, [ended])
    assert bounded.tallies[0].reasons == {"WORD_7": 1, OTHER: 2}
    assert bounded.tallies[0].rejected == 3


def test_an_item_counted_as_other_is_tried_again_by_its_own_reason_and_leaves_the_count() -> None:
    live = wide_job(4)
    report(live, range(4))
    assert live.run.state.is_terminal
    happen(live, RetryRequested(reasons=("WORD_1100",)))
    found = RetriedItems(stage=1, shard=3, indexes=(200,), places=(200,), rejected=((0, "WORD_1100"),))
    happen(live, RejectsFound(1, (found,)))
    assert reasons_of(live.run) == {**words(0, MOST_REASONS), OTHER: 4 * ITEMS - MOST_REASONS - 1}
    assert live.run.nodes[1].rejected == 4 * ITEMS - 1
