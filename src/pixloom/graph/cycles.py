"""Finding cycles in a graph of nodes, each named by one way around."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["find_cycles", "topological_order"]


def topological_order(needs: Sequence[Sequence[int]]) -> list[int]:
    """Return the nodes so that each comes after what it needs, else by index; nodes on or behind cycles are missing.

    Args:
        needs: For each node the nodes it comes after, without repetitions.
    """
    import heapq

    followers: list[list[int]] = [[] for _ in needs]
    open_needs = [len(before) for before in needs]
    for node, before in enumerate(needs):
        for other in before:
            followers[other].append(node)
    ready = [node for node, count in enumerate(open_needs) if count == 0]
    order: list[int] = []
    while ready:
        node = heapq.heappop(ready)
        order.append(node)
        for follower in followers[node]:
            open_needs[follower] -= 1
            if open_needs[follower] == 0:
                heapq.heappush(ready, follower)
    return order


def find_cycles(needs: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return one shortest cycle through the first node of every strongly connected part, in order of that node.

    Args:
        needs: For each node the nodes it comes after, without repetitions.
    """
    settled = set(topological_order(needs))
    cycles = []
    for part in _parts([[n for n in before if n not in settled] for before in needs], settled):
        first = min(part)
        if len(part) > 1 or first in needs[first]:
            cycles.append(_shortest_cycle(first, needs, set(part)))
    return sorted(cycles)


def _shortest_cycle(start: int, needs: Sequence[Sequence[int]], inside: set[int]) -> list[int]:
    """Return the nodes of a shortest cycle, each one needed by the next, starting at `start`."""
    came_from: dict[int, int] = {}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for other in needs[node]:
            if other == start:
                # The search went from a node to what it needs, so the way back from here runs along the edges.
                cycle = [start]
                while node != start:
                    cycle.append(node)
                    node = came_from[node]
                return cycle
            if other in inside and other not in came_from:
                came_from[other] = node
                queue.append(other)
    raise AssertionError("a strongly connected part holds a cycle through each of its nodes")


def _parts(needs: Sequence[Sequence[int]], settled: set[int]) -> list[list[int]]:
    """Return the strongly connected parts (Tarjan 1972, doi:10.1137/0201010), without recursion."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    on_stack: set[int] = set()
    stack: list[int] = []
    parts: list[list[int]] = []
    for root in range(len(needs)):
        if root in settled or root in index:
            continue
        work = [(root, iter(needs[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, rest = work[-1]
            for other in rest:
                if other not in index:
                    index[other] = low[other] = len(index)
                    stack.append(other)
                    on_stack.add(other)
                    work.append((other, iter(needs[other])))
                    break
                if other in on_stack:
                    low[node] = min(low[node], index[other])
            else:
                work.pop()
                if work:
                    parent = work[-1][0]
                    low[parent] = min(low[parent], low[node])
                if low[node] == index[node]:
                    part = []
                    while True:
                        other = stack.pop()
                        on_stack.discard(other)
                        part.append(other)
                        if other == node:
                            break
                    parts.append(part)
    return parts
