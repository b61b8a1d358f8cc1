"""What the check of a database holds against a stage that has ended: more or fewer items than it was given."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pixloom.graph.plan import StageKind
from pixloom_scheduler.core.apply import apply
from pixloom_scheduler.core.changes import AttemptEnded, Cut, NodeEnded, NodeTally
from pixloom_scheduler.core.model import JobRun
from pixloom_scheduler.core.states import NodeState, Outcome
from pixloom_scheduler.journal.check.flow import check_flow
from tests.support.core_world import JOB, plan_of

SHAPE = [(StageKind.SOURCE, []), (StageKind.MAPPED, [0]), (StageKind.MAPPED, [1])]
OWN = "user.cut@1"
BUILT_IN = frozenset({"debug.noop@1"})


def ended_run(*, op: str, expands: bool, made: int, passed: int) -> JobRun:
    """Return a job in which one item went into an op that let `made` pass, of which the next let `passed` pass."""
    plan = plan_of(SHAPE, shard_size=9)
    source, first, second = plan.nodes
    plan = replace(plan, nodes=(source, replace(first, op=op, expands=expands), second))
    run = JobRun.of(JOB, 7, plan)
    outcomes = [
        AttemptEnded(0, 0, 1, Outcome.OK, items_out=1, cuts=(Cut(1, 0, 1, 9),), seals=True),
        AttemptEnded(1, 0, 1, Outcome.OK, items_out=made, cuts=(Cut(2, 0, made, 9),), tallies=(NodeTally(ok=made),)),
    ]
    if made:
        outcomes.append(AttemptEnded(2, 0, 1, Outcome.OK, items_out=passed, tallies=(NodeTally(ok=passed),)))
    apply(run, [*outcomes, *(NodeEnded(node, NodeState.COMPLETED, "", "", 9.0) for node in range(3))])
    return run


def problems_of(run: JobRun) -> list[str]:
    return [problem for stage in run.stages for problem in check_flow(run, stage, BUILT_IN)]


def test_an_op_that_expands_gives_as_many_items_as_it_says_and_the_next_stage_gets_exactly_these() -> None:
    assert problems_of(ended_run(op=OWN, expands=True, made=5, passed=5)) == []
    (problem,) = problems_of(ended_run(op=OWN, expands=True, made=5, passed=4))
    assert problem.startswith("node n2 was given 5 items and counts 4")


@pytest.mark.parametrize("made", [0, 2])
def test_an_op_that_does_not_expand_accounts_for_every_item_also_if_it_is_a_users_own(made: int) -> None:
    (problem,) = problems_of(ended_run(op=OWN, expands=False, made=made, passed=made))
    assert problem.startswith(f"node n1 was given 1 items and counts {made}")


def test_a_built_in_op_accounts_for_every_item_also_by_a_plan_that_does_not_say_so() -> None:
    (problem,) = problems_of(ended_run(op="debug.noop@1", expands=True, made=2, passed=2))
    assert problem.startswith("node n1 was given 1 items and counts 2")
