"""Ops without images: for benchmarks, fault tests and learning."""

from __future__ import annotations

import os
import signal
import time
from typing import Annotated, Literal

from pydantic import Field

from pixloom.graph.catalogue import PortType
from pixloom.sdk.op import Context, Item, Page, Reject, Retry, op, source

__all__ = ["crash", "debug_range", "fail", "noop", "sleep"]

_PAGE_ITEMS = (1_000, 10_000)
"""The first page is short, so that work begins at once; each one behind is as long as all before it together."""
_HUGE_BYTES = 1 << 45  # more than any address space limit that makes sense


@source("debug.range", cost_hint_s=0.01, output=PortType.RECORD)
def debug_range(
    *,
    count: Annotated[
        int, Field(ge=0, le=100_000_000, description="Number of items", json_schema_extra={"x-pixloom-count": True})
    ],
    cursor: str | None = None,
) -> Page:
    """Give items without bytes, named by their number."""
    first = int(cursor or 0)
    least, most = _PAGE_ITEMS
    end = min(count, first + max(least, min(most, first)))
    items = [Item(key=str(number)) for number in range(first, end)]
    return Page(items, next_cursor=str(end) if end < count else None)


@op("debug.noop", cost_hint_s=0.00002)
def noop(item: Item | None = None) -> None:
    """Do nothing: items pass unchanged."""


@op("debug.sleep", cost_hint_s=0.1, deterministic=False)
def sleep(
    item: Item | None = None,  # noqa: ARG001 - makes it an item op
    *,
    seconds: Annotated[float, Field(ge=0, le=86_400, description="Seconds to wait for each item")] = 0.1,
) -> None:
    """Wait, then let the item pass."""
    time.sleep(seconds)


@op("debug.fail", cost_hint_s=0.00002, deterministic=False)
def fail(
    item: Item | None = None,  # noqa: ARG001 - makes it an item op
    *,
    times: Annotated[int, Field(ge=0, description="Fail in attempts up to this number")] = 1,
    reason: Annotated[str, Field(pattern="^[A-Z][A-Z0-9_]*$", description="Machine reason given")] = "DEBUG",
    retryable: Annotated[bool, Field(description="Whether trying again may help")] = True,
    ctx: Context,
) -> None:
    """Fail in the first attempts, then let the item pass."""
    if ctx.attempt <= times:
        detail = f"attempt {ctx.attempt} fails on purpose, as the first {times} do"
        raise Retry(reason, detail) if retryable else Reject(reason, detail)


@op("debug.crash", cost_hint_s=0.00002, deterministic=False)
def crash(
    item: Item | None = None,
    *,
    mode: Annotated[
        Literal["signal", "exit", "hang", "alloc"],
        Field(description="Die by SIGSEGV, exit, never return, or ask for more memory than there is"),
    ] = "signal",
    at: Annotated[
        list[int] | None, Field(description="Only at items whose last ordinal is one of these; default at all")
    ] = None,
) -> None:
    """End or block the process that runs it."""
    if item is not None and at is not None and item.ordinal[-1] not in at:
        return
    match mode:
        case "signal":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit":
            os._exit(3)
        case "hang":
            while True:
                time.sleep(3600)
        case "alloc":
            bytearray(_HUGE_BYTES)
