"""A NATS JetStream of its own making: one work-queue stream, durable pull consumers, a duplicate window.

It does what a real one does, and at times what the design allows a real one to do: a message is lost after it was
acknowledged, delivered twice or out of order, an acknowledgement goes missing, everything is forgotten.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import nats.errors
import nats.js.errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.loop import Process
    from tests.simulation.world import World

__all__ = ["SimulatedJetStream", "SimulatedNats"]


@dataclass(slots=True)
class _Stored:
    subject: str
    data: bytes
    headers: dict[str, str]


@dataclass(slots=True)
class _Fetch:
    process: Process
    future: asyncio.Future[SimulatedMessage]


@dataclass(slots=True)
class _Consumer:
    """A durable consumer.

    Attributes:
        subject: What it takes.
        ack_wait_s: When an unacknowledged delivery is delivered again.
        next_seq: First message never delivered.
        pending: Token of the latest delivery of unacknowledged messages.
        again: Messages to be delivered again.
        fetches: Who waits for a message.
    """

    subject: str
    ack_wait_s: float
    next_seq: int = 1
    pending: dict[int, int] = field(default_factory=dict)
    again: deque[int] = field(default_factory=deque)
    fetches: deque[_Fetch] = field(default_factory=deque)


class SimulatedNats:
    """The server.

    Attributes:
        is_down: Whether it answers nobody.
        created: When the stream was declared.
        loss_rate: How often a message vanishes although its publish was acknowledged.
        repeat_rate: How often a message is delivered once more although it was acknowledged.
        reorder_rate: How often a later message is delivered first.
        silence_rate: How often an answer or acknowledgement is lost.
        on_publish: Called with each message that arrives.
        on_repetition: Called with the id of each message that was there before.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.is_down = False
        self.loss_rate = self.repeat_rate = self.reorder_rate = self.silence_rate = 0.0
        self.on_publish: list[Callable[[str, bytes, dict[str, str]], None]] = []
        self.on_repetition: list[Callable[[str], None]] = []
        self.created = 0.0
        self._stream: Any = None
        self._messages: dict[int, _Stored] = {}
        self._last_seq = 0
        self._recent: dict[str, tuple[float, int]] = {}
        self._consumers: dict[str, _Consumer] = {}
        self._deliveries = 0

    def connect(self, process: Process) -> SimulatedJetStream:
        """Return a JetStream context of a process."""
        return SimulatedJetStream(self, process)

    @property
    def waiting(self) -> list[bytes]:
        """The messages that are not acknowledged."""
        return [message.data for message in self._messages.values()]

    # -- What happens to it ---------------------------------------------------------------------------------------

    def wipe(self) -> None:
        """Forget everything; who waits for a message is not told."""
        self.world.log("nats_wipe", len(self._messages))
        self._stream, self._last_seq = None, 0
        self._messages.clear()
        self._recent.clear()
        self._consumers.clear()

    # -- What a server does ---------------------------------------------------------------------------------------

    def has_stream(self) -> bool:
        """Return whether the stream is declared."""
        return self._stream is not None

    def add_stream(self, config: Any) -> None:
        """Declare the stream."""
        if self._stream is None:
            self._stream, self.created = config, self.world.now()

    def add_consumer(self, name: str, config: Any) -> None:
        """Declare a consumer; one that exists stays."""
        if name not in self._consumers:
            self._consumers[name] = _Consumer(config.filter_subject, config.ack_wait)

    def last_seq(self) -> int:
        """Return the number of the latest message."""
        return self._last_seq

    def ack_floor(self, name: str) -> int:
        """Return the number below which a consumer has delivered everything and had it acknowledged."""
        consumer = self._consumers[name]
        unacknowledged = [*consumer.pending, *consumer.again]
        return (min(unacknowledged) if unacknowledged else consumer.next_seq) - 1

    def delivered(self, name: str) -> int:
        """Return the number up to which a consumer has delivered everything at least once."""
        return self._consumers[name].next_seq - 1

    def has_consumer(self, name: str) -> bool:
        """Return whether a consumer is declared."""
        return name in self._consumers

    def store(self, subject: str, data: bytes, headers: dict[str, str]) -> tuple[int, bool]:
        """Take in a message and return its number and whether it was a repetition."""
        message_id, now = headers.get("Nats-Msg-Id", ""), self.world.loop.time()
        before = self._recent.get(message_id)
        if message_id and before is not None and now - before[0] < self._stream.duplicate_window:
            self.world.log("publish_repeated", message_id[-6:])
            for note in self.on_repetition:
                note(message_id)
            return before[1], True
        self._last_seq += 1
        self._recent[message_id] = (now, self._last_seq)
        for watch in self.on_publish:
            watch(subject, data, headers)
        if self.world.chance(self.loss_rate):
            self.world.log("publish_vanished", message_id[-6:])
        else:
            self.world.log("publish", message_id[-6:], subject)
            self._messages[self._last_seq] = _Stored(subject, data, headers)
        self._deliver()
        return self._last_seq, False

    def fetch(self, name: str, process: Process) -> asyncio.Future[SimulatedMessage]:
        """Ask for one message."""
        future: asyncio.Future[SimulatedMessage] = asyncio.get_running_loop().create_future()
        consumer = self._consumers.get(name)
        if consumer is not None:
            consumer.fetches.append(_Fetch(process, future))
            self._deliver()
        return future

    def _deliver(self) -> None:
        if self.is_down:
            return
        for name, consumer in self._consumers.items():
            while consumer.fetches:
                fetch = consumer.fetches[0]
                if fetch.future.done() or not fetch.process.is_alive:
                    consumer.fetches.popleft()
                    continue
                seq = self._next(consumer)
                if seq is None:
                    break
                consumer.fetches.popleft()
                self._hand_over(name, consumer, seq, fetch)

    def _next(self, consumer: _Consumer) -> int | None:
        while consumer.again:
            seq = consumer.again.popleft()
            if seq in self._messages:
                return seq
        fresh: list[int] = []
        for seq in range(consumer.next_seq, self._last_seq + 1):
            stored = self._messages.get(seq)
            if stored is None or stored.subject != consumer.subject:
                if not fresh:
                    consumer.next_seq = seq + 1
                continue
            fresh.append(seq)
            if len(fresh) == 2:
                break
        if not fresh:
            return None
        if len(fresh) == 2 and self.world.chance(self.reorder_rate):
            # The first one comes later: as if it had been delivered and had run into its time limit.
            consumer.again.append(fresh[0])
        consumer.next_seq = (fresh[-1] if consumer.again else fresh[0]) + 1
        return fresh[-1] if consumer.again else fresh[0]

    def _hand_over(self, name: str, consumer: _Consumer, seq: int, fetch: _Fetch) -> None:
        self._deliveries += 1
        delivery = self._deliveries
        consumer.pending[seq] = delivery
        stored = self._messages[seq]
        self.world.log("deliver", seq, stored.headers.get("Nats-Msg-Id", "")[-6:], fetch.process.name)
        message = SimulatedMessage(self, name, (seq, delivery), stored)
        fetch.future.set_result(message)
        self.world.after(consumer.ack_wait_s, self.give_up, name, seq, delivery)

    def acknowledge(self, name: str, seq: int) -> None:
        """Take in that a message is done with."""
        consumer = self._consumers.get(name)
        if consumer is None or self.is_down or self.world.chance(self.silence_rate):
            return
        if self.world.chance(self.repeat_rate) and seq in self._messages:
            self.world.log("deliver_repeated", seq)
            consumer.pending.pop(seq, None)
            consumer.again.append(seq)
            self._deliver()
            return
        consumer.pending.pop(seq, None)
        self._messages.pop(seq, None)

    def give_up(self, name: str, seq: int, delivery: int) -> None:
        """Deliver a message again unless it was acknowledged, or delivered again already."""
        consumer = self._consumers.get(name)
        if consumer is not None and consumer.pending.get(seq) == delivery:
            del consumer.pending[seq]
            consumer.again.append(seq)
            self._deliver()


class SimulatedMessage:
    """A delivery."""

    def __init__(self, server: SimulatedNats, consumer: str, place: tuple[int, int], stored: _Stored) -> None:
        self.data, self.subject = stored.data, stored.subject
        self._server = server
        self._consumer = consumer
        self._place = place

    async def ack(self) -> None:
        """Say that it is done with."""
        self._server.world.after(self._server.world.latency(), self._server.acknowledge, self._consumer, self._place[0])

    async def term(self) -> None:
        """Say that it shall never come again."""
        await self.ack()

    async def nak(self, delay: float = 0.0) -> None:
        """Give it back."""
        self._server.world.after(
            delay + self._server.world.latency(), self._server.give_up, self._consumer, *self._place
        )


class SimulatedJetStream:
    """The methods of nats-py's `JetStreamContext` that Pixloom uses."""

    def __init__(self, server: SimulatedNats, process: Process) -> None:
        self._server = server
        self._world = server.world
        self._process = process

    async def _trip(self, timeout: float = 5.0) -> None:
        if not self._process.is_alive:
            raise nats.errors.ConnectionClosedError
        if self._server.is_down or self._world.chance(self._server.silence_rate):
            await asyncio.sleep(timeout)
            raise nats.errors.TimeoutError
        await asyncio.sleep(self._world.latency())

    async def publish(self, subject: str, payload: bytes, timeout: float, headers: dict[str, str]) -> Any:
        """Publish and wait for the acknowledgement, which may be lost."""
        await self._trip(timeout)
        if not self._server.has_stream():
            raise nats.js.errors.NoStreamResponseError
        seq, is_duplicate = self._server.store(subject, payload, headers)
        await self._trip(timeout)
        return SimpleNamespace(seq=seq, duplicate=is_duplicate)

    async def stream_info(self, name: str) -> Any:
        """Return the state of the stream."""
        await self._trip()
        if not self._server.has_stream():
            raise nats.js.errors.NotFoundError(code=404, description=f"stream {name} not found")
        return SimpleNamespace(created=self._server.created, state=SimpleNamespace(last_seq=self._server.last_seq()))

    async def consumer_info(self, stream: str, name: str) -> Any:
        """Return the state of a consumer."""
        await self._trip()
        if not self._server.has_stream() or not self._server.has_consumer(name):
            raise nats.js.errors.NotFoundError(code=404, description=f"consumer {stream}.{name} not found")
        floor, delivered = self._server.ack_floor(name), self._server.delivered(name)
        return SimpleNamespace(
            ack_floor=SimpleNamespace(stream_seq=floor), delivered=SimpleNamespace(stream_seq=delivered)
        )

    async def add_stream(self, config: Any) -> None:
        """Declare the stream."""
        await self._trip()
        self._server.add_stream(config)

    async def delete_stream(self, name: str) -> None:
        """Forget the stream with everything in it."""
        await self._trip()
        if not self._server.has_stream():
            raise nats.js.errors.NotFoundError(code=404, description=f"stream {name} not found")
        self._server.wipe()

    async def add_consumer(self, stream: str, config: Any) -> None:
        """Declare a consumer."""
        await self._trip()
        if not self._server.has_stream():
            raise nats.js.errors.NotFoundError(code=404, description=f"stream {stream} not found")
        self._server.add_consumer(config.durable_name, config)

    async def pull_subscribe(self, subject: str, durable: str, stream: str) -> _Subscription:
        """Subscribe to a consumer that exists."""
        del subject
        await self.consumer_info(stream, durable)
        return _Subscription(self._server, self._process, durable)


class _Subscription:
    """Pulls from a consumer."""

    def __init__(self, server: SimulatedNats, process: Process, consumer: str) -> None:
        self._server = server
        self._process = process
        self._consumer = consumer

    async def fetch(self, batch: int, timeout: float) -> list[SimulatedMessage]:
        """Return one message, waiting for it."""
        assert batch == 1
        await asyncio.sleep(self._server.world.latency())
        if not self._server.is_down and not self._server.has_consumer(self._consumer):
            raise nats.js.errors.ServiceUnavailableError(code=503)
        future = self._server.fetch(self._consumer, self._process)
        try:
            async with asyncio.timeout(timeout):
                message = await future
        except TimeoutError as error:
            raise nats.errors.TimeoutError from error
        await asyncio.sleep(self._server.world.latency())
        return [message]

    async def unsubscribe(self) -> None:
        """Let go of it."""
