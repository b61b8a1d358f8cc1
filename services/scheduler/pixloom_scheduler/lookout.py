"""Finds offers on NATS that nobody can claim any more, or that may have gone with the executor that had pulled them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pixloom_scheduler.clock import DatabaseClock
    from pixloom_scheduler.offers import OfferBook
    from pixloom_scheduler.task_stream import TaskStream

__all__ = ["LOOK_EVERY_S", "Lookout"]

LOOK_EVERY_S: Final = 10.0
FORGET_AFTER_S: Final = 300.0


class Lookout:
    """Looks after what was published.

    Args:
        offers: What is offered.
        tasks: The stream that it was published to.
        clock: Seconds.
        withdraw: Makes the tasks of a dispatch ready again.
    """

    def __init__(
        self, *, offers: OfferBook, tasks: TaskStream, clock: DatabaseClock, withdraw: Callable[[str], None]
    ) -> None:
        self._offers = offers
        self._tasks = tasks
        self._clock = clock
        self._withdraw = withdraw

    def pulled(self, pools: Iterable[str], *, since: float) -> list[tuple[str, str]]:
        """Return pools and lanes of offers that an executor may have pulled by then."""
        served = frozenset(pools)
        return sorted(
            {
                (offer.pool, offer.lane)
                for offer in self._offers.values()
                if offer.pool in served and offer.may_be_pulled(since)
            }
        )

    async def withdraw_pulled(self, lanes: Iterable[tuple[str, str]], *, since: float) -> None:
        """Withdraw what may have been pulled by then.

        Raises:
            nats.errors.Error, OSError, TimeoutError: If NATS does not tell.
        """
        for pool, lane in lanes:
            delivered = await self._tasks.delivered(pool, lane)
            for dispatch_id, offer in list(self._offers.items()):
                is_there = (offer.pool, offer.lane) == (pool, lane) and offer.seq <= delivered
                if is_there and offer.may_be_pulled(since):
                    self._withdraw(dispatch_id)

    async def withdraw_lost(self) -> None:
        """Withdraw what was published a while ago and can no longer be claimed.

        Raises:
            nats.errors.Error, OSError, TimeoutError: If NATS does not tell.
        """
        now = self._clock.now()
        old = [
            (dispatch_id, offer)
            for dispatch_id, offer in self._offers.items()
            if offer.published and now - offer.published > LOOK_EVERY_S
        ]
        for dispatch_id, offer in old:
            if offer.live.run.state.is_terminal or now - offer.published > FORGET_AFTER_S:
                self._withdraw(dispatch_id)
        for pool, lane in sorted({(offer.pool, offer.lane) for _, offer in old}):
            floor, last = await self._tasks.extent(pool, lane)
            for dispatch_id, offer in old:
                if (offer.pool, offer.lane) == (pool, lane) and (offer.seq <= floor or offer.seq > last):
                    self._withdraw(dispatch_id)
