"""The database's time, as this process sees it."""

from __future__ import annotations

import time

__all__ = ["DatabaseClock"]


class DatabaseClock:
    """Follows Postgres's clock: every commit tells it the time, and in between the monotonic clock carries it on."""

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()

    def set(self, seconds: float) -> None:
        """Take over a time read in the database."""
        self._offset_s = seconds - time.monotonic()

    def now(self) -> float:
        """Return the time by the database's clock, seconds since 1970."""
        return time.monotonic() + self._offset_s
