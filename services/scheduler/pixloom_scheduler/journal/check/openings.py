"""What a row that opens a generation must say, compared with the state that the rows before it give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pixloom.graph.plan import StageKind
from pixloom_scheduler.core.generations import next_generation
from pixloom_scheduler.core.states import JobState

if TYPE_CHECKING:
    from pixloom_scheduler.core.changes import GenerationOpened, RetriedItems
    from pixloom_scheduler.core.model import JobRun

__all__ = ["check_opening"]


class Violate(Protocol):
    """Takes a violation of a rule, given by its name."""

    def __call__(self, rule: str, *, detail: str) -> None:
        """Note it."""


def check_opening(run: JobRun, change: GenerationOpened, *, takes_over: bool, violate: Violate) -> None:
    """Say what is wrong with a generation that is about to be opened.

    Args:
        run: The job; only read.
        change: What the row says.
        takes_over: Whether the job began with the journal of another, in which generations come without commands.
        violate: Takes what is wrong.
    """
    if run.state is not JobState.RECOVERING and not takes_over:
        violate("opened", detail=f"the job was {run.state}")
    known, begun = range(len(run.stages)), [*change.reset, *change.reopened]
    named = [*begun, *(items.stage for items in change.retried)]
    if any(index not in known for index in named) or len(set(begun)) < len(begun):
        violate(
            "does_again", detail=f"of {len(known)} stages it starts {change.reset} again, goes on {change.reopened}"
        )
        return
    # More may be done again than must be: that is what people ask for.
    least = next_generation(run, retried=change.retried)
    if not (set(change.reset).issuperset(least.reset) and set(begun).issuperset(least.reopened)):
        violate(
            "does_again",
            detail=f"it starts {change.reset} again and goes on with {change.reopened}; by the rows before it "
            f"{least.reset} must start again and {least.reopened} go on",
        )
    for items in change.retried:
        _check_retried(run, items, violate)


def _check_retried(run: JobRun, items: RetriedItems, violate: Violate) -> None:
    stage = run.stages[items.stage]
    where = f"stage {items.stage} shard {items.shard}"
    if stage.plan.kind is not StageKind.MAPPED or not 0 <= items.shard < len(stage.shards):
        violate("retries", detail=f"{where}: there is no such shard")
        return
    size = stage.shards.count[items.shard]
    if any(not 0 <= index < size for index in items.indexes) or len(set(items.indexes)) < len(items.indexes):
        violate("retries", detail=f"{where}: it was cut to {size} items, and the items {items.indexes} are tried again")
    before = stage.retried.get(items.shard, frozenset())
    if len(set(items.places) - before) < len(items.places) or len(items.places) != len(items.rejected):
        violate("retries", detail=f"{where}: the rejects {items.places} are tried again, {sorted(before)} had been")
    for place in {place for place, _ in items.rejected}:
        if place not in range(len(stage.plan.nodes)):
            violate("retries", detail=f"{where}: it has no node at {place}")
            continue
        node = run.nodes[stage.plan.nodes[place]]
        wanted = sum(each == place for each, _ in items.rejected)
        if wanted > node.rejected:
            violate(
                "retries", detail=f"{where}: node {node.plan.id} rejected {node.rejected}, {wanted} are tried again"
            )
