"""Jobs in memory for tests of what stands beside the core."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pixloom_scheduler.core.apply import apply
from pixloom_scheduler.core.decide import decide
from pixloom_scheduler.core.events import DispatchFilled, Event, StartRequested
from pixloom_scheduler.core.model import JobRun
from pixloom_scheduler.core.settle import settle
from pixloom_scheduler.job import JobHeader
from pixloom_scheduler.live import LiveJob
from tests.support.core_world import plan_of

if TYPE_CHECKING:
    from pixloom_scheduler.core.changes import Change

__all__ = ["happen", "live_job", "offer"]

NOW = 1_000.0


def live_job(
    number: int, shape: list[Any], *, priority: int = 5, project: str = "default", started: bool = True, **options: Any
) -> LiveJob:
    """Return a job, started unless told otherwise, whose age follows from its number."""
    now = datetime.now(UTC)
    header = JobHeader(
        id=f"{number:030x}00", partition=0, project=project, day=now.date(), name="j",
        workflow="w", version=0, sha256="", params_json=b"{}", metadata_json=b"{}", create_time=now,
    )  # fmt: skip
    live = LiveJob(header, JobRun.of(header.id, 0, plan_of(shape, **options), priority=priority))
    if started:
        happen(live, StartRequested())
    return live


def happen(live: LiveJob, event: Event, *, now: float = NOW) -> list[Change]:
    """Let an event happen to a job with all that follows, and return the changes."""
    changes = decide(live.run, event, now, {})
    apply(live.run, changes)
    while more := settle(live.run, now):
        apply(live.run, more)
        changes = [*changes, *more]
    return changes


def offer(live: LiveJob, stage: int = 0, *, most: int = 1) -> None:
    """Offer tasks of a stage."""
    happen(live, DispatchFilled(stage=stage, most=most))
