"""Ops as users write them, plain and async, for items, collections and values; loaded by the executors of tests."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from pixloom.sdk.op import Context, Filtered, Image, Item, Reject, Retry, op

__all__ = [
    "add",
    "admit",
    "busy",
    "count_items",
    "darken",
    "describe",
    "echo",
    "number_of",
    "pass_gate",
    "publish",
    "refuse",
    "require",
    "split",
    "tell",
    "total",
    "wait_for",
]


@op(version=2)
def darken(
    image: Image, *, by: Annotated[int, Field(ge=0, le=255, description="Levels to subtract from every band")] = 10
) -> Image:
    """Make an image darker."""
    return image.with_vips((image.vips - by).cast("uchar"))


@op("tests.number_of")
async def number_of(item: Item, *, most: int = 1000) -> dict[str, Any]:
    """Add an item's number as an attribute; filter out what is above `most`."""
    await asyncio.sleep(0)
    number = int(item.key)
    if number > most:
        raise Filtered("TOO_MANY", f"{number} is more than {most}")
    return {"number": number}


@op("tests.total")
def total(items: list[Item]) -> dict[str, Any]:
    """Add the numbers up."""
    return {"sum": sum(item.attributes["number"] for item in items), "count": len(items)}


@op("tests.describe")
async def describe(*, count: int) -> dict[str, Any]:
    """Give a value from params alone."""
    await asyncio.sleep(0)
    return {"count": count, "words": ["one", "two"]}


@op("tests.add")
def add(value: dict[str, Any], *, more: int) -> dict[str, Any]:
    """Give a value from another one."""
    return {"sum": value["sum"] + more}


@op("tests.refuse")
def refuse(item: Item, *, below: int = 0) -> None:
    """Reject items whose number is less than `below`."""
    if int(item.key) < below:
        raise Reject("TOO_LITTLE", f"{item.key} is less than {below}")


@op("tests.invent")
def invent(item: Item) -> None:
    """Reject every item with a word of its own."""
    raise Reject(f"WORD_{item.key}")


@op("tests.busy", deterministic=False)
def busy(item: Item, *, after_s: float, ctx: Context) -> None:
    """Ask in the first attempt to come back later, as a server does with Retry-After."""
    if ctx.attempt == 1:
        raise Retry("BUSY", "come back later", after_s=after_s)


@op("tests.pass_gate", deterministic=False)
def pass_gate(item: Item, *, file: str, free: int = 0) -> None:
    """Wait until a file is there, saying so by another one; items with a number below `free` pass at once."""
    if int(item.key) < free:
        return
    Path(f"{file}-{item.key}").touch()
    while not Path(file).exists():
        time.sleep(0.01)


@op("tests.publish", external_effect=True)
def publish(item: Item) -> None:
    """Stand for something that is seen outside."""


@op("tests.count_items")
def count_items(items: list[Item]) -> dict[str, Any]:
    """Count the items."""
    return {"count": len(items)}


@op("tests.echo")
def echo(*, given: Any) -> dict[str, Any]:
    """Give a param back."""
    return {"given": given}


@op("tests.tell", deterministic=False, cost_hint_s=0.00002)
def tell(*, given: Any, gate: str = "", refuse: bool = False) -> dict[str, Any]:
    """Give a param back, or refuse to; while there is no file `gate`, wait for it and say so by another one."""
    if gate:
        Path(f"{gate}-{given}").touch()
        while not Path(gate).exists():
            time.sleep(0.01)
    if refuse:
        raise Reject("REFUSED", f"{given} is refused")
    return {"given": given}


@op("tests.wait_for", deterministic=False)
def wait_for(item: Item, *, path: str) -> None:
    """Let an item pass once there is a file."""
    while not os.path.exists(path):  # noqa: PTH110 - asked again and again
        time.sleep(0.02)


@op("tests.split")
def split(item: Item, *, into: int, whole: str = "") -> list[Item]:
    """Make several items of one; while there is no file `whole`, the last part of item 1 cannot be stored."""
    parts = [replace(item, key=f"{item.key}-{part}", attributes={"part": part}) for part in range(into)]
    if whole and item.key == "1" and not Path(whole).exists():
        parts[-1].attributes["part"] = object()
    return parts


@op("tests.admit", deterministic=False)
def admit(item: Item, *, path: str, late: list[str], log: str) -> None:
    """Reject the items named `late` while there is no file; write the name of every item it is called for to a log."""
    with Path(log).open("a") as file:
        file.write(f"{item.key}\n")
    if item.key in late and not Path(path).exists():
        raise Reject("LATE", f"there is no {path}")


@op("tests.require", deterministic=False)
def require(item: Item, *, path: str) -> None:
    """Reject items while there is no file."""
    if not os.path.exists(path):  # noqa: PTH110 - as above
        raise Reject("NO_FILE", f"there is no {path}")
