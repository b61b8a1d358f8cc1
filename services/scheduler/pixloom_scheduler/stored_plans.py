"""Plans of jobs as the database has them, for calls about jobs that are not in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from pixloom.graph.plan_codec import plan_from_json

if TYPE_CHECKING:
    from pixloom.graph.plan import Plan
    from pixloom_scheduler.journal.reader import StoredJob

__all__ = ["plan_of"]

# About 200 nodes: a plan of thousands takes far longer to read than a step of the loop may.
_THREAD_BYTES: Final = 100_000


async def plan_of(stored: StoredJob) -> Plan:
    """Return the plan of a stored job, read off the loop if it is a large one.

    A plan is no document: it may be many times as large as the document that it was made of.
    """
    if len(stored.plan) > _THREAD_BYTES:
        return await asyncio.to_thread(plan_from_json, stored.plan)
    return plan_from_json(stored.plan)
