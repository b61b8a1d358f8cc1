"""Work that is offered to executors and that nobody has claimed yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pixloom_scheduler.executors import ExecutorSession
    from pixloom_scheduler.live import LiveJob

__all__ = ["Offer"]


@dataclass(slots=True)
class Offer:
    """A dispatch that nobody has claimed.

    Attributes:
        live: Its job.
        stage: Its stage.
        generation: Generation of the job.
        shards: Its tasks.
        pool: Its pool.
        lane: Its lane.
        expected_s: Expected work.
        limits: Names of the limits that it counts against.
        published: When it was published, seconds; 0 while it is not.
        seq: Its place in the stream; 0 while it is not published.
        session: The executor that it is to be handed over to; None if it is offered to all.
    """

    live: LiveJob
    stage: int
    generation: int
    shards: tuple[int, ...]
    pool: str
    lane: str
    expected_s: float
    limits: tuple[str, ...] = ()
    published: float = 0.0
    seq: int = 0
    session: ExecutorSession | None = None

    def may_be_pulled(self, before: float) -> bool:
        """Return whether it was published by then, and an executor may have pulled it."""
        return 0.0 < self.published <= before
