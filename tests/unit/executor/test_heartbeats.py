"""A scheduler that does not answer is given up; what the executor was late itself does not count against it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from pixloom.rpc.channel import aio_channel
from pixloom_executor.session import PUNCTUAL_S, Session

INTERVAL_S = 0.2


class Call:
    """A stream that notes when it was given up."""

    def __init__(self) -> None:
        self.given_up = asyncio.Event()

    def cancel(self) -> None:
        self.given_up.set()


def made() -> Session:
    anything: Any = None
    channel = aio_channel("127.0.0.1:1")
    session = Session(address="", channel=channel, hello=anything, book=anything, listener=anything, owners=anything)
    session._last_reply = asyncio.get_running_loop().time()
    return session


async def test_a_scheduler_that_does_not_answer_is_given_up() -> None:
    session, call = made(), Call()
    anything: Any = call
    beating = asyncio.create_task(session._beat(INTERVAL_S, anything))
    await asyncio.wait_for(call.given_up.wait(), 60)
    await beating


async def test_an_executor_that_stood_still_reads_before_it_gives_up() -> None:
    session, call = made(), Call()
    anything: Any = call
    beating = asyncio.create_task(session._beat(INTERVAL_S, anything))
    await asyncio.sleep(0)
    time.sleep(INTERVAL_S * 4 + PUNCTUAL_S)  # noqa: ASYNC251 - that is the fault: nothing goes on meanwhile
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not call.given_up.is_set()
    # Nothing comes after all.
    await asyncio.wait_for(call.given_up.wait(), 60)
    await beating
