"""A request that is repeated while its job waits for a commit puts no second job into the queue."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from pixloom.errors import UnavailableError
from pixloom_scheduler.submission import Submissions
from tests.unit.scheduler.test_replica import SteppingClock, make, submission

if TYPE_CHECKING:
    from pixloom_scheduler.journal.batch import NewJob


def with_request(number: int, request_id: str) -> tuple[NewJob, Any]:
    new, live = submission(number)
    for header in (new.header, live.header):
        object.__setattr__(header, "request_id", request_id)
    return new, live


@pytest.fixture
async def world():
    replica, journal, _ = make(SteppingClock())
    anything: Any = None
    submissions = Submissions(
        replica=replica, definitions=anything, reader=anything, planning=anything, clock=anything, new_id=anything
    )
    task = asyncio.create_task(replica.run())
    yield submissions, journal
    replica.stop()
    await task


async def test_the_second_call_waits_for_the_first_and_is_told_to_ask_again(world):
    submissions, journal = world
    journal.gate.clear()
    first = asyncio.create_task(submissions._queue(*with_request(1, "r"), start=True))
    await journal.entered.wait()
    second = asyncio.create_task(submissions._queue(*with_request(2, "r"), start=True))
    other = asyncio.create_task(submissions._queue(*with_request(3, "s"), start=True))
    # The caller of the first one has lost patience, as the second call shows.
    first.cancel()
    await asyncio.sleep(0)
    assert not second.done()
    journal.gate.set()
    with pytest.raises(UnavailableError, match="under way"):
        await second
    await other
    assert [new.header.request_id for batch in journal.batches for new in batch.jobs] == ["r", "s"]
    assert submissions._queued == {}


async def test_requests_without_an_id_are_all_different(world):
    submissions, journal = world
    await asyncio.gather(*(submissions._queue(*with_request(number, ""), start=True) for number in range(3)))
    assert sum(len(batch.jobs) for batch in journal.batches) == 3
