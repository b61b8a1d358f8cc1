"""What happens to the work of partitions that were taken over: executors may still hold it, and are asked.

Jobs of a partition just taken are not dispatched until all executors in session have announced what they hold of it, or
a grace has passed: what they announce goes on where it is, and only the rest is offered again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pixloom_scheduler.job import partition_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pixloom_scheduler.clock import DatabaseClock
    from pixloom_scheduler.dispatch import Dispatcher
    from pixloom_scheduler.journal.ownership import Owned
    from pixloom_scheduler.rpc.session import ExecutorSessions
    from pixloom_scheduler.timers import Timers

__all__ = ["ANNOUNCE_S", "HeldTakeovers"]

ANNOUNCE_S: Final = 2.0
"""How long executors have to announce what they hold before it is dispatched again."""


@dataclass(slots=True)
class _Takeover:
    """A partition whose executors have not all announced what they hold.

    Attributes:
        epoch: Epoch in which it was taken.
        silent: Executors that are still to announce; empty if none was known.
        jobs: Jobs that are held back.
    """

    epoch: int
    silent: set[str]
    jobs: set[str] = field(default_factory=set)


class HeldTakeovers:
    """Holds back what was taken over until executors have spoken; `connect` ties it to the parts made after it."""

    def __init__(self, *, clock: DatabaseClock, timers: Timers) -> None:
        self._clock = clock
        self._timers = timers
        self._open: dict[int, _Takeover] = {}

    def connect(self, *, dispatcher: Dispatcher, sessions: ExecutorSessions) -> None:
        """Tie it to the parts that it asks and holds back."""
        self._dispatcher = dispatcher
        self._sessions = sessions

    def began(self, owned: Sequence[Owned]) -> None:
        """Ask the executors for what they hold of partitions just taken."""
        asked = self._sessions.tell_owned(owned)
        epochs = {partition.id: partition.epoch for partition in owned}
        for partition, epoch in epochs.items():
            self._open[partition] = _Takeover(epoch, set(asked))
        self._timers.at(self._clock.now() + ANNOUNCE_S, lambda: self._end(epochs))

    def admits(self, job_id: str) -> None:
        """Hold back a job that is about to be served: executors may have announced tasks of it, or still do so."""
        takeover = self._open.get(partition_of(job_id))
        if takeover is not None:
            takeover.jobs.add(job_id)
        self._dispatcher.hold([job_id])

    def heard(self, job_id: str) -> None:
        """Let a job go whose announcements were heard, unless somebody may still make one."""
        takeover = self._open.get(partition_of(job_id))
        if takeover is None or job_id not in takeover.jobs:
            self._dispatcher.release([job_id])

    def announced(self, executor: str, partitions: Iterable[int]) -> None:
        """Take in that an executor has announced all that it holds of partitions."""
        for partition in partitions:
            takeover = self._open.get(partition)
            if takeover is None or executor not in takeover.silent:
                continue
            takeover.silent.discard(executor)
            if not takeover.silent:
                self._end({partition: takeover.epoch})

    def _end(self, epochs: dict[int, int]) -> None:
        for partition, epoch in epochs.items():
            takeover = self._open.get(partition)
            if takeover is not None and takeover.epoch == epoch:
                del self._open[partition]
                self._dispatcher.release(takeover.jobs)
