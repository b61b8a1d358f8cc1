"""The load under which faults happen, and the ledger of what was accepted.

Jobs have twelve nodes in nine stages: a source, a chain that is not fused with an op that fails at first, a diamond, a
collection op. One more job fans out widely. The ledger notes a job in the moment its submission was answered with
success; whatever happens afterwards, that job must be there and must end COMPLETED.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pixloom.errors import PeerError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.cluster import Cluster

__all__ = ["ITEMS", "JOBS", "WIDTH", "Ledger", "Load", "wide", "workflow"]

JOBS = 500
WIDTH = 10_000
ITEMS = 4
SUBMITTERS = 8
BUSY = 12
"""Unfinished jobs that are enough to keep every executor busy."""

NODES = 12


def workflow(name: str, file: Path, *, seconds: float = 0.0) -> dict[str, Any]:
    """Return twelve nodes over `ITEMS` items; `touch` notes in `file` each time an item is executed."""

    def item_op(node: str, op: str, source: str | list[str], **more: Any) -> dict[str, Any]:
        return {"id": node, "op": op, "inputs": {"items": source}, "fuse": False, **more}

    touch = {"file": str(file), "job": name, "seconds": seconds}
    return {
        "name": "fault-load",
        "nodes": [
            {"id": "numbers", "op": "debug.range", "params": {"count": ITEMS}},
            item_op("touch", "faults.touch", "numbers", params=touch, shard_size=1),
            item_op("one", "debug.noop", "touch"),
            item_op("two", "debug.noop", "one", fuse=True),
            item_op("shaky", "debug.fail", "two", params={"times": 1}, retry={"initial_backoff_s": 0.1}, shard_size=2),
            item_op("left", "debug.noop", "shaky"),
            item_op("right", "debug.noop", "shaky"),
            item_op("both", "debug.noop", ["left", "right"]),
            item_op("three", "debug.noop", "both", fuse=True),
            {"id": "list", "op": "agg.manifest", "inputs": {"items": "three"}},
            {"id": "after", "op": "debug.noop", "dependencies": ["list"]},
            {"id": "end", "op": "debug.noop", "dependencies": ["after", "right"]},
        ],
        "outputs": {"list": "list"},
    }


def wide(tasks: int, *, seconds: float = 0.0) -> dict[str, Any]:
    """Return a source of `tasks` items, a task for each, and one op after all of them."""
    work: dict[str, Any] = {"op": "debug.sleep", "params": {"seconds": seconds}} if seconds else {"op": "debug.noop"}
    return {
        "name": "fault-wide",
        "nodes": [
            {"id": "numbers", "op": "debug.range", "params": {"count": tasks}},
            {"id": "work", **work, "inputs": {"items": "numbers"}, "shard_size": 1, "fuse": False},
            {"id": "all", "op": "agg.manifest", "inputs": {"items": "work"}},
        ],
        "outputs": {"all": "all"},
    }


@dataclass(slots=True)
class Ledger:
    """What the client knows.

    Attributes:
        accepted: Job by the request id of every submission that was answered with success.
        unanswered: Submissions that were given up without an answer.
        refusals: Errors by reason, each of which was tried again.
    """

    accepted: dict[str, str] = field(default_factory=dict)
    unanswered: set[str] = field(default_factory=set)
    refusals: Counter[str] = field(default_factory=Counter)


class Load:
    """Submits jobs to a cluster and waits for their end.

    Args:
        cluster: The stack.
        scale: 1 for the whole load, less for a part of it.
        seconds: Time that each execution of the op that counts takes; more makes the load last longer.
    """

    def __init__(self, cluster: Cluster, *, scale: float, seconds: float = 0.0) -> None:
        self.ledger = Ledger()
        self.touched = cluster.folder / "touched"
        self._cluster = cluster
        self._jobs = max(4, round(JOBS * scale))
        self._width = max(50, round(WIDTH * scale))
        self._seconds = seconds

    async def run(self, *, until: asyncio.Event, within_s: float) -> bool:
        """Submit everything, go on submitting until told, and wait for the end of all jobs.

        Args:
            until: Set when enough has been submitted.
            within_s: How long all of it may take.

        Returns:
            False if it took longer.
        """
        try:
            async with asyncio.timeout(within_s):
                await self.submit()
                while not until.is_set():
                    await self._keep_busy()
                await self.finish()
        except TimeoutError:
            return False
        return True

    async def submit(self) -> None:
        """Submit everything."""
        names = [f"job{number}" for number in range(self._jobs)]
        documents = [workflow(name, self.touched, seconds=self._seconds) for name in names]
        documents.insert(len(documents) // 4, wide(self._width))
        waiting = iter(documents)

        async def submitter() -> None:
            for document in waiting:
                await self.accept(document)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(SUBMITTERS):
                tasks.create_task(submitter())

    async def _keep_busy(self) -> None:
        """Submit one job more, unless there is enough to do."""
        if await self._open_jobs() >= BUSY:
            await asyncio.sleep(0.1)
            return
        await self.accept(workflow(f"more{len(self.ledger.accepted)}", self.touched, seconds=self._seconds))

    async def accept(self, document: dict[str, Any], **more: Any) -> str:
        """Submit one job until it is accepted, under one request id, and return its id."""
        request_id = uuid.uuid4().hex
        delay_s = 0.05
        while True:
            try:
                job = await self._cluster.client.create_job(spec=document, request_id=request_id, **more)
            except PeerError as error:
                self.ledger.refusals[error.reason] += 1
                await asyncio.sleep(delay_s)
                delay_s = min(1.0, delay_s * 2)
            else:
                known = self.ledger.accepted.setdefault(request_id, job.id)
                assert known == job.id
                return job.id

    async def finish(self) -> None:
        """Wait until every accepted job has ended, by the database, which faults do not reach through any proxy."""
        while await self._open_jobs():  # noqa: ASYNC110 - the database tells nobody
            await asyncio.sleep(0.2)

    async def _open_jobs(self) -> int:
        rows = await self._cluster.query(_OPEN, list(self.ledger.accepted.values()))
        return int(rows[0][0])

    def executions(self) -> Counter[str]:
        """Return how often each task that counts was executed."""
        if not self.touched.exists():
            return Counter()
        return Counter(self.touched.read_text(encoding="ascii").split("\n")[:-1])


_OPEN = """
SELECT count(*) FROM unnest($1::text[]) AS accepted(id) LEFT JOIN pixloom.job j ON j.id = accepted.id
WHERE j.id IS NOT NULL AND j.end_time IS NULL
"""
