"""Pools of real child processes, ops that go wrong in them, and a gate at which their tasks wait."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from pixloom.v1 import executor_pb2 as pb
from pixloom.v1 import job_pb2
from pixloom_executor.children import ChildPool, ChildSettings
from tests.unit.executor.tasks import call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

__all__ = ["CANCELLED", "FAILED", "LOST", "OK", "ChildGate", "child_settings", "flaky_pool", "importing_pool", "run"]

OK, FAILED, CANCELLED, LOST = (
    job_pb2.ATTEMPT_OUTCOME_OK,
    job_pb2.ATTEMPT_OUTCOME_FAILED,
    job_pb2.ATTEMPT_OUTCOME_CANCELLED,
    job_pb2.ATTEMPT_OUTCOME_LOST,
)

_FLAKY = """
import os
import shutil
import time
from pathlib import Path
from pixloom.sdk.op import Item, op

@op
def crash_once(item: Item, *, marker: str) -> None:
    if item.ordinal == (2,) and not Path(marker).exists():
        Path(marker).touch()
        os._exit(1)

@op
def pass_gate(item: Item, *, gate: str) -> None:
    if item.ordinal > (0,):
        Path(gate + "-reached").touch()
        while not Path(gate).exists():
            time.sleep(0.01)

@op
def lose_store(item: Item, *, store: str, at: int) -> None:
    if item.ordinal == (at,):
        shutil.rmtree(Path(store) / "cas")

@op
async def shout(item: Item, *, suffix: str = "!") -> dict:
    return {"text": item.key.upper() + suffix}

@op
def environment() -> dict:
    return dict(os.environ)
"""


def child_settings(folder: Path, **options: Any) -> ChildSettings:
    """Return settings of children that read and write below a folder only."""
    return ChildSettings(
        artifacts_url=(folder / "store").as_uri(),
        scratch_dir=str(folder / "scratch"),
        source_roots=(str(folder),),
        **options,
    )


@asynccontextmanager
async def importing_pool(folder: Path, module: str, source: str) -> AsyncIterator[ChildPool]:
    """Run a pool of one child with the ops of a module.

    Args:
        folder: Where the module is written to, and what else the child writes.
        module: Its name.
        source: Its text.
    """
    (folder / f"{module}.py").write_text(source)
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{before}"
    try:
        pool = ChildPool(slots=1, settings=child_settings(folder, imports=(module,)))
        await pool.start()
    finally:
        os.environ["PYTHONPATH"] = before
    try:
        yield pool
    finally:
        await pool.stop()


@asynccontextmanager
async def flaky_pool(folder: Path) -> AsyncIterator[ChildPool]:
    """Run a pool of one child with ops that crash, wait, lose the store, and tell of their surroundings."""
    async with importing_pool(folder, "flaky_ops", _FLAKY) as pool:
        yield pool


async def run(pool: ChildPool, made: pb.LeaseBatch) -> list[pb.TaskResult]:
    """Run a batch; return its results by shard."""
    results: list[pb.TaskResult] = []
    async with asyncio.timeout(60):
        await pool.run(made, results.append)
    return sorted(results, key=lambda result: result.shard)


class ChildGate:
    """A gate at which every item but the first waits in a flaky pool's child, closed until `open` is called."""

    def __init__(self, folder: Path) -> None:
        """Name the folder in which files stand for what happened."""
        self._file, self._reached = folder / "gate", folder / "gate-reached"

    def call(self) -> pb.OpCall:
        """Return the call of the op that waits."""
        return call("user.pass_gate", gate=str(self._file))

    async def until_reached(self) -> None:
        """Return when an item waits."""
        async with asyncio.timeout(60):
            while not self._reached.exists():  # noqa: ASYNC110 - files tell nobody
                await asyncio.sleep(0.01)

    def open(self) -> None:
        """Let everything pass, now and later."""
        self._file.touch()
