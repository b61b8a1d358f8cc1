"""Executors and gateways that were told of one scheduler only, and serve the jobs of both."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pixloom.local.options import LocalStackOptions, PartSpec, Wiring, default_parts
from pixloom.sdk.aio import AsyncClient
from tests.support.engine import running_engine

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("engine-schedulers")

ADDRESSES = "PIXLOOM_SCHEDULER_ADDRESSES"


def told_of_the_first(options: LocalStackOptions, wiring: Wiring) -> tuple[PartSpec, ...]:
    first = f"127.0.0.1:{wiring.scheduler_port}"
    return tuple(replace(part, env={**part.env, ADDRESSES: first}) for part in default_parts(options, wiring))


async def test_executors_find_the_scheduler_that_nobody_told_them_of(tmp_path: Path) -> None:
    async with running_engine(tmp_path, schedulers=2, make_parts=told_of_the_first) as engine:
        second = f"127.0.0.1:{engine.stack.wiring.scheduler_ports[1]}"
        async with AsyncClient(second) as client:
            nodes = [{"id": "numbers", "op": "debug.range", "params": {"count": 5}}]
            job = await client.create_job(spec={"name": "test", "nodes": nodes})
            assert (await engine.finish(job.id)).state == "COMPLETED"
            assert [node.items.ok for node in await engine.nodes(job.id)] == [5]
            # The second knows both executors as well as the first does.
            first = await engine.until_executors(lambda found: len(found) == 2)
            async with asyncio.timeout(60):
                while len(found := await client.list_executors()) < 2:  # noqa: ASYNC110 - nothing tells of it
                    await asyncio.sleep(0.05)
            assert {executor.id for executor in found} == {executor.id for executor in first}
