"""Who finds which scheduler: executors that were told of one only, and schedulers that are reached elsewhere than they listen."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pixloom.errors import UnavailableError
from pixloom.local.options import LocalStackOptions, PartSpec, Wiring, default_parts
from pixloom.sdk.aio import AsyncClient
from tests.faults.proxy import FaultProxy
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


async def test_schedulers_and_executors_meet_at_advertised_addresses(tmp_path: Path) -> None:
    async with FaultProxy() as first, FaultProxy() as second:
        proxies = (first, second)

        def behind_proxies(options: LocalStackOptions, wiring: Wiring) -> tuple[PartSpec, ...]:
            for proxy, port in zip(proxies, wiring.scheduler_ports, strict=True):
                proxy.aim(("127.0.0.1", port))
            advertised = {
                f"scheduler-{number}": {"PIXLOOM_SCHEDULER_ADVERTISE": f"127.0.0.1:{proxy.port}"}
                for number, proxy in enumerate(proxies, start=1)
            }
            parts = told_of_the_first(options, wiring)
            return tuple(replace(part, env={**part.env, **advertised.get(part.name, {})}) for part in parts)

        async with running_engine(tmp_path, schedulers=2, make_parts=behind_proxies) as engine:
            direct = [f"127.0.0.1:{port}" for port in engine.stack.wiring.scheduler_ports]
            async with AsyncClient(direct[0]) as one, AsyncClient(direct[1]) as other:
                # Executors were told of the first alone: they come to the second by its proxy.
                async with asyncio.timeout(60):
                    while len(await other.list_executors()) < 2:  # noqa: ASYNC110 - nothing tells of it
                        await asyncio.sleep(0.05)
                nodes = [{"id": "numbers", "op": "debug.range", "params": {"count": 5}}]
                job = await other.create_job(spec={"name": "test", "nodes": nodes}, start=False)
                assert (await one.start_job(job.id)).id == job.id
                assert (await engine.finish(job.id)).items.ok == 5

                waiting = await other.create_job(spec={"name": "test", "nodes": nodes}, start=False)
                await second.refuse()
                with pytest.raises(UnavailableError):
                    await one.start_job(waiting.id)
                await second.listen()
                await engine.client.start_job(waiting.id)
                assert (await engine.finish(waiting.id)).state == "COMPLETED"
