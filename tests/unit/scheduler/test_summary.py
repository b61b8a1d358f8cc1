"""Many attempts put into a job at once leave what they leave one by one; the database's share is tested beside it."""

from __future__ import annotations

from array import array
from copy import deepcopy

import pytest

from pixloom.graph.plan import StageKind
from pixloom_scheduler.core.apply import apply
from pixloom_scheduler.core.changes import AttemptEnded, Cut, NodeTally
from pixloom_scheduler.core.model import JobRun
from pixloom_scheduler.core.states import Outcome
from pixloom_scheduler.core.summary import CutColumns, EndedShards, Stretch, TallyCount, apply_summary
from tests.support.core_world import JOB, plan_of

SOURCE, MAPPED, WHOLE = StageKind.SOURCE, StageKind.MAPPED, StageKind.WHOLE
PLAN = plan_of([(SOURCE, []), (MAPPED, [0]), (MAPPED, [0]), (MAPPED, [1, 2]), (WHOLE, [3])], shard_size=2)
OK = Outcome.OK
NOTHING = Stretch(0, (), (), ())


def ints(*numbers):
    return array("i", numbers)


@pytest.fixture
def job():
    """A job whose source gave six items, to two stages; a shard of the first of these failed and backs off."""
    run = JobRun.of(JOB, 7, PLAN)
    cuts = (Cut(1, 0, 6, 2), Cut(2, 0, 6, 2))
    failed = AttemptEnded(
        stage=1, shard=1, attempt=1, outcome=Outcome.FAILED, ends_shard=False, due=9.0, start=3.0, end=4.0
    )
    apply(run, [AttemptEnded(stage=0, shard=0, attempt=1, outcome=OK, items_out=6, cuts=cuts, seals=True), failed])
    return run


def test_a_stretch_leaves_what_its_rows_leave_one_by_one(job):
    one_by_one = deepcopy(job)
    reasons = {"DUPLICATE": 1}
    rows = [
        AttemptEnded(stage=1, shard=0, attempt=1, outcome=OK, items_out=2, start=5.0, end=6.0, cuts=(Cut(3, 0, 2, 2),)),
        AttemptEnded(stage=2, shard=2, attempt=1, outcome=OK, items_out=2, start=2.5, end=6.5, cuts=(Cut(3, 1, 2, 2),)),
        AttemptEnded(
            stage=1, shard=1, attempt=2, outcome=OK, items_out=1, start=5.5, end=7.0, cuts=(Cut(3, 0, 1, 2),),
            tallies=(NodeTally(1, 1, 0, reasons),),
        ),
        AttemptEnded(stage=2, shard=0, attempt=1, outcome=OK, items_out=3, start=2.0, end=6.0, cuts=(Cut(3, 1, 3, 2),)),
        # What is made in a stretch may end in it.
        AttemptEnded(stage=3, shard=1, attempt=1, outcome=OK, items_out=2, start=8.0, end=8.5),
    ]  # fmt: skip
    for row in rows:
        apply(one_by_one, [row], time=row.end)
    apply_summary(
        job,
        Stretch(
            rows=5,
            ended=(
                EndedShards(1, ints(1, 0), retries=1, items_out=3, passed=2, start=5.0, written=7.0),
                EndedShards(2, ints(0, 2), retries=0, items_out=5, passed=5, start=2.0, written=6.5),
                EndedShards(3, ints(1), retries=0, items_out=2, passed=2, start=8.0, written=8.5),
            ),
            tallies=(TallyCount(1, (NodeTally(1, 1, 0, reasons),), 1),),
            cuts=(CutColumns(3, ints(0, 1, 0, 1), ints(0, 2, 1, 0), ints(2, 2, 1, 3), ints(2, 2, 2, 2)),),
        ),
    )
    job.unsettled = one_by_one.unsettled
    assert job == one_by_one
    assert job.stages[1].backing_off == 0
    assert job.stages[3].shards.source.tolist() == [0, 2, 1, 0, 0]


def test_only_mapped_stages_are_summed_up(job):
    ended = EndedShards(0, ints(0), retries=0, items_out=1, passed=1, start=0.0, written=0.0)
    with pytest.raises(ValueError, match=r"stage 0 .* is not mapped"):
        apply_summary(job, Stretch(1, (ended,), (), ()))


def test_a_stretch_of_nothing_changes_nothing(job):
    before = deepcopy(job)
    apply_summary(job, NOTHING)
    job.unsettled = before.unsettled
    assert job == before
