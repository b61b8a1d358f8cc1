"""The suite's own proxy: what it does to connections is what its cases rely on."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from tests.faults.postgres_messages import CommitCutter, MessageSplitter, Moment
from tests.faults.proxy import FaultProxy, Side

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


@pytest.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    """A proxy before a server that answers every line with the same line."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                writer.write(line)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with FaultProxy() as made:
        made.aim(("127.0.0.1", server.sockets[0].getsockname()[1]))
        yield made
    server.close()


class Talk:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, word: bytes, *, within_s: float = 60.0) -> bytes:
        self.writer.write(word + b"\n")
        async with asyncio.timeout(within_s):
            return (await self.reader.readline()).strip()


@contextlib.asynccontextmanager
async def talking(proxy: FaultProxy) -> AsyncIterator[Talk]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield Talk(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_bytes_pass_and_take_their_time_each_way(proxy: FaultProxy) -> None:
    async with talking(proxy) as talk:
        assert await talk.say(b"a") == b"a"
        proxy.latency_s = 0.1
        begin = asyncio.get_running_loop().time()
        assert await talk.say(b"b") == b"b"
        assert asyncio.get_running_loop().time() - begin >= 0.2


@pytest.mark.parametrize("side", [Side.TO_SERVER, Side.TO_CLIENT, Side.BOTH])
async def test_a_silent_side_swallows_bytes_and_keeps_the_connection(proxy: FaultProxy, side: Side) -> None:
    async with talking(proxy) as talk:
        proxy.silent = side
        with pytest.raises(TimeoutError):
            await talk.say(b"a", within_s=0.2)
        assert not talk.reader.at_eof()
        proxy.restore()  # what was lost cannot come back: the connection is reset
        with pytest.raises(ConnectionResetError):
            await talk.say(b"b")
    async with talking(proxy) as talk:
        assert await talk.say(b"c") == b"c"


async def test_a_proxy_that_refuses_resets_what_is_open_and_takes_nothing_new(proxy: FaultProxy) -> None:
    async with talking(proxy) as talk:
        assert await talk.say(b"a") == b"a"
        await proxy.refuse()
        with pytest.raises(ConnectionResetError):
            await talk.say(b"b")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", proxy.port)
    await proxy.listen()
    async with talking(proxy) as talk:
        assert await talk.say(b"c") == b"c"


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def test_messages_are_found_however_the_bytes_are_cut() -> None:
    stream = (
        struct.pack("!II", 8, 80877103)  # SSLRequest
        + message(b"", struct.pack("!I", 196608) + b"user\0a\0\0")
        + message(b"p", b"secret\0")
        + message(b"Q", b"COMMIT;\0")
    )
    for size in (1, 3, 7, len(stream)):
        splitter = MessageSplitter()
        found = []
        for at in range(0, len(stream), size):
            for kind, body, begin in splitter.split(stream[at : at + size]):
                found.append((kind, body, at + begin))
        assert [kind for kind, _, _ in found] == [0, 0, ord("p"), ord("Q")]
        assert found[-1][1] == b"COMMIT;\0"
        assert stream[found[-1][2]] == ord("Q")


async def insert_in_a_transaction(connection: Any) -> None:
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("INSERT INTO t VALUES (1)")
    await transaction.commit()


async def insert_alone(connection: Any) -> None:
    await connection.fetch("INSERT INTO t VALUES ($1) RETURNING a", 1)


@pytest.mark.parametrize("insert", [insert_in_a_transaction, insert_alone])
@pytest.mark.parametrize(("moment", "rows"), [(Moment.BEFORE, 0), (Moment.WITHIN, 0), (Moment.AFTER, 1), (None, 1)])
async def test_a_commit_takes_effect_only_if_it_was_cut_after_it(
    database_url: str, moment: Moment | None, rows: int, insert: Callable[[Any], Awaitable[None]]
) -> None:
    from pathlib import Path
    from urllib.parse import parse_qs, urlsplit

    parts = urlsplit(database_url)
    query = parse_qs(parts.query)
    direct = await asyncpg.connect(database_url)
    await direct.execute("CREATE TABLE t (a int)")
    async with FaultProxy(make_filter=lambda: CommitCutter(lambda: moment, alone=b"INSERT INTO t")) as proxy:
        proxy.aim(Path(query["host"][0]) / f".s.PGSQL.{query['port'][0]}")
        url = f"postgresql://{parts.username}:{parts.password}@127.0.0.1:{proxy.port}{parts.path}"
        connection = await asyncpg.connect(url)
        if moment is None:
            await insert(connection)
        else:
            with pytest.raises((asyncpg.ConnectionDoesNotExistError, ConnectionResetError)):
                await insert(connection)
        assert proxy.cuts == (moment is not None)
        connection.terminate()
    async with asyncio.timeout(60):
        # The server notices a moment later that its client is gone.
        while await direct.fetchval("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()") > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert await direct.fetchval("SELECT count(*) FROM t") == rows
    await direct.close()
