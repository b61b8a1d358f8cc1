"""A gate at which the items of a job wait: a test decides when work goes on, and not how long it takes."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Gate"]

LONGEST_S = 900
"""Time limit of an item, far beyond what a test waits for."""


class Gate:
    """A gate that is closed until `open` is called; the op `tests.pass_gate` waits at it.

    Args:
        folder: Where the file lies that stands for the open gate.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / f"gate-{uuid.uuid4().hex}"

    def open(self) -> None:
        """Let everything pass, now and later."""
        self._file.touch()

    async def until_waiting(self, count: int, *, within_s: float = 60) -> None:
        """Return when so many items have come to the closed gate."""
        async with asyncio.timeout(within_s):
            while len(list(self._file.parent.glob(f"{self._file.name}-*"))) < count:  # noqa: ASYNC110 - files tell nobody
                await asyncio.sleep(0.02)

    @property
    def file(self) -> str:
        """Path of the file that stands for the open gate."""
        return str(self._file)

    def node(self, name: str, *, behind: str = "numbers", free: int = 0, **more: Any) -> dict[str, Any]:
        """Return a node with a task for each item, at which items wait.

        Args:
            name: Id of the node.
            behind: The node whose items come here.
            free: Items with a number below this pass a closed gate.
            more: Further fields of the node.
        """
        return {
            "id": name,
            "op": "tests.pass_gate",
            "inputs": {"items": behind},
            "params": {"file": str(self._file), "free": free},
            "shard_size": 1,
            "timeout_s": LONGEST_S,
            "estimated_duration_s": 1,  # so that nobody is handed several at once
            **more,
        }
