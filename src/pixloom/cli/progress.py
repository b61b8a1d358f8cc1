"""Progress of a job on the standard error stream.

On a terminal a table with one line for each node is drawn over and over; elsewhere each change of state is one line,
so that logs stay readable.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

from pixloom.cli.output import duration_text
from pixloom.resources import JobState, Node, NodeState, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import TextIO

    from rich.table import Table

    from pixloom.resources import Job
    from pixloom.sdk.watching import Update

__all__ = ["LiveProgress", "PlainProgress", "Progress", "progress_for"]

_ENDED = frozenset({NodeState.COMPLETED, NodeState.FAILED, NodeState.SKIPPED, NodeState.CANCELLED})
_STYLES = {
    NodeState.COMPLETED: "green",
    NodeState.FAILED: "red",
    NodeState.CANCELLED: "yellow",
    NodeState.SKIPPED: "dim",
    NodeState.PENDING: "dim",
    NodeState.RETRYING: "yellow",
}


class Progress(Protocol):
    """Shows what happens to a job."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def show(self, update: Update) -> None:
        """Show an event or a snapshot."""


def progress_for(clock: Callable[[], float], *, color: bool = True) -> Progress:
    """Return the kind of progress that fits the standard error stream.

    Args:
        clock: Monotonic time in seconds.
        color: Whether colours may be used.
    """
    return LiveProgress(clock, color=color) if sys.stderr.isatty() else PlainProgress(sys.stderr)


@dataclass(frozen=True, slots=True)
class _Pace:
    """When a node was first seen at work, and how many items it had done."""

    since: float
    done: int


class Rates:
    """Rates and remaining times of nodes, from one snapshot to the next.

    Args:
        clock: Monotonic time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._paces: dict[str, _Pace] = {}

    def of(self, node: Node, nodes: dict[str, Node]) -> tuple[float | None, float | None]:
        """Return items a second and seconds left; None where that cannot be known."""
        done = _done(node)
        now = self._clock()
        pace = self._paces.setdefault(node.id, _Pace(now, 0 if node.state in _ENDED else done))
        elapsed = node.actual_duration_s if node.state in _ENDED else now - pace.since
        if not elapsed or done <= pace.done:
            return None, None
        rate = (done - pace.done) / elapsed
        feeds = [nodes[name] for name in node.dependencies if name in nodes]
        if node.state in _ENDED or not feeds or any(feed.state not in _ENDED for feed in feeds):
            return rate, None
        return rate, max(0, max(feed.items.ok for feed in feeds) - done) / rate


def _done(node: Node) -> int:
    return node.items.ok + node.items.filtered + node.items.rejected


class LiveProgress:
    """One line for each node, drawn anew with every snapshot.

    Args:
        clock: Monotonic time in seconds.
        color: Whether colours may be used.
    """

    def __init__(self, clock: Callable[[], float], *, color: bool = True) -> None:
        from rich.console import Console
        from rich.live import Live

        self._rates = Rates(clock)
        self._console = Console(stderr=True, no_color=not color, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, update: Update) -> None:
        """Draw a snapshot; events are contained in the next one."""
        if isinstance(update, Snapshot):
            self._live.update(self._table(update), refresh=True)

    def _table(self, snapshot: Snapshot) -> Table:
        from rich.table import Table
        from rich.text import Text

        job = snapshot.job
        # As text: a name may hold what would be read as markup.
        title = Text(f"{job.name or job.workflow}  {job.state}  {job.progress:.0f} %", style="table.title")
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
        table.add_column("node")
        table.add_column("state")
        for name in ("ok", "filtered", "rejected", "running", "per s", "left"):
            table.add_column(name, justify="right")
        nodes = {node.id: node for node in snapshot.nodes}
        for node in snapshot.nodes:
            rate, left_s = self._rates.of(node, nodes)
            running = node.tasks.total - node.tasks.done if node.state not in _ENDED else 0
            table.add_row(
                Text(node.id),
                Text(node.state, style=_STYLES.get(node.state, "")),
                _count(node.items.ok),
                _count(node.items.filtered),
                _count(node.items.rejected),
                _count(running),
                "" if rate is None else f"{rate:.0f}",
                duration_text(left_s),
            )
        return table


class PlainProgress:
    """One line for each change of state.

    Args:
        stream: Where to write.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._states: dict[str, NodeState] = {}
        self._job_state: JobState | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.flush()

    def show(self, update: Update) -> None:
        """Write what changed since the last snapshot."""
        if not isinstance(update, Snapshot):
            return
        for node in update.nodes:
            # QUEUED is left out: on a small job it would double the lines without telling anything.
            if node.state is not NodeState.QUEUED and self._states.get(node.id, NodeState.PENDING) is not node.state:
                self._write(f"{node.id}: {node.state}{_counts(node)}{_why(node)}")
            self._states[node.id] = node.state
        if update.job.state is not self._job_state:
            self._job_state = update.job.state
            self._write(f"job {update.job.id}: {update.job.state}{_took(update.job)}")

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _counts(node: Node) -> str:
    if node.state not in _ENDED or not _done(node):
        return ""
    parts = [f"{node.items.ok:,} ok"]
    parts += [f"{node.items.filtered:,} filtered"] if node.items.filtered else []
    parts += [f"{node.items.rejected:,} rejected"] if node.items.rejected else []
    return " (" + ", ".join(parts) + ")"


def _why(node: Node) -> str:
    return f": {node.error.detail or node.error.reason}" if node.error else ""


def _took(job: Job) -> str:
    if not job.state.is_final or job.actual_duration_s is None:
        return ""
    return f" after {duration_text(job.actual_duration_s)}"
