"""The JetStream stream and consumers of ready work, declared by whoever finds them missing.

NATS is a hint: it may lose, repeat, reorder or forget every message, and the cost is delay. The stream therefore needs
no replication, no retention beyond delivery and no exactly-once tricks.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import nats
import structlog
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from pixloom.errors import UnavailableError

if TYPE_CHECKING:
    from nats.aio.client import Client as Nats
    from nats.js import JetStreamContext

__all__ = [
    "LANES",
    "STREAM",
    "connect_queue",
    "consumer_name",
    "declare_consumers",
    "declare_stream",
    "replace_stream",
    "subject",
]

STREAM: Final = "PIXLOOM_TASKS"
LANES: Final = ("now", "bulk")
"""`now` takes the first tasks of new jobs and high priorities; `bulk` takes the rest."""

DUPLICATE_WINDOW_S: Final = 30.0
ACK_WAIT_S: Final = 5.0
MAX_ACK_PENDING: Final = 100_000
MAX_STREAM_BYTES: Final = 256 * 1024 * 1024
MAX_AGE_S: Final = 24 * 3600.0
CONNECT_S: Final = 10.0
"""How long a process waits at its start for NATS; once connected it waits for ever."""


async def connect_queue(url: str, *, service: str, **options: Any) -> Nats:
    """Connect to NATS; a connection that is lost later is made again for as long as it takes.

    What goes wrong meanwhile is one log line each time it changes: the library would log a traceback with every attempt.

    Args:
        url: Address of the server, with user and password.
        service: Name of the process, for the logs of both sides.
        options: Further options of `nats.connect`.

    Raises:
        UnavailableError: If NATS does not answer within 10 s, or refuses.
    """
    log = structlog.get_logger(service)
    last = ""

    async def note_error(error: Exception) -> None:
        nonlocal last
        seen = f"{type(error).__name__}: {error}".removesuffix(": ")
        if seen != last:
            last = seen
            log.warning("nats_error", error=seen)

    async def note_disconnected() -> None:
        log.warning("nats_disconnected")

    try:
        async with asyncio.timeout(CONNECT_S):
            return await nats.connect(
                url,
                name=f"pixloom-{service}",
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.25,
                connect_timeout=5,
                error_cb=note_error,
                disconnected_cb=note_disconnected,
                **options,
            )
    except (OSError, TimeoutError, nats.errors.Error) as error:
        raise UnavailableError(
            "NATS does not answer, or refuses the user: check PIXLOOM_NATS_URL, and that the server runs."
        ) from error


def subject(pool: str, lane: str) -> str:
    """Return the subject of a pool's lane."""
    return f"pixloom.tasks.{pool}.{lane}"


def consumer_name(pool: str, lane: str) -> str:
    """Return the name of the durable consumer of a pool's lane."""
    return f"{pool}-{lane}"


async def declare_stream(js: JetStreamContext) -> bool:
    """Create the stream if it is missing; return whether it was."""
    try:
        await js.stream_info(STREAM)
    except NotFoundError:
        await js.add_stream(
            StreamConfig(
                name=STREAM,
                subjects=["pixloom.tasks.>"],
                retention=RetentionPolicy.WORK_QUEUE,
                storage=StorageType.FILE,
                duplicate_window=DUPLICATE_WINDOW_S,
                max_bytes=MAX_STREAM_BYTES,
                max_age=MAX_AGE_S,
            )
        )
        return True
    return False


async def replace_stream(js: JetStreamContext) -> None:
    """Delete the stream with everything in it, and create it anew.

    A stream whose disk was full keeps its error in the server: it takes no message, and cannot even be purged, however
    much room there is again. Only a new one does.
    """
    with contextlib.suppress(NotFoundError):
        await js.delete_stream(STREAM)
    await declare_stream(js)


async def declare_consumers(js: JetStreamContext, pool: str) -> None:
    """Create the consumers of a pool if they are missing; one that exists stays as it is."""
    for lane in LANES:
        await js.add_consumer(
            STREAM,
            ConsumerConfig(
                durable_name=consumer_name(pool, lane),
                filter_subject=subject(pool, lane),
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=ACK_WAIT_S,
                max_deliver=-1,
                max_ack_pending=MAX_ACK_PENDING,
                max_waiting=2048,
            ),
        )
