"""What a case gets: where to put things, how long it may take, and a load on a stack with something going wrong."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.faults.cluster import LINKS, Cluster
from tests.faults.load import Load
from tests.faults.verdict import Outcome, judge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

__all__ = ["Case", "Enough", "Scene"]


class Enough(Exception):  # noqa: N818 - it is no error
    """Trouble that has made enough of itself."""


@dataclass(slots=True)
class Scene:
    """One run of one case.

    Attributes:
        folder: An empty folder.
        scale: Size of the load, 1 for the whole.
        seconds: About how long faults go on.
        schedulers: Number of schedulers.
        rng: Chooses what is left to chance, from a seed.
        moments: When faults happened, seconds since 1970.
    """

    folder: Path
    scale: float
    seconds: float
    schedulers: int = 1
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    moments: list[float] = field(default_factory=list)

    def cluster(self, **options: Any) -> Cluster:
        """Return a stack that is not started yet."""
        return Cluster(self.folder, schedulers=self.schedulers, **options)

    @property
    def links(self) -> tuple[str, ...]:
        """The links that can go through a proxy; executors look for the owner of a job among several schedulers."""
        return LINKS if self.schedulers == 1 else tuple(link for link in LINKS if link != "scheduler")

    def load(self, cluster: Cluster, **options: Any) -> Load:
        """Return the load of this size."""
        return Load(cluster, scale=self.scale, **options)

    def happens(self) -> None:
        """Note that a fault happens now."""
        self.moments.append(time.time())

    @property
    def limit_s(self) -> float:
        """Seconds after which a load that has not ended is lost."""
        return 120 + 3 * self.seconds + 900 * self.scale

    async def under(
        self,
        cluster: Cluster,
        load: Load,
        trouble: Callable[[], Awaitable[None]],
        *,
        at_least_s: float = 0.0,
    ) -> Outcome:
        """Run the load while `trouble` is made again and again, and return what it cost.

        It stops with `Enough`, after `seconds`, or `at_least_s` if that is longer; the load is then let end in peace.
        """
        calm = asyncio.Event()
        running = asyncio.create_task(load.run(until=calm, within_s=self.limit_s + at_least_s))

        async def make_trouble() -> None:
            with contextlib.suppress(Enough):
                while True:
                    await trouble()

        troubling = asyncio.create_task(make_trouble())
        try:
            await asyncio.wait(
                {running, troubling}, timeout=max(self.seconds, at_least_s), return_when="FIRST_COMPLETED"
            )
            if troubling.done():
                troubling.result()
        except BaseException:
            running.cancel()
            raise
        finally:
            troubling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await troubling
            calm.set()
        for proxy in cluster.proxies.values():
            await proxy.listen()
            proxy.restore()
        in_time = await running
        outcome = await judge(cluster, load, moments=self.moments)
        if not in_time:
            outcome.problems.append(f"the load did not end within {self.limit_s:.0f} s")
        if not self.moments:
            outcome.problems.append("no fault happened")
        outcome.figures["faults"] = len(self.moments)
        return outcome


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table.

    Attributes:
        name: As on the command line.
        fault: What goes wrong, for the table.
        bar: The further bar, for the table.
        run: Runs it.
    """

    name: str
    fault: str
    bar: str
    run: Callable[[Scene], Awaitable[Outcome]]
