"""The database's time, as this process sees it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DatabaseClock"]


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
        """Take over a time read in the database."""
        self._offset_s = seconds - self._monotonic()

    def now(self) -> float:
        """Return the time by the database's clock, seconds since 1970.

        It is a whole number of microseconds, as the database keeps it: what is in memory is what is read again.
        """
        return round(self._monotonic() + self._offset_s, 6)
