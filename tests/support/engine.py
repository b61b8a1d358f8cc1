"""A whole stack for tests: every part as a process of its own, and what tests ask it again and again."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from pixloom.artifacts.store import open_store
from pixloom.local.options import LocalStackOptions, default_parts
from pixloom.local.stack import LocalStack
from pixloom.resources import Event, Snapshot
from pixloom.sdk.aio import AsyncClient
from pixloom_scheduler.journal.check.database import check_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from pixloom.local.options import PartSpec, Wiring
    from pixloom.resources import Attempt, Executor, Item, Job, Node

__all__ = ["Engine", "node_of", "running_engine"]

REPOSITORY = Path(__file__).parents[2]
READY_S = 120.0
"""Limit of a start: several seconds on a quiet machine, and much more where others want it for themselves."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A running stack, a client for its gRPC and one for its REST.

    Attributes:
        stack: The processes.
        client: Speaks gRPC with the gateway.
        http: Speaks REST with the gateway.
        lines: What the stack has announced so far.
    """

    stack: LocalStack
    client: AsyncClient
    http: httpx2.AsyncClient
    lines: list[str]

    async def submit(self, *nodes: dict[str, Any], name: str = "test", **more: Any) -> Job:
        """Create a job of a document with these nodes."""
        given = {key: more.pop(key) for key in ("params", "request_id", "start") if key in more}
        return await self.client.create_job(spec={"name": name, "nodes": list(nodes), **more}, **given)

    async def begin(self, *, count: int, seconds: float, client: AsyncClient | None = None) -> Job:
        """Create a job of many short tasks, at a scheduler if one is given, and return when it is in their middle.

        Args:
            count: Number of tasks at its node `wait`.
            seconds: Time that each takes.
            client: Speaks with whom to create it at; the gateway if not given.
        """
        wait = {"op": "debug.sleep", "inputs": {"items": "numbers"}, "params": {"seconds": seconds}, "shard_size": 1}
        nodes = [{"id": "numbers", "op": "debug.range", "params": {"count": count}}, {"id": "wait", **wait}]
        job: Job = await (client or self.client).create_job(spec={"name": "test", "nodes": nodes})
        await self.until(job.id, lambda snapshot: node_of(snapshot, "wait").items.ok >= count // 10)
        return job

    async def until(self, job_id: str, happened: Callable[[Snapshot], bool], *, within_s: float = 60) -> Snapshot:
        """Watch a job until a snapshot shows what is waited for."""
        last: Snapshot | None = None
        try:
            async with contextlib.aclosing(self.client.watch_job(job_id)) as updates, asyncio.timeout(within_s):
                async for update in updates:
                    if isinstance(update, Snapshot):
                        last = update
                        if happened(update):
                            return update
        except TimeoutError as error:
            nodes = [(node.id, str(node.state), node.tasks, node.waiting_reason) for node in last.nodes] if last else []
            raise AssertionError(f"job {job_id} did not show it within {within_s} s, but {nodes}") from error
        raise AssertionError(f"job {job_id} ended and never showed it")

    async def finish(self, job_id: str, *, within_s: float = 60) -> Job:
        """Wait for the end of a job."""
        job = await self.client.wait_job(job_id, timeout_s=within_s)
        if not job.state.is_final:
            nodes = [(node.id, node.state, node.tasks, node.waiting_reason) for node in await self.nodes(job_id)]
            raise AssertionError(f"job {job_id} is {job.state} after {within_s} s: {nodes}")
        return job

    async def run(self, *nodes: dict[str, Any], within_s: float = 60, **more: Any) -> Job:
        """Create a job and wait for its end."""
        return await self.finish((await self.submit(*nodes, **more)).id, within_s=within_s)

    async def nodes(self, job_id: str) -> list[Node]:
        """Return the nodes of a job."""
        nodes: list[Node] = await self.client.list_nodes(job_id)
        return nodes

    async def node(self, job_id: str, name: str) -> Node:
        """Return a node of a job."""
        return next(node for node in await self.nodes(job_id) if node.id == name)

    async def until_waits(self, job_id: str, name: str, reason: str, *, within_s: float = 60) -> str:
        """Ask until a node says that it waits for a reason that begins so; snapshots tell of a job's own news only."""
        found: str | None = None
        async with _deadline(within_s, f"node {name} did not wait as {reason!r}"):
            while not (found or "").startswith(reason) or not found:
                await asyncio.sleep(0.05)
                found = (await self.node(job_id, name)).waiting_reason
        return found

    async def until_executors(
        self, happened: Callable[[list[Executor]], bool], *, within_s: float = 60
    ) -> list[Executor]:
        """Ask for the executors until something shows."""
        async with _deadline(within_s, "the executors did not show it"):
            while True:
                found: list[Executor] = await self.client.list_executors()
                if happened(found):
                    return found
                await asyncio.sleep(0.05)

    async def items(self, job_id: str, node: str) -> list[Item]:
        """Return everything that was at a node."""
        return [item async for item in self.client.iter_items(job_id, node, page_size=1000)]

    async def attempts(self, job_id: str, node: str) -> list[Attempt]:
        """Return all attempts at a node."""
        return [attempt async for attempt in self.client.iter_attempts(job_id, node, page_size=1000)]

    async def events(self, job_id: str, *, after_seq: int = 0) -> list[Event]:
        """Return the durable events of a job that has ended, or watch it to its end."""
        updates = self.client.watch_job(job_id, after_seq=after_seq)
        return [update async for update in updates if isinstance(update, Event)]

    async def require_completed(self, job: Job, *, count: int) -> list[Attempt]:
        """Require that a job of `count` tasks at its node `wait` ends with each of them done exactly once.

        Returns:
            All attempts.
        """
        ended = await self.finish(job.id)
        assert (ended.state, ended.error) == ("COMPLETED", None)
        assert (ended.items.ok, ended.items.filtered, ended.items.rejected) == (count, 0, 0)
        return await self.require_each_once(job.id, "wait", count)

    async def require_each_once(self, job_id: str, node: str, count: int) -> list[Attempt]:
        """Require `count` tasks of one item at a node, each of which succeeded in exactly one attempt.

        Returns:
            All attempts.
        """
        attempts = await self.attempts(job_id, node)
        assert Counter(attempt.task for attempt in attempts if attempt.outcome == "OK") == dict.fromkeys(
            {attempt.task for attempt in attempts}, 1
        )
        assert len({attempt.task for attempt in attempts}) == count
        assert len({attempt.id for attempt in attempts}) == len(attempts)
        items = await self.items(job_id, node)
        assert sorted(int(item.key) for item in items) == list(range(count))
        assert {item.state for item in items} == {"OK"}
        return attempts


def node_of(snapshot: Snapshot, name: str) -> Node:
    """Return a node as a snapshot shows it."""
    return next(node for node in snapshot.nodes if node.id == name)


@contextlib.asynccontextmanager
async def running_engine(
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    source_roots: Sequence[Path] = (),
    imports: Sequence[str] = (),
    schedulers: int = 1,
    make_parts: Callable[[LocalStackOptions, Wiring], Sequence[PartSpec]] = default_parts,
) -> AsyncIterator[Engine]:
    """Start a stack with two executors of one slot each, return when both are in session, and stop it at the end.

    Args:
        folder: Where its data goes.
        environment: Variables of all its processes.
        source_roots: Folders that sources may read.
        imports: Modules with ops that executors load; those of this repository's tests are found.
        schedulers: How many schedulers share the jobs.
        make_parts: Says how the services are started.
    """
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIXLOOM_EXECUTOR_SLOTS", "1")
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])))
        for name, value in (environment or {}).items():
            patch.setenv(name, value)
        options = LocalStackOptions(
            data_dir=folder / "data",
            http_port=0,
            grpc_port=0,
            executors=2,
            schedulers=schedulers,
            workflows_dir=folder / "workflows",
            source_roots=tuple(source_roots),
            imports=tuple(imports),
            ready_timeout_s=READY_S,
        )
        stack = LocalStack(options, make_parts=make_parts, announce=lines.append)
        async with (
            stack,
            AsyncClient(stack.grpc_address) as client,
            httpx2.AsyncClient(base_url=stack.http_url, timeout=30) as http,
        ):
            engine = Engine(stack, client, http, lines)
            # Ready is who has a process; what tests look at comes with the session.
            await engine.until_executors(lambda found: len(found) == 2)
            yield engine
            await _require_invariants(stack)


async def _require_invariants(stack: LocalStack) -> None:
    """Require that whatever the tests did left nothing behind that breaks an invariant."""
    store = open_store((stack.options.data_dir.absolute() / "artifacts").as_uri())
    findings = await check_database(stack.wiring.database_url, artifacts=store)
    assert findings.violations == []


@contextlib.asynccontextmanager
async def _deadline(seconds: float, what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise AssertionError(f"{what} within {seconds} s") from error
