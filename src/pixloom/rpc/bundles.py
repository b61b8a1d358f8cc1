"""Messages of a stream that wait together travel together: each message costs about the same, whatever it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Sequence

    from google.protobuf.message import Message

    from pixloom.v1 import executor_pb2

__all__ = ["bundled", "unbundled"]

MAX_MESSAGES: Final = 256
MAX_BYTES: Final = 2 * 1024 * 1024

MessageT = TypeVar("MessageT", bound="Message")
SessionT = TypeVar("SessionT", "executor_pb2.SessionRequest", "executor_pb2.SessionResponse")


async def bundled(
    outbox: asyncio.Queue[MessageT | None], bundle: Callable[[list[MessageT]], MessageT]
) -> AsyncIterator[MessageT]:
    """Yield what comes into a queue until None does, what waits there at the same time as one message.

    Args:
        outbox: The queue.
        bundle: Makes one message of several, at most 256 of them or about 2 MiB.
    """
    while (message := await outbox.get()) is not None:
        waiting: list[MessageT] = [message]
        size = 0
        following: MessageT | None = message
        while not outbox.empty() and len(waiting) < MAX_MESSAGES and size < MAX_BYTES:
            following = outbox.get_nowait()
            if following is None:
                break
            size += following.ByteSize()
            waiting.append(following)
        yield waiting[0] if len(waiting) == 1 else bundle(waiting)
        if following is None:
            return


def unbundled(message: SessionT) -> Sequence[SessionT]:
    """Return the messages of a bundle in their order, or the message itself."""
    return message.bundle.messages if message.WhichOneof("message") == "bundle" else (message,)
