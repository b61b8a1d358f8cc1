"""Work that is offered to executors and that nobody has claimed yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import ItemsView, ValuesView

    from pixloom.v1 import executor_pb2
    from pixloom_scheduler.executors import ExecutorSession
    from pixloom_scheduler.live import LiveJob

__all__ = ["HandOver", "Offer", "OfferBook"]


class HandOver(Protocol):
    """Grants a batch to an executor that did not ask for it."""

    def __call__(self, session: ExecutorSession, live: LiveJob, batch: executor_pb2.LeaseBatch) -> int:
        """Return how many of its tasks the executor got; the others are taken out of the batch."""


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


class OfferBook:
    """Offers by dispatch, and how much work they are."""

    def __init__(self) -> None:
        self._offers: dict[str, Offer] = {}
        self._offered_s: dict[tuple[str, str], float] = {}

    def __len__(self) -> int:
        return len(self._offers)

    def __contains__(self, dispatch_id: str) -> bool:
        return dispatch_id in self._offers

    def get(self, dispatch_id: str) -> Offer | None:
        """Return an offer, or None."""
        return self._offers.get(dispatch_id)

    def items(self) -> ItemsView[str, Offer]:
        """Return all of them with their dispatches."""
        return self._offers.items()

    def values(self) -> ValuesView[Offer]:
        """Return all of them."""
        return self._offers.values()

    def offered_s(self, pool: str, lane: str) -> float:
        """Return the expected seconds of work that is offered to all of a pool in a lane."""
        return self._offered_s.get((pool, lane), 0.0)

    def add(self, dispatch_id: str, offer: Offer) -> None:
        """Take in an offer, which counts against the room of the executor it is for, or of its lane."""
        self._offers[dispatch_id] = offer
        if offer.session is not None:
            offer.session.holdings.expect(offer.expected_s)
        else:
            self._offered_s[offer.pool, offer.lane] = self.offered_s(offer.pool, offer.lane) + offer.expected_s

    def remove(self, dispatch_id: str) -> Offer | None:
        """Forget an offer and return it, or None."""
        offer = self._offers.pop(dispatch_id, None)
        if offer is None:
            return None
        if offer.session is not None:
            offer.session.holdings.expect(-offer.expected_s)
        else:
            left = self._offered_s[offer.pool, offer.lane] - offer.expected_s
            self._offered_s[offer.pool, offer.lane] = left if left > 1e-9 else 0.0
        return offer
