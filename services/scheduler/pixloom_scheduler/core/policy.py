"""Numbers the core decides by: back-offs, shard sizes, how often a task may be lost, deadlines.

Jitter is drawn from the task's own place, so that `decide` needs no randomness and a replay gives the same delays.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pixloom.graph.plan import RetryPolicy
    from pixloom_scheduler.core.model import JobRun, StageRun

__all__ = [
    "LOST_BEFORE_REJECT",
    "LOST_BEFORE_SPLIT",
    "MAX_SHARD_ITEMS",
    "Costs",
    "backoff_s",
    "deadline_s",
    "shard_size",
]

LOST_BEFORE_SPLIT: Final = 2
"""LOST outcomes after which a shard goes out item by item."""

LOST_BEFORE_REJECT: Final = 4
"""LOST outcomes after which a single item is rejected, or a whole stage fails."""

MAX_SHARD_ITEMS: Final = 256
"""Most items in a shard that the scheduler cuts by cost."""

SHARD_S: Final = 2.0
"""Work that a shard should hold at most, seconds."""

SMALL_SHARD_S: Final = 0.1
"""Work below which a shard is not made smaller for the sake of having more of them, seconds."""

SHARDS_AT_LEAST: Final = 16
"""Shards that a small collection is cut into if they are worth it, so that it keeps more than one executor busy."""

MAX_BACKOFF_S: Final = 60.0
JITTER: Final = 0.1
MIN_DEADLINE_S: Final = 60.0
MAX_DEADLINE_S: Final = 6 * 3600.0

Costs = Mapping[str, float]
"""Seconds an item by op, as measured so far."""


def backoff_s(policy: RetryPolicy, failures: int, *, place: str) -> float:
    """Return the seconds to wait after the `failures`-th failure: exponential, capped, up to 10 % longer by place."""
    delay = min(policy.initial_backoff_s * policy.multiplier ** (failures - 1), policy.max_backoff_s, MAX_BACKOFF_S)
    jitter = zlib.crc32(f"{place}.{failures}".encode()) / 0xFFFFFFFF
    return delay * (1 + JITTER * jitter)


def shard_size(job: JobRun, stage: StageRun, costs: Costs, items: int) -> int:
    """Return the number of items that a shard of `stage` gets when `items` of them are cut.

    It is the workflow's own, if it gives one; else about two seconds of work, or less where that would leave fewer
    than 16 shards of at least a tenth of a second each.
    """
    if stage.plan.shard_size:
        return stage.plan.shard_size
    item_s = sum(costs.get(job.plan.nodes[node].op, job.plan.nodes[node].cost_s) for node in stage.plan.nodes)
    item_s = max(item_s, 1e-6)
    spread = max(int(SMALL_SHARD_S / item_s), -(-items // SHARDS_AT_LEAST))
    return max(1, min(MAX_SHARD_ITEMS, int(SHARD_S / item_s), spread))


def deadline_s(job: JobRun, stage: StageRun, items: int) -> float:
    """Return the seconds after which tasks with `items` items in all are taken for lost, waiting in line included."""
    item_s = sum(job.plan.nodes[node].timeout_s for node in stage.plan.nodes)
    # Every item may run twice: once in company and once alone after it was suspected of a crash.
    return max(MIN_DEADLINE_S, min(MAX_DEADLINE_S, 2 * item_s * max(items, 1)))
