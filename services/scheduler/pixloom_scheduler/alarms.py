"""Waiting for an event, but not for longer than a while, as loops do that look again each second.

`asyncio.timeout` ends a wait by cancelling it: two exceptions for nothing but that time has passed.
"""

from __future__ import annotations

import asyncio

__all__ = ["wait_or_set"]


async def wait_or_set(event: asyncio.Event, seconds: float | None) -> None:
    """Return when an event is set; it is set here if nobody does so in time.

    Args:
        event: The event; it stays set.
        seconds: How long to wait for others to set it; None for as long as it takes.
    """
    if seconds is None:
        await event.wait()
        return
    alarm = asyncio.get_running_loop().call_later(seconds, event.set)
    try:
        await event.wait()
    finally:
        alarm.cancel()
