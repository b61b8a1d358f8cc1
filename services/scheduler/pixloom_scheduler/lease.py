"""For how long this replica may speak for its partitions by its own clock, and for how long it asks to own them.

A lease is short, so that somebody else soon takes over from a replica that died. But a replica that is alive and gets
too little processor time renews a short lease too late, loses its partitions, and spends what time it gets on loading
them again, which makes it later still. So the lease grows with the lateness of renewals. What counts is the second-worst
lateness of the latest minute: one pause is an accident, two are a habit. Whoever is in time has the short lease.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LONGEST", "Lease"]

LONGEST: Final = 5.0
"""The longest lease that is asked for, in leases of the usual length."""

FOR_LATENESS: Final = 3.0
"""Seconds by which it is longer for each second of lateness."""

OWN_SHARE: Final = 0.8
"""Part of its lease after which an owner falls silent: before the database says that it is over."""

PUNCTUAL: Final = 1 / 6
"""Lateness of a renewal that may happen to anybody, in leases of the usual length."""

REMEMBERED: Final = 20.0
"""Time for which a late renewal counts, in leases of the usual length."""


class Lease:
    """The lease of everything that one replica owns; renewed as a whole."""

    def __init__(self, *, usual_s: float, monotonic: Callable[[], float]) -> None:
        """Begin without any partition.

        Args:
            usual_s: Length of the lease of a replica that is in time, seconds.
            monotonic: A clock that never jumps, seconds.
        """
        self._usual_s = usual_s
        self._monotonic = monotonic
        self._since = 0.0
        self._valid_until = 0.0
        self._late: deque[tuple[float, float]] = deque()

    @property
    def is_valid(self) -> bool:
        """Whether the owner may still grant, publish and answer."""
        return self._monotonic() < self._valid_until

    @property
    def length_s(self) -> float:
        """Seconds to ask for: the usual ones, and three more for each second that renewals are late."""
        worst = sorted((late_s for _, late_s in self._remembered()), reverse=True)
        late_s = worst[1] if len(worst) > 1 else 0.0
        return min(self._usual_s + FOR_LATENESS * late_s, self._usual_s * LONGEST)

    @property
    def due_s(self) -> float:
        """Seconds until it is to be renewed; negative once that is overdue."""
        return self._since + self._usual_s / 3 - self._monotonic()

    @property
    def is_overdue(self) -> bool:
        """Whether it should have been renewed a while ago, so that nothing must hold that up."""
        return -self.due_s > self._usual_s * PUNCTUAL

    def begin(self, *, since: float, length_s: float, among_others: bool) -> None:
        """Count from the moment before partitions were taken.

        Args:
            since: That moment, monotonic seconds.
            length_s: What was asked for.
            among_others: Whether there were partitions already: then the earlier end counts.
        """
        valid_until = since + length_s * OWN_SHARE
        self._since = min(since, self._since) if among_others else since
        self._valid_until = min(valid_until, self._valid_until) if among_others else valid_until

    def renew(self, *, sent: float, length_s: float) -> None:
        """Count from the moment before the transaction began that has renewed everything.

        It is counted shorter than the row says: we fall silent first.
        """
        self.note_lateness()
        self._since = sent
        self._valid_until = sent + length_s * OWN_SHARE

    def note_lateness(self) -> None:
        """Take in how late it is: the renewal that was due is there, or has come too late."""
        if self.is_overdue:
            self._late.append((self._monotonic(), -self.due_s))

    def end(self) -> None:
        """Speak for nothing any more."""
        self._valid_until = 0.0

    def _remembered(self) -> deque[tuple[float, float]]:
        oldest = self._monotonic() - self._usual_s * REMEMBERED
        while self._late and self._late[0][0] < oldest:
            self._late.popleft()
        return self._late
