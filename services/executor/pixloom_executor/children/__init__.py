"""Child processes that run ops, and the pool that feeds them.

    supervisor (asyncio)                        template process                 child
    ChildPool ── Slot ── ForkServer ──spawn──▶  forkserver.py ──fork──▶  child.py ── ChainRunner
                  │                                                        ▲   │
                  └──────────── socket: batches out, results back ─────────┘   │
                  └──────────── shared page: what the child is doing ◀─────────┘

The template imports every op once and forks on request, so that a replacement costs milliseconds. A child that dies or
hangs is replaced; the item that it was on, told by the shared page, runs once more alone and is rejected if that takes
a child down again.
"""

from __future__ import annotations

from pixloom_executor.children.pool import ChildPool
from pixloom_executor.children.settings import ChildSettings

__all__ = ["ChildPool", "ChildSettings"]
