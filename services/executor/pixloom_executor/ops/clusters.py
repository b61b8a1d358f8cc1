"""Clusters: which items belong together because a chain of pairs joins them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["DisjointSets", "near_pairs"]

# Queries of one search, and pairs it may find if everything is near everything: bound the memory of what is found.
_MAX_QUERIES: Final = 2048
_MAX_PAIRS: Final = 5_000_000


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


def near_pairs(
    hashes: Sequence[bytes], max_distance: int, *, most_queries: int = _MAX_QUERIES
) -> Iterator[tuple[int, int]]:
    """Yield pairs of indexes that a chain of near hashes joins, fewer of them than there are hashes, and enough for all.

    Near are hashes that differ in at most `max_distance` bits. Equal ones are joined to the first of them; the others
    are compared all with all.

    Args:
        hashes: Hashes of equal length.
        max_distance: Bits that may differ.
        most_queries: Most hashes that are looked up at once; the clusters do not depend on it.
    """
    first: dict[bytes, int] = {}
    for index, value in enumerate(hashes):
        known = first.setdefault(value, index)
        if known != index:
            yield known, index
    if max_distance > 0 and len(first) > 1:
        indexes = list(first.values())
        for one, other in _searched(list(first), max_distance, most_queries):
            yield indexes[one], indexes[other]


def _searched(hashes: Sequence[bytes], max_distance: int, most_queries: int) -> Iterable[tuple[int, int]]:
    """Return every index that is not the smallest of its cluster behind the one that is, from different hashes.

    Photographs of one scene may all be near each other, a pair for every two of them. So pairs become labels block by
    block, in arrays: each index has the smallest one that it is joined to so far, and of the pairs between two labels
    the larger label takes the smaller one.

    Source: Y. Shiloach, U. Vishkin, An O(log n) Parallel Connectivity Algorithm, 1982, doi:10.1016/0196-6774(82)90008-6.
    """
    import faiss
    import numpy as np

    vectors = np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(len(hashes), -1)
    index = faiss.IndexBinaryFlat(vectors.shape[1] * 8)
    index.add(vectors)
    labels = np.arange(len(hashes))
    step = max(1, min(most_queries, _MAX_PAIRS // len(hashes)))
    for start in range(0, len(hashes), step):
        block = vectors[start : start + step]
        # The radius of faiss is exclusive.
        limits, _, found = index.range_search(block, max_distance + 1)
        queries = np.repeat(np.arange(start, start + len(block)), np.diff(limits.astype(np.int64)))
        one, other = labels[queries], labels[found]
        while (apart := one != other).any():
            one, other = one[apart], other[apart]
            np.minimum.at(labels, np.maximum(one, other), np.minimum(one, other))
            while (labels != (nearer := labels[labels])).any():
                labels = nearer
            one, other = labels[one], labels[other]
    joined = np.flatnonzero(labels != np.arange(len(hashes)))
    return zip(labels[joined].tolist(), joined.tolist(), strict=True)
