"""The op with which the suite counts executions: each appends a line to a file, whatever becomes of its result."""

from __future__ import annotations

import os
import time
from typing import Annotated, Any, Final

from pydantic import Field

from pixloom.sdk.op import Item, Reject, op

__all__ = ["POISONS", "poison", "touch"]

POISONS: Final = {
    "nul": "a\0b",
    "surrogate": "a\ud800b",
    "huge": "x" * 3_000_000,
    "controls": "".join(map(chr, range(1, 32))),
}
"""Texts that a database, UTF-8 or a person cannot take."""


@op("faults.touch", deterministic=False)
def touch(
    item: Item,
    *,
    file: Annotated[str, Field(description="File to append to")],
    job: Annotated[str, Field(description="Name of the job in it")],
    seconds: Annotated[float, Field(ge=0, description="Seconds to take")] = 0.0,
) -> None:
    """Append the job's name and the item's key, then let the item pass."""
    time.sleep(seconds)
    # One write of a short line to a file opened for appending is not torn by others (POSIX, write).
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{job} {item.key}\n".encode())
    finally:
        os.close(descriptor)


@op("faults.poison", deterministic=False)
def poison(item: Item, *, kind: Annotated[str, Field(description="Which text")]) -> dict[str, Any]:
    """Give a poisonous text: as an attribute, as the reason and sentence of a reject, or as the sentence of an error."""
    text = POISONS[kind]
    if item.key == "1":
        raise Reject("DEBUG", text)
    if item.key == "2":
        raise ValueError(text)
    return {"text": text, text[:50]: 1}
