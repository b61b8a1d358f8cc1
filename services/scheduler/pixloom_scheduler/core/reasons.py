"""Reasons for which items do not go on: so many different ones are counted for a node, and others together as OTHER.

Reasons are words of ops, so an op that makes a word of its own for every item would let a job's counts grow with its
items: in memory, in the row of the node, and in every answer about it. What is beyond the bound is counted as OTHER
before it is journaled, so that counts of a live job and of one that is loaded agree in whatever order rows are summed.
The items themselves keep their reasons.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from pixloom_scheduler.core.changes import AttemptEnded, NodeTally
    from pixloom_scheduler.core.model import JobRun, NodeRun

__all__ = ["MOST_REASONS", "OTHER", "bound_reasons", "counted_as", "may_have_rejected"]

MOST_REASONS: Final = 1_000
"""Different reasons that are counted for one node of a job, OTHER apart."""

OTHER: Final = "OTHER"


def counted_as(reason: str, known: Container[str]) -> str:
    """Return the reason under which items with `reason` were counted, given the reasons that a node counts."""
    return reason if reason in known else OTHER


def may_have_rejected(node: NodeRun, reasons: Iterable[str]) -> bool:
    """Return whether items that a node rejected may have one of some reasons."""
    if OTHER in node.reasons and len(node.reasons) >= MOST_REASONS:
        # Which ones are counted as OTHER only the items tell.
        return True
    return any(reason in node.reasons for reason in reasons)


def bound_reasons(job: JobRun, ended: Sequence[AttemptEnded]) -> Sequence[AttemptEnded]:
    """Return attempts of one stage that end together, with reasons beyond the bound counted as OTHER."""
    counting = [change for change in ended if change.tallies]
    if not counting:
        return ended
    nodes = [job.nodes[index] for index in job.stages[counting[0].stage].plan.nodes]
    if all(
        len(node.reasons) + sum(len(change.tallies[place].reasons or ()) for change in counting) <= MOST_REASONS
        for place, node in enumerate(nodes)
    ):
        return ended
    known = [set(node.reasons) - {OTHER} for node in nodes]
    bounded = []
    for change in ended:
        tallies = tuple(_bounded(tally, names) for tally, names in zip(change.tallies, known, strict=False))
        bounded.append(change if tallies == change.tallies else replace(change, tallies=tallies))
    return bounded


def _bounded(tally: NodeTally, known: set[str]) -> NodeTally:
    """Return what one attempt did at one node; new reasons within the bound become known."""
    if not tally.reasons:
        return tally
    counts: dict[str, int] = {}
    for reason, count in tally.reasons.items():
        if reason != OTHER and len(known) < MOST_REASONS:
            known.add(reason)
        name = counted_as(reason, known)
        counts[name] = counts.get(name, 0) + count
    return replace(tally, reasons=counts)
