"""Stages whose consequences have not been worked out, lowest first."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["StageQueue"]


class StageQueue:
    """A set of stage numbers that gives its least one in O(log n), as jobs may have 20,000 stages."""

    __slots__ = ("_heap", "_members")

    def __init__(self) -> None:
        self._members: set[int] = set()
        self._heap: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def add(self, stage: int) -> None:
        """Put a stage in, unless it is."""
        if stage not in self._members:
            self._members.add(stage)
            heapq.heappush(self._heap, stage)

    def update(self, stages: Iterable[int]) -> None:
        """Put stages in."""
        for stage in stages:
            self.add(stage)

    def first(self) -> int:
        """Return the least stage; there must be one."""
        while self._heap[0] not in self._members:
            heapq.heappop(self._heap)
        return self._heap[0]

    def remove_first(self) -> None:
        """Take the least stage out; there must be one."""
        self._members.discard(self.first())
        heapq.heappop(self._heap)

    def clear(self) -> None:
        """Take everything out."""
        self._members.clear()
        self._heap.clear()
