"""Which stages can go to an executor together, as siblings.

A workflow may have thousands of nodes that do the same to different params: each has a stage with one task, and a lease,
a message and a report for each would cost more than the tasks. Stages that read no items and run the same op under the
same policy share them (ADR 25).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pixloom.graph.catalogue import OpKind
from pixloom.graph.plan import StageKind

if TYPE_CHECKING:
    from pixloom_scheduler.core.model import JobRun

__all__ = ["MOST_AT_ONCE", "MOST_SIBLINGS", "SIBLINGS_S", "are_siblings", "may_have_siblings"]

MOST_SIBLINGS: Final = 64
MOST_AT_ONCE: Final = 256
"""Siblings handed over before others have their turn of the loop: some milliseconds."""

SIBLINGS_S: Final = 0.005
"""Expected seconds of work that go together: more is better spread over executors."""


def may_have_siblings(run: JobRun, index: int) -> bool:
    """Return whether a stage has one task that can go with others, as its first attempt and not its last."""
    stage = run.stages[index]
    plan = stage.plan
    return (
        plan.kind is StageKind.WHOLE
        and not plan.inputs
        and len(plan.nodes) == 1
        and run.plan.nodes[plan.nodes[0]].kind in (OpKind.ITEM, OpKind.VALUE)
        and plan.retry.max_attempts > 1
        and stage.has_ready
        and stage.is_untouched
    )


def are_siblings(run: JobRun, one: int, other: int) -> bool:
    """Return whether two stages, which may have siblings, run the same op under the same policy."""
    stage, sibling = run.stages[one].plan, run.stages[other].plan
    node, twin = run.plan.nodes[stage.nodes[0]], run.plan.nodes[sibling.nodes[0]]
    return (
        node.op == twin.op
        and node.timeout_s == twin.timeout_s
        and node.on_error is twin.on_error
        and node.deliver == twin.deliver
        and node.feeds_pixels == twin.feeds_pixels
        and node.limits == twin.limits
        and stage.pool == sibling.pool
        and stage.retry == sibling.retry
    )
