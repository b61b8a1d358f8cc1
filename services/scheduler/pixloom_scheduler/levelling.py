"""Who should own how many partitions, as a pure function of what the database shows.

The partitions are divided evenly; what is left over goes to those replicas that have run longest. A replica below its
share takes what is free, one above it gives up what it has too much. The shares of all replicas add up to the number
of partitions, so what the ones have too much is exactly what the others lack: as long as nobody comes or goes, every
partition moves at most once, and then nothing moves any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Move", "fair_shares", "next_move", "place_among"]


@dataclass(frozen=True, slots=True)
class Move:
    """What a replica does next.

    Attributes:
        take: How many free partitions it may take at most.
        give: Partitions it releases.
    """

    take: int = 0
    give: tuple[int, ...] = ()


def fair_shares(replicas: Sequence[str], partitions: int) -> dict[str, int]:
    """Return how many partitions each replica should own.

    Args:
        replicas: Ids of the live replicas, the one that has run longest first.
        partitions: Number of partitions.
    """
    if not replicas:
        return {}
    each, over = divmod(partitions, len(replicas))
    return {replica: each + (place < over) for place, replica in enumerate(replicas)}


def next_move(
    me: str, replicas: Sequence[str], owners: Mapping[int, str], *, jobs: Mapping[int, int] | None = None
) -> Move:
    """Return what replica `me` does next.

    Args:
        me: Id of the replica; one that is not alive does nothing.
        replicas: Ids of the live replicas, the one that has run longest first.
        owners: Owner of each partition; blank for one that is free or whose lease has ended.
        jobs: Number of jobs by partition: the emptiest ones are given up.
    """
    share = fair_shares(replicas, len(owners)).get(me)
    if share is None:
        return Move()
    load = jobs or {}
    mine = sorted((partition for partition, owner in owners.items() if owner == me), key=lambda p: (load.get(p, 0), p))
    if len(mine) > share:
        return Move(give=tuple(sorted(mine[: len(mine) - share])))
    free = sum(1 for owner in owners.values() if not owner)
    return Move(take=min(free, share - len(mine)))


def place_among(me: str, replicas: Sequence[str], owners: Mapping[int, str]) -> tuple[int, int]:
    """Return the place of replica `me` among those that may have jobs, from 0 on, and how many these are.

    They are the live ones that have a share of the partitions, and whoever owns partitions without one: it is about to
    leave or stands back. All who look at the same time see the same order.

    Args:
        me: Id of the replica.
        replicas: Ids of the live replicas, the one that has run longest first.
        owners: Owner of each partition; blank for one that is free or whose lease has ended.
    """
    counted = [replica for replica, share in fair_shares(replicas, len(owners)).items() if share]
    counted += sorted({owner for owner in owners.values() if owner}.difference(counted))
    if me not in counted:
        counted.append(me)
    return counted.index(me), len(counted)
