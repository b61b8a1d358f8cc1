"""How long a replica that lost its partitions leaves them to others before it wants its share again.

To take partitions means to load their jobs. A replica that has just lost some is late already, and would be later still
for that: whoever took them over has begun to load them, and would have to give them back. So after a loss it does not
count as a replica for a while, twice as long after each further one, until it has kept what it owns for long enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FIRST_S", "FORGOTTEN_S", "LONGEST_S", "Setbacks"]

FIRST_S: Final = 2.0
"""How long it stands back after a first loss."""

LONGEST_S: Final = 60.0
"""The longest time for which it stands back, but for the jitter."""

FORGOTTEN_S: Final = 60.0
"""Time without a loss, counted from its return, after which the next one is a first one again."""

JITTER: Final = 0.25
"""Part of the time by which it is shorter or longer, so that those who lost together do not come back together."""


class Setbacks:
    """The losses of one replica."""

    def __init__(self, *, monotonic: Callable[[], float], chance: Callable[[], float]) -> None:
        """Begin without losses.

        Args:
            monotonic: A clock that never jumps, seconds.
            chance: Draws a number from 0 to 1, for the jitter.
        """
        self._monotonic = monotonic
        self._chance = chance
        self._count = 0
        self._until = 0.0

    @property
    def left_s(self) -> float:
        """Seconds for which it still stands back; 0 if it does not."""
        return max(0.0, self._until - self._monotonic())

    def note(self) -> None:
        """Take in that partitions were lost; those that are lost while it stands back anyway add nothing."""
        now = self._monotonic()
        if now < self._until:
            return
        self._count = self._count + 1 if self._count and now < self._until + FORGOTTEN_S else 1
        delay_s = min(LONGEST_S, FIRST_S * 2.0 ** (self._count - 1))
        self._until = now + delay_s * (1.0 + JITTER * (2.0 * self._chance() - 1.0))

    def end(self) -> None:
        """Stand back no more: nobody else is there."""
        self._until = min(self._until, self._monotonic())
