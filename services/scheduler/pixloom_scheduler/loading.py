"""Loads the unfinished jobs of partitions that were just taken, one after another, the smallest first.

A partition takes commands from the moment at which it is owned. Whoever asks for a job that is still to come, or speaks
of one, waits for that job alone; what is said of it meanwhile is heard afterwards, in its order.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from pixloom.errors import UnavailableError
from pixloom_scheduler.job import partition_of
from pixloom_scheduler.journal.ownership import OUTAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pixloom_scheduler.journal.loader import LoadedJob
    from pixloom_scheduler.journal.ownership import Owned
    from pixloom_scheduler.replica import Replica

__all__ = ["JobSource", "Loading", "Takeovers"]

LOAD_WAIT_S: Final = 15.0
"""How long a caller waits for a job that is being loaded."""

_RETRY_S: Final = 0.2


class JobSource(Protocol):
    """Reads the jobs of partitions."""

    async def pending(self, partitions: Sequence[int]) -> list[str]:
        """Return the unfinished jobs of partitions, the smallest first."""

    async def load(self, job_id: str) -> LoadedJob | None:
        """Return one job, or None."""


class Takeovers(Protocol):
    """Who is told of partitions that were taken over."""

    def began(self, owned: Sequence[Owned]) -> None:
        """Partitions take commands; none of their jobs is loaded."""

    def admits(self, job_id: str) -> None:
        """A job was loaded and is about to be served."""

    def heard(self, job_id: str) -> None:
        """What was said of a job while it was being loaded has been heard."""


@dataclass(slots=True)
class _Load:
    """The loading of one partition.

    Attributes:
        epoch: Epoch in which it was taken.
        jobs: Jobs still to be loaded; None while they are not known.
        calls: What to do when a job is there, by job.
        moved: Set whenever something was loaded.
    """

    epoch: int
    jobs: set[str] | None = None
    calls: dict[str, list[Callable[[], None]]] = field(default_factory=dict)
    moved: asyncio.Event = field(default_factory=asyncio.Event)


class Loading:
    """The partitions that are being loaded."""

    def __init__(self, *, replica: Replica, jobs: JobSource, takeovers: Takeovers) -> None:
        self._replica = replica
        self._jobs = jobs
        self._takeovers = takeovers
        self._loads: dict[int, _Load] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("loading")

    def begin(self, owned: Sequence[Owned]) -> None:
        """Begin to load partitions that the replica owns from now on."""
        for partition in owned:
            before = self._loads.get(partition.id)
            self._loads[partition.id] = _Load(partition.epoch)
            if before is not None:
                self._tell(before, list(before.calls))
        self._takeovers.began(owned)
        task = asyncio.create_task(self._load(owned), name="load partitions")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End what is under way; idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def is_loading(self, job_id: str) -> bool:
        """Return whether a job may be one that is still to be loaded."""
        load = self._loads.get(partition_of(job_id))
        if load is None:
            return False
        return self._replica.find(job_id) is None if load.jobs is None else job_id in load.jobs

    def when_loaded(self, job_id: str, call: Callable[[], None]) -> None:
        """Call back when a job that is being loaded is there, or turns out not to be one of ours."""
        self._loads[partition_of(job_id)].calls.setdefault(job_id, []).append(call)

    async def loaded(self, job_id: str) -> None:
        """Wait until a job of ours is in memory, if it is to be.

        Raises:
            UnavailableError: If that takes too long.
        """
        try:
            async with asyncio.timeout(LOAD_WAIT_S):
                while self.is_loading(job_id):
                    await self._loads[partition_of(job_id)].moved.wait()
        except TimeoutError as error:
            raise UnavailableError("the job is still being loaded; try again", retry_after_s=1.0) from error

    async def _load(self, owned: Sequence[Owned]) -> None:
        epochs = {partition.id: partition.epoch for partition in owned}
        while any(self._is_ours(partition, epoch) for partition, epoch in epochs.items()):
            try:
                await self._load_all(epochs)
            except (*OUTAGE, UnavailableError) as error:
                self._log.warning("load_failed", error=type(error).__name__)
                await asyncio.sleep(_RETRY_S)
            else:
                break
        for partition, epoch in epochs.items():
            load = self._loads.get(partition)
            if load is not None and load.epoch == epoch:
                del self._loads[partition]
                self._tell(load, list(load.calls))
        self._log.info("partitions_loaded", partitions=sorted(epochs))

    async def _load_all(self, epochs: dict[int, int]) -> None:
        pending = await self._jobs.pending(sorted(epochs))
        for partition, epoch in epochs.items():
            if self._is_ours(partition, epoch):
                load = self._loads[partition]
                # Those that are in memory already were accepted a moment ago.
                load.jobs = {
                    job_id
                    for job_id in pending
                    if partition_of(job_id) == partition and self._replica.find(job_id) is None
                }
                self._tell(load, [job_id for job_id in load.calls if job_id not in load.jobs])
        for job_id in pending:
            partition = partition_of(job_id)
            epoch = epochs[partition]
            await self._replica.in_time()
            if self._is_ours(partition, epoch) and job_id in (self._loads[partition].jobs or ()):
                await self._load_one(job_id, partition, epoch)

    async def _load_one(self, job_id: str, partition: int, epoch: int) -> None:
        try:
            loaded = await self._jobs.load(job_id)
            if loaded is not None and not loaded.run.state.is_terminal and self._is_ours(partition, epoch):
                self._takeovers.admits(job_id)
                await self._replica.admit(loaded)
        except (*OUTAGE, UnavailableError):
            raise
        except Exception:  # noqa: BLE001 - one job that cannot be read parks itself
            # It is left alone, so that it does not keep the others from being served.
            self._log.exception("job_not_loaded", job=job_id)
        if self._is_ours(partition, epoch):
            load = self._loads[partition]
            (load.jobs or set()).discard(job_id)
            self._tell(load, [job_id])
        self._takeovers.heard(job_id)

    def _is_ours(self, partition: int, epoch: int) -> bool:
        stamp = self._replica.stamps.get(partition)
        load = self._loads.get(partition)
        return stamp is not None and stamp.epoch == epoch and load is not None and load.epoch == epoch

    @staticmethod
    def _tell(load: _Load, jobs: Sequence[str]) -> None:
        moved, load.moved = load.moved, asyncio.Event()
        moved.set()
        for job_id in jobs:
            for call in load.calls.pop(job_id, ()):
                call()
