"""Connections that fall silent without breaking, and connections that are slow."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.faults.proxy import Side
from tests.faults.scene import Case

if TYPE_CHECKING:
    from tests.faults.scene import Scene
    from tests.faults.verdict import Outcome

__all__ = ["CASES"]

ROUND_TRIP_S = 0.2
_LOST = "SELECT count(*) FROM pixloom.journal WHERE kind = 7 AND outcome = 4"


async def half_open(scene: Scene) -> Outcome:
    """Swallow what one end sends, then what the other does, then both, on one link after the other."""
    seen: set[tuple[str, Side]] = set()
    async with scene.cluster(proxied=scene.links) as cluster:
        load = scene.load(cluster, seconds=0.01)
        turns = [(link, side) for side in (Side.TO_SERVER, Side.TO_CLIENT, Side.BOTH) for link in scene.links]

        async def fall_silent() -> None:
            await asyncio.sleep(1.5)
            link, side = turns[len(scene.moments) % len(turns)]
            proxy = cluster.proxies[link]
            scene.happens()
            seen.add((link, side))
            proxy.silent = side
            await asyncio.sleep(scene.rng.uniform(2.0, 7.0))
            proxy.restore()

        outcome = await scene.under(cluster, load, fall_silent)
        outcome.figures["silences"] = f"{len(seen)} of {len(turns)} kinds"
        return outcome


async def latency(scene: Scene) -> Outcome:
    """Let every message between the parts take its time."""
    async with scene.cluster(proxied=scene.links) as cluster:
        load = scene.load(cluster, seconds=0.05)

        async def slow_down() -> None:
            await asyncio.sleep(1.0)
            scene.happens()
            for proxy in cluster.proxies.values():
                proxy.latency_s = ROUND_TRIP_S / 2
            await asyncio.Event().wait()

        outcome = await scene.under(cluster, load, slow_down)
        lost = (await cluster.query(_LOST))[0][0]
        outcome.bars["false_lease_losses"] = (lost, lost == 0)
        return outcome


CASES = (
    Case("half-open", "connections half-open to the server, to the client, and both", "all complete", half_open),
    Case("latency", "200 ms of latency on every link", "no lease lost", latency),
)
