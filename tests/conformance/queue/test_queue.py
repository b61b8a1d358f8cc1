"""What dispatch relies on, shown by NATS JetStream and by the simulated one alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nats
import nats.errors
import nats.js.errors
import pytest

from pixloom.queue import STREAM, consumer_name, declare_consumers, declare_stream, replace_stream, subject
from tests.simulation.jetstream import SimulatedNats
from tests.simulation.loop import Process
from tests.simulation.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pixloom.local.nats import EmbeddedNats

NOW, BULK = subject("cpu", "now"), subject("cpu", "bulk")
WAIT_S = 60.0
SHORT_S = 0.3


@pytest.fixture
async def simulated_queue() -> Any:
    return SimulatedNats(World(0)).connect(Process("test"))


@pytest.fixture
async def nats_queue(fresh_nats: EmbeddedNats) -> AsyncIterator[Any]:
    connection = await nats.connect(fresh_nats.url)
    yield connection.jetstream()
    await connection.close()


@pytest.fixture(params=["simulated", "nats"])
def js(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_queue")


@pytest.fixture
async def declared(js: Any) -> Any:
    await declare_stream(js)
    await declare_consumers(js, "cpu")
    return js


async def publish(js: Any, name: str, *, lane: str = NOW) -> Any:
    return await js.publish(lane, name.encode(), timeout=WAIT_S, headers={"Nats-Msg-Id": name})


async def pull(js: Any, lane: str = "now") -> Any:
    return await js.pull_subscribe(subject("cpu", lane), consumer_name("cpu", lane), STREAM)


async def fetch(subscription: Any) -> Any:
    (message,) = await subscription.fetch(1, timeout=WAIT_S)
    return message


async def floor(js: Any, lane: str = "now") -> int:
    info = await js.consumer_info(STREAM, consumer_name("cpu", lane))
    return info.ack_floor.stream_seq if info.ack_floor is not None else 0


async def settle(js: Any, expected: int, lane: str = "now") -> int:
    """Return the acknowledgement floor once it has reached what is expected, or what it stays at."""
    for _ in range(200):
        if await floor(js, lane) >= expected:
            break
    return await floor(js, lane)


async def test_what_is_missing_is_not_found(js: Any) -> None:
    with pytest.raises(nats.js.errors.NotFoundError):
        await js.stream_info(STREAM)
    with pytest.raises(nats.js.errors.NotFoundError):
        await js.consumer_info(STREAM, consumer_name("cpu", "now"))
    with pytest.raises(nats.js.errors.NoStreamResponseError):
        await publish(js, "a")


async def test_declaring_twice_changes_nothing(declared: Any) -> None:
    created = (await declared.stream_info(STREAM)).created
    await publish(declared, "a")
    assert not await declare_stream(declared)
    await declare_consumers(declared, "cpu")
    info = await declared.stream_info(STREAM)
    assert (info.created, info.state.last_seq) == (created, 1)


async def test_a_stream_that_was_replaced_is_empty_without_consumers_and_younger(declared: Any) -> None:
    await publish(declared, "a")
    before = (await declared.stream_info(STREAM)).created
    await replace_stream(declared)
    info = await declared.stream_info(STREAM)
    assert (info.state.last_seq, info.created > before) == (0, True)
    with pytest.raises(nats.js.errors.NotFoundError):
        await declared.consumer_info(STREAM, consumer_name("cpu", "now"))
    # Its ids are forgotten with it, so the same one is taken again.
    await declare_consumers(declared, "cpu")
    assert (await publish(declared, "a")).seq == 1


async def test_replacing_a_stream_that_is_missing_declares_it(js: Any) -> None:
    await replace_stream(js)
    assert (await js.stream_info(STREAM)).state.last_seq == 0


async def test_messages_are_numbered_and_come_in_order(declared: Any) -> None:
    assert [(await publish(declared, name)).seq for name in "abc"] == [1, 2, 3]
    subscription = await pull(declared)
    assert [(await fetch(subscription)).data for _ in "abc"] == [b"a", b"b", b"c"]


async def test_a_repeated_id_is_swallowed_even_after_the_first_was_acknowledged(declared: Any) -> None:
    first = await publish(declared, "a")
    subscription = await pull(declared)
    await (await fetch(subscription)).ack()
    assert await settle(declared, 1) == 1
    again = await publish(declared, "a")
    assert (again.seq, again.duplicate) == (first.seq, True)
    with pytest.raises(nats.errors.TimeoutError):
        await subscription.fetch(1, timeout=SHORT_S)


async def test_what_is_given_back_comes_again_and_what_is_acknowledged_does_not(declared: Any) -> None:
    await publish(declared, "a")
    await publish(declared, "b")
    subscription = await pull(declared)
    await (await fetch(subscription)).nak()
    left = {(await fetch(subscription)).data, (second := await fetch(subscription)).data}
    assert left == {b"a", b"b"}
    await second.ack()
    with pytest.raises(nats.errors.TimeoutError):
        await subscription.fetch(1, timeout=SHORT_S)


async def test_the_floor_stops_below_the_first_that_is_not_acknowledged(declared: Any) -> None:
    for name in "abc":
        await publish(declared, name)
    subscription = await pull(declared)
    messages = [await fetch(subscription) for _ in "abc"]
    await messages[0].ack()
    await messages[2].ack()
    assert await settle(declared, 1) == 1
    await messages[1].ack()
    assert await settle(declared, 3) == 3


async def test_lanes_do_not_mix(declared: Any) -> None:
    await publish(declared, "slow", lane=BULK)
    await publish(declared, "fast", lane=NOW)
    assert (await fetch(await pull(declared, "now"))).data == b"fast"
    assert (await fetch(await pull(declared, "bulk"))).data == b"slow"


async def test_nothing_to_fetch_is_a_timeout(declared: Any) -> None:
    with pytest.raises(nats.errors.TimeoutError):
        await (await pull(declared)).fetch(1, timeout=SHORT_S)


async def test_two_who_pull_never_get_the_same_message_at_once(declared: Any) -> None:
    for name in "ab":
        await publish(declared, name)
    first, second = await pull(declared), await pull(declared)
    assert {(await fetch(first)).data, (await fetch(second)).data} == {b"a", b"b"}
