"""What a person wants to know when a job has ended: how many, why not, and where the results lie."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pixloom.cli.output import duration_text
from pixloom.cli.streams import put, say
from pixloom.resources import JobState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from pixloom.resources import Job, Node

__all__ = ["print_failure", "print_paths", "print_tally", "reasons_of"]


def reasons_of(nodes: Iterable[Node]) -> dict[str, Counter[str]]:
    """Return the number of items by reason, for `filtered` and `rejected`.

    A node that did both tells its reasons together; they are counted as `filtered or rejected`.
    """
    found: dict[str, Counter[str]] = {}
    for node in nodes:
        match bool(node.items.filtered), bool(node.items.rejected):
            case True, False:
                kind = "filtered"
            case False, True:
                kind = "rejected"
            case _:
                kind = "filtered or rejected"
        for reason, count in node.reasons.items():
            found.setdefault(kind, Counter())[reason] += count
    return found


def print_tally(job: Job, nodes: Sequence[Node]) -> None:
    """Print how many items went in, how many came through, and what kept the others, on the error stream."""
    taken = sum(node.items.ok for node in nodes if not node.dependencies)
    filtered = sum(node.items.filtered for node in nodes)
    rejected = sum(node.items.rejected for node in nodes)
    if taken:
        took = f" in {duration_text(job.actual_duration_s)}" if job.actual_duration_s is not None else ""
        came = taken - filtered - rejected
        # What a failed or cancelled job had not finished is neither ok nor dropped.
        ok = came if job.state is JobState.COMPLETED else max(0, min(came, job.items.ok))
        left = f", {came - ok:,} not finished" if came > ok else ""
        say(f"{taken:,} items{took}: {ok:,} ok, {filtered:,} filtered, {rejected:,} rejected{left}")
    for kind, reasons in reasons_of(nodes).items():
        for reason, count in reasons.most_common():
            say(f"  {count:>7,} {kind}: {reason}")
    for warning in job.warnings:
        say(f"Warning: {warning}")


def print_failure(job: Job) -> None:
    """Say why a job did not complete, on the error stream."""
    if job.state is JobState.COMPLETED:
        return
    where = f" at node {job.error.node}" if job.error and job.error.node else ""
    why = f": {job.error.detail or job.error.reason}" if job.error else ""
    say(f"Job {job.id} {job.state}{where}{why}")
    say(f"`pixloom get {job.id}` shows its nodes, `pixloom items {job.id} NODE --state rejected` what was rejected.")


def print_paths(paths: Mapping[str, Path]) -> None:
    """Print where the outputs lie, one line each, on the standard output."""
    width = max((len(name) for name in paths), default=0)
    for name, path in paths.items():
        count = f"  ({sum(1 for entry in path.rglob('*') if entry.is_file()):,} files)" if path.is_dir() else ""
        put(f"{name:<{width}}  {path}{count}")
