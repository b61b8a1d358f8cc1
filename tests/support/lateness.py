"""How much time a busy machine has kept from a test, for bars that are promises about time."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Lateness"]

TICK_S = 0.02
PUNCTUAL_S = 0.02
"""Lateness of a tick that a machine with nothing else to do may have as well."""


class Lateness:
    """Adds up by how much a thread that wants to wake every 20 ms was woken too late.

    A promise such as "within 4 s" holds for a machine that lets the parts run. While others have the processors, or
    everything was stopped, this thread is late as the parts are; a bar is moved by that much and by no more. On a
    machine of one's own it stays at 0.
    """

    def __init__(self) -> None:
        self._late_s = 0.0
        self._since = time.monotonic()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    @property
    def seconds(self) -> float:
        """Time kept from us so far, the tick under way included."""
        return self._late_s + self._overdue_s()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _overdue_s(self) -> float:
        return max(0.0, time.monotonic() - self._since - TICK_S - PUNCTUAL_S)

    def _tick(self) -> None:
        while not self._is_over.wait(TICK_S):
            self._late_s += self._overdue_s()
            self._since = time.monotonic()
