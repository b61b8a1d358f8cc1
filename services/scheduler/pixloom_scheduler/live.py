"""A job in memory, with those who wait for news of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pixloom.v1 import job_pb2
    from pixloom_scheduler.core.model import JobRun
    from pixloom_scheduler.job import JobHeader

__all__ = ["LiveJob"]


@dataclass(slots=True)
class LiveJob:
    """An unfinished job, or one that ended a moment ago.

    Attributes:
        header: Its fixed facts.
        run: Its state; may be ahead of the database while a commit is under way.
        committed_seq: Journal number up to which the database has it.
        events: Committed events in order, as watchers see them.
        pending: Those that follow, while the transaction that holds them is under way.
        news: Set and replaced whenever something was committed or granted.
        node_records: Of nodes that ended in this generation while it was in memory, what their rows in the database say
            (`Node`, serialized), by index.
        is_gone: Whether its partition belongs to another replica now: nothing is told from this memory any more.
        lease_watch: When its leases are looked at next, seconds; 0 while nobody looks.
    """

    header: JobHeader
    run: JobRun
    committed_seq: int = 0
    events: list[job_pb2.JobEvent] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    pending: list[job_pb2.JobEvent] = field(default_factory=list)
    node_records: dict[int, bytes] = field(default_factory=dict)
    is_gone: bool = False
    lease_watch: float = 0.0

    def forget_unwritten(self) -> None:
        """Forget what was made for a transaction that did not happen."""
        self.pending.clear()
        self.node_records.clear()

    def announce(self) -> None:
        """Wake everybody who waits for news."""
        news, self.news = self.news, asyncio.Event()
        news.set()
