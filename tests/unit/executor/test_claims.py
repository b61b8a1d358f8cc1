"""Claims whose answer is late: what is granted is either run or handed back, and never forgotten."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from pixloom.rpc.channel import aio_channel
from pixloom.v1 import executor_pb2 as pb
from pixloom_executor.session import Session, SessionLostError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TIMEOUT_S = 0.2
BATCH = pb.LeaseBatch(job_id="j1", generation=1, stage=2, tasks=[pb.Task(shard=shard, attempt=1) for shard in range(2)])


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    """A session whose stream is up; the test says what comes, and looks at what is sent."""
    anything: Any = None
    channel = aio_channel("127.0.0.1:1")
    made = Session(address="", channel=channel, hello=anything, book=anything, listener=anything, owners=anything)
    made._up = True
    yield made
    await channel.close()


def granted(claim: pb.Claim) -> pb.SessionResponse:
    return pb.SessionResponse(grant=pb.Grant(claim_id=claim.claim_id, lease_token=b"t", tasks=claim.tasks))


async def sent(session: Session) -> pb.SessionRequest:
    request = await asyncio.wait_for(session._outbox.get(), 60)
    assert request is not None
    return request


async def test_what_is_granted_in_the_very_moment_at_which_it_is_given_up_is_not_lost(session: Session) -> None:
    loop = asyncio.get_running_loop()
    claiming = loop.create_task(session.claim(BATCH, timeout_s=TIMEOUT_S))
    claim = (await sent(session)).claim
    # This process gets no time until the answer is there and the time is over: the loop comes to both in one turn.
    loop.call_later(TIMEOUT_S / 4, time.sleep, 2 * TIMEOUT_S)
    loop.call_later(TIMEOUT_S / 2, session._take, granted(claim))
    grant = await claiming
    assert (grant.lease_token, [task.shard for task in grant.tasks]) == (b"t", [0, 1])


async def test_what_is_granted_later_is_handed_back(session: Session) -> None:
    with pytest.raises(SessionLostError):
        await session.claim(BATCH, timeout_s=0.01)
    session._take(granted((await sent(session)).claim))
    expected = pb.GiveBack(lease_token=b"t", job_id="j1", generation=1, stage=2, shards=[0, 1])
    assert (await sent(session)).give_back == expected
