"""What waits together is sent together, in its order and not beyond the limits."""

from __future__ import annotations

import asyncio

from pixloom.rpc import bundles
from pixloom.rpc.bundles import bundled
from pixloom.v1 import executor_pb2 as pb


def heartbeat(busy: int) -> pb.SessionRequest:
    return pb.SessionRequest(heartbeat=pb.Heartbeat(busy=busy))


def bundle(messages: list[pb.SessionRequest]) -> pb.SessionRequest:
    return pb.SessionRequest(bundle=pb.RequestBundle(messages=messages))


def busy(message: pb.SessionRequest) -> list[int]:
    if message.WhichOneof("message") == "bundle":
        return [single.heartbeat.busy for single in message.bundle.messages]
    return [message.heartbeat.busy]


async def sent(*messages: pb.SessionRequest | None) -> list[list[int]]:
    """Return what is sent of a queue that holds messages already."""
    outbox: asyncio.Queue[pb.SessionRequest | None] = asyncio.Queue()
    for message in messages:
        outbox.put_nowait(message)
    return [busy(message) async for message in bundled(outbox, bundle)]


async def test_what_waits_goes_out_as_one_and_the_end_ends_it() -> None:
    assert await sent(heartbeat(1), heartbeat(2), heartbeat(3), None) == [[1, 2, 3]]


async def test_one_message_goes_out_as_it_is() -> None:
    outbox: asyncio.Queue[pb.SessionRequest | None] = asyncio.Queue()
    outbox.put_nowait(heartbeat(7))
    stream = bundled(outbox, bundle)
    assert (await anext(stream)).WhichOneof("message") == "heartbeat"
    outbox.put_nowait(None)
    assert [message async for message in stream] == []


async def test_a_bundle_has_a_bound() -> None:
    messages = [heartbeat(number) for number in range(bundles.MAX_MESSAGES + 2)]
    out = await sent(*messages, None)
    assert [len(each) for each in out] == [bundles.MAX_MESSAGES, 2]
    assert [number for each in out for number in each] == list(range(bundles.MAX_MESSAGES + 2))
