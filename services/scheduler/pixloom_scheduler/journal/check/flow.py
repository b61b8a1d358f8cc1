"""Conservation: what an output is cut into, and that every item given to a stage is accounted for by its nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixloom.graph.plan import StageKind
from pixloom_scheduler.core.states import NodeState, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet

    from pixloom_scheduler.core.changes import AttemptEnded
    from pixloom_scheduler.core.model import JobRun, StageRun

__all__ = ["check_flow", "expected_cuts"]


def expected_cuts(run: JobRun, stage: StageRun, change: AttemptEnded) -> tuple[tuple[int, int, int], ...]:
    """Return stage, edge and items of every cut that an outcome must make: one for each stage that streams from it.

    A stage that has ended gets its cuts as well: the next generation may go on with it.
    """
    if change.outcome not in (Outcome.OK, Outcome.PARTIAL) or not change.items_out:
        return ()
    return tuple(
        sorted(
            (consumer, edge, change.items_out)
            for consumer, edge in stage.consumers
            if run.stages[consumer].plan.kind is StageKind.MAPPED
        )
    )


def check_flow(run: JobRun, stage: StageRun, counted: AbstractSet[str]) -> Iterator[str]:
    """Yield where a mapped stage that COMPLETED counts more or fewer items than it was given.

    An op that may make several items of one gives as many as its executor says, so behind it the count begins anew. The
    next stage, which begins there, must be given exactly these.

    Args:
        run: The job, with the stage ended.
        stage: The stage.
        counted: Ops that make one item of one at most, although a plan that is older than the flag does not say so.
    """
    nodes = [run.nodes[node] for node in stage.plan.nodes]
    if stage.plan.kind is not StageKind.MAPPED or any(node.state is not NodeState.COMPLETED for node in nodes):
        return
    given = sum(run.stages[edge.producer].items_out for edge in stage.plan.inputs)
    for node in nodes:
        after = node.ok + node.filtered + node.rejected
        if after != given and (not node.plan.expands or node.plan.op in counted):
            yield (
                f"node {node.plan.id} was given {given} items and counts {after}: {node.ok} ok, "
                f"{node.filtered} filtered, {node.rejected} rejected"
            )
        given = node.ok
    if stage.items_out != given:
        yield f"node {nodes[-1].plan.id} let {given} items pass and gave {stage.items_out}"
