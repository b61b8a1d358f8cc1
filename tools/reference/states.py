"""states.md: the state diagrams, drawn from the transition tables of the scheduler's core."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pixloom_scheduler.core.states import JOB_TRANSITIONS, NODE_TRANSITIONS, JobState, NodeState, Outcome
from tools.reference.markdown import page, table

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["states_page"]

S = TypeVar("S", JobState, NodeState)


def _diagram(transitions: Mapping[S, frozenset[S]], first: S) -> str:
    order = list(transitions)
    lines: list[str] = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first}"]
    for before, afters in transitions.items():
        lines += [f"    {before} --> {after}" for after in sorted(afters, key=order.index)]
        if before.is_terminal:
            lines.append(f"    {before} --> [*]")
    return "\n".join([*lines, "```"])


def _moves(transitions: Mapping[S, frozenset[S]]) -> str:
    order = list(transitions)
    rows = (
        (
            f"`{before}`",
            "yes" if before.is_terminal else "no",
            ", ".join(f"`{after}`" for after in sorted(afters, key=order.index)) or "none",
        )
        for before, afters in transitions.items()
    )
    return table(("state", "ended", "goes to"), rows)


def states_page() -> str:
    """Return the page."""
    return page(
        "States of jobs and nodes",
        "A transition that is not drawn here is refused and changes nothing. States are final within one generation of"
        " a job; recovering or retrying opens the next.",
        "## Jobs",
        _diagram(JOB_TRANSITIONS, JobState.PENDING),
        _moves(JOB_TRANSITIONS),
        "## Nodes",
        _diagram(NODE_TRANSITIONS, NodeState.PENDING),
        _moves(NODE_TRANSITIONS),
        "## Attempts",
        f"An attempt of a task ends as one of {', '.join(f'`{outcome}`' for outcome in Outcome)}.",
    )
