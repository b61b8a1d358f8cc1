"""The database's time, as this process sees it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DatabaseClock"]

LATE_S: Final = 0.05
"""Time by which an answer of the database may be late, seconds; by more the clock was set anew."""

DRIFT: Final = 0.01
"""Share of an answer's lateness that is taken for a drift of the clocks."""


class DatabaseClock:
    """Follows Postgres's clock: every commit tells it the time, and in between the monotonic clock carries it on.

    Args:
        wall: What to go by until the database has told its time, seconds since 1970.
        monotonic: A clock that never jumps, seconds.
    """

    def __init__(
        self, *, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._monotonic = monotonic
        self._offset_s = wall() - monotonic()

    def set(self, seconds: float) -> None:
        """Take over a time read in the database a moment ago.

        How long its answer took is not known, so it is that late at most. The quickest answers count: one that is a
        little later than those before changes next to nothing, and what differs by more was set anew.
        """
        offset_s = seconds - self._monotonic()
        late_s = self._offset_s - offset_s
        if 0.0 < late_s < LATE_S:
            offset_s = self._offset_s - DRIFT * late_s
        self._offset_s = offset_s

    def now(self) -> float:
        """Return the time by the database's clock, seconds since 1970.

        It is a whole number of microseconds, as the database keeps it: what is in memory is what is read again.
        """
        return round(self._monotonic() + self._offset_s, 6)
