"""The command line as a process of its own, against a running stack."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support.engine import Engine

__all__ = ["Said", "pixloom"]


@dataclass(frozen=True, slots=True)
class Said:
    """What a command said.

    Attributes:
        code: Its exit code.
        out: Its standard output.
        err: Its standard error stream.
    """

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


async def pixloom(engine: Engine, *words: str, **settings: str) -> Said:
    """Run a command to its end.

    Args:
        engine: The server that it talks to.
        words: Its words.
        settings: Further variables of its environment.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIXLOOM_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "pixloom.cli",
        *words,
        env={**environment, "PIXLOOM_SERVER": engine.stack.grpc_address, **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return Said(process.returncode or 0, out.decode(), err.decode())
