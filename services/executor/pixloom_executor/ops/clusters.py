"""Clusters: which items belong together because a chain of pairs joins them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["DisjointSets", "near_pairs"]

# Queries of one search, and pairs it may find if everything is near everything: bound the memory of a result list.
_MAX_QUERIES: Final = 2048
_MAX_PAIRS: Final = 20_000_000


class DisjointSets:
    """Disjoint sets of the numbers below `count`, joined pair by pair.

    Source: R. E. Tarjan, Efficiency of a Good But Not Linear Set Union Algorithm, 1975, doi:10.1145/321879.321884. The
    smallest member stands for its set, so the result does not depend on the order of the pairs.
    """

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def find(self, member: int) -> int:
        """Return the smallest member of the set that `member` is in."""
        parents = self._parents
        while parents[member] != member:
            parents[member] = parents[parents[member]]
            member = parents[member]
        return member

    def join(self, first: int, second: int) -> None:
        """Make one set of the sets of two members."""
        low, high = sorted((self.find(first), self.find(second)))
        self._parents[high] = low

    def groups(self) -> list[list[int]]:
        """Return the sets, each ascending, ordered by their smallest member."""
        groups: dict[int, list[int]] = {}
        for member in range(len(self._parents)):
            groups.setdefault(self.find(member), []).append(member)
        return list(groups.values())


def near_pairs(hashes: Sequence[bytes], max_distance: int) -> Iterator[tuple[int, int]]:
    """Yield pairs of indexes whose hashes differ in at most `max_distance` bits, enough of them to join all that are near.

    Equal hashes are joined to the first of them; the others are compared all with all.

    Args:
        hashes: Hashes of equal length.
        max_distance: Bits that may differ.
    """
    first: dict[bytes, int] = {}
    for index, value in enumerate(hashes):
        known = first.setdefault(value, index)
        if known != index:
            yield known, index
    if max_distance > 0 and len(first) > 1:
        indexes = list(first.values())
        for one, other in _searched(list(first), max_distance):
            yield indexes[one], indexes[other]


def _searched(hashes: Sequence[bytes], max_distance: int) -> Iterable[tuple[int, int]]:
    import faiss
    import numpy as np

    vectors = np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(len(hashes), -1)
    index = faiss.IndexBinaryFlat(vectors.shape[1] * 8)
    index.add(vectors)
    step = max(1, min(_MAX_QUERIES, _MAX_PAIRS // len(hashes)))
    for start in range(0, len(hashes), step):
        block = vectors[start : start + step]
        # The radius of faiss is exclusive.
        limits, _, found = index.range_search(block, max_distance + 1)
        queries = np.repeat(np.arange(start, start + len(block)), np.diff(limits.astype(np.int64)))
        later = found > queries
        yield from zip(queries[later].tolist(), found[later].tolist(), strict=True)
