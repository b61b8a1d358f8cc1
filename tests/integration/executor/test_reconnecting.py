"""A session whose scheduler is away: it is back in time for what the executor holds to go on."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from typing import TYPE_CHECKING, cast

from pixloom.v1 import executor_pb2 as pb
from pixloom_executor.leases import LeaseBook
from pixloom_executor.session import Session, session_channel
from pixloom_scheduler.takeovers import ANNOUNCE_S
from tests.support.lateness import Lateness

if TYPE_CHECKING:
    from typing import Any

ATTEMPTS = 10


async def test_however_long_a_scheduler_is_away_it_is_asked_often_enough_to_hear_what_is_held() -> None:
    attempts: list[tuple[float, float]] = []
    enough = asyncio.Event()

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attempts.append((time.monotonic(), late.seconds))
        if len(attempts) == ATTEMPTS:
            enough.set()
        writer.close()

    nobody = cast("Any", None)
    with Lateness() as late:
        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, session_channel(address) as channel:
            session = Session(
                address=address, channel=channel, hello=pb.Hello, book=LeaseBook(), listener=nobody, owners=nobody
            )
            running = asyncio.create_task(session.run())
            async with asyncio.timeout(60):
                await enough.wait()
            running.cancel()
            await asyncio.wait([running])
    # Each gap could be the one in which it came back; the rest of the time is for the stream and the announcement.
    gaps = [
        (after - late_after) - (before - late_before)
        for (before, late_before), (after, late_after) in pairwise(attempts)
    ]
    assert max(gaps) < ANNOUNCE_S * 0.75, gaps
