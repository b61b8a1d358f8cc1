"""Who gets room for a batch, and in which order."""

from __future__ import annotations

import asyncio

from pixloom_executor.puller import Room


async def taken(room: Room, rank: int) -> asyncio.Task[None]:
    """Ask for room and let whoever gets it go on."""
    task = asyncio.create_task(room.take(rank))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def test_waiters_of_the_lower_rank_go_first() -> None:
    room = Room(batches=lambda: 1, is_open=lambda: True)
    await room.take(1)
    bulk, now = await taken(room, 1), await taken(room, 0)
    assert not bulk.done()
    assert not now.done()
    room.give()
    await now
    assert not bulk.done()
    room.give()
    await bulk


async def test_urgent_ones_have_room_of_their_own() -> None:
    room = Room(batches=lambda: 1, urgent=lambda: 1, is_open=lambda: True)
    await room.take(1)
    bulk, now, more = await taken(room, 1), await taken(room, 0), await taken(room, 0)
    assert (bulk.done(), now.done(), more.done()) == (False, True, False)
    room.give()
    await more
    assert not bulk.done()
    for _ in range(2):
        room.give()
    await bulk


async def test_nobody_is_served_while_it_is_closed() -> None:
    is_open = False
    room = Room(batches=lambda: 1, urgent=lambda: 1, is_open=lambda: is_open)
    now = await taken(room, 0)
    assert not now.done()
    is_open = True
    room.wake()
    await now


async def test_room_may_become_less_and_more() -> None:
    most = 2
    room = Room(batches=lambda: most, is_open=lambda: True)
    await room.take(1)
    await room.wait(1)
    most = 1
    waiting = asyncio.create_task(room.wait(1))
    await asyncio.sleep(0)
    assert not waiting.done()
    most = 2
    room.wake()
    await waiting
