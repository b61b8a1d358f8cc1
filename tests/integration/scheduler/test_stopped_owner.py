"""An owner that is stopped in the middle of a commit: its connection stands, and nothing more comes over it."""

from __future__ import annotations

import asyncio
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlencode, urlsplit

import asyncpg
import pytest

from pixloom_scheduler.core.changes import AttemptEnded
from pixloom_scheduler.core.states import Outcome
from pixloom_scheduler.journal import schema
from pixloom_scheduler.journal.batch import Batch, Stamp
from pixloom_scheduler.journal.committer import Committer, OwnershipLostError
from pixloom_scheduler.journal.ownership import Ownership, connect
from pixloom_scheduler.journal.rows import encode
from pixloom_scheduler.journal.statements import MOST_INLINE_ROWS
from tests.faults.proxy import FaultProxy, Side

if TYPE_CHECKING:
    from typing import Any

LEASE_S = 3.0


class Stop:
    """Lets nothing more through to the server once so many bytes have gone there."""

    def __init__(self, proxy: FaultProxy, after: int) -> None:
        self.happened = asyncio.Event()
        self._proxy = proxy
        self._left = after

    def client_sent(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self._proxy.silent = Side.TO_SERVER
            self.happened.set()


def rows_of(partition: int, count: int) -> list[tuple[Any, ...]]:
    return [
        encode(
            AttemptEnded(stage=1, shard=number, attempt=1, outcome=Outcome.OK, payload=number.to_bytes(4) + bytes(300)),
            day=date(2026, 1, 1),
            job_id=f"{1:030x}{partition:02x}",
            seq=number + 1,
            time=1_000_000.0,
            project="default",
            generation=1,
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("rows", [MOST_INLINE_ROWS, MOST_INLINE_ROWS + 1], ids=["one statement", "several"])
async def test_a_stopped_owner_does_not_keep_its_partition(
    database_url: str, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    engine = schema.create_engine(database_url)
    await schema.upgrade(engine)
    await engine.dispose()
    # Whoever is stopped does not end its own connection when a statement takes too long: only the server can.
    open_connection = asyncpg.connect
    monkeypatch.setattr(
        asyncpg, "connect", lambda *args, **limits: open_connection(*args, **limits | {"command_timeout": None})
    )
    straight = partial(connect, database_url, lease_s=LEASE_S)
    url = urlsplit(database_url)
    where = parse_qs(url.query)
    async with FaultProxy() as proxy:
        proxy.aim(Path(where["host"][0]) / f".s.PGSQL.{where['port'][0]}")
        through = url._replace(query=urlencode({"host": "127.0.0.1", "port": proxy.port})).geturl()
        owned, *_ = await Ownership(connect=straight, replica="a", address="a:1", lease_s=0.05).take(16)
        committer = Committer(connect=partial(connect, through, lease_s=LEASE_S), lease_s=LEASE_S)
        stop = Stop(proxy, after=100_000)
        proxy.make_filter = lambda: stop
        stamps = {owned.id: Stamp(owned.epoch, owned.commit_seq + 1)}
        commit = asyncio.create_task(committer.commit(Batch(stamps=stamps, rows=rows_of(owned.id, rows))))
        other = Ownership(connect=straight, replica="b", address="b:1", lease_s=LEASE_S)
        taken: set[int] = set()
        async with asyncio.timeout(60):
            await stop.happened.wait()
            while owned.id not in taken:
                taken |= {partition.id for partition in await other.take(16)}
                await asyncio.sleep(0.05)
        proxy.restore()
        with pytest.raises(OwnershipLostError):
            await commit
        await committer.close()
