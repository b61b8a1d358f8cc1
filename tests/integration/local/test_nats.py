"""The embedded NATS server, for real."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
from typing import TYPE_CHECKING

import nats as client
import pytest
from nats.js.errors import APIError

from pixloom.errors import MachineError
from pixloom.local.nats import EmbeddedNats
from pixloom.local.processes import end, find, wait_exit

if TYPE_CHECKING:
    from pathlib import Path


async def streams_of(url: str) -> list[str]:
    connection = await client.connect(url, allow_reconnect=False)
    try:
        return [str(info.config.name) for info in await connection.jetstream().streams_info()]
    finally:
        await connection.close()


async def add_stream(url: str, name: str) -> None:
    connection = await client.connect(url, allow_reconnect=False)
    await connection.jetstream().add_stream(name=name, subjects=[f"{name}.>"])
    await connection.close()


async def test_streams_and_address_outlive_a_crash_and_a_restart(tmp_path: Path) -> None:
    server = EmbeddedNats(tmp_path / "data")
    await server.start()
    url = server.url
    await add_stream(url, "KEPT")
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGKILL)
    await wait_exit(server.process)
    await server.start()
    assert server.url == url
    assert await streams_of(url) == ["KEPT"]
    await server.stop()
    await server.stop()
    async with server:
        assert server.url == url
        assert await streams_of(url) == ["KEPT"]


async def test_a_wiped_store_has_no_streams_and_the_address_stays(fresh_nats: EmbeddedNats) -> None:
    before = fresh_nats.url
    await add_stream(before, "WIPED")
    await fresh_nats.wipe()
    assert fresh_nats.url == before
    assert await streams_of(before) == []


async def test_nobody_gets_in_without_the_password(nats_url: str) -> None:
    # By hand, since the client library leaves its socket open when it is refused.
    reader, writer = await asyncio.open_connection("127.0.0.1", int(nats_url.rpartition(":")[2]))
    assert (await reader.readline()).startswith(b"INFO ")
    writer.write(b'CONNECT {"verbose":false,"user":"pixloom","pass":"guess"}\r\nPING\r\n')
    assert b"Authorization Violation" in await reader.readline()
    writer.close()
    await writer.wait_closed()


async def test_it_listens_on_loopback_and_its_files_are_private(tmp_path: Path, unused_port: int) -> None:
    async with EmbeddedNats(tmp_path / "data", port=unused_port) as server:
        assert server.url.endswith(f"@127.0.0.1:{unused_port}")
        assert server._password not in (tmp_path / "data" / "nats.log").read_text()
        for name in ("nats.conf", "nats.password", "nats.log", "nats.pid"):
            assert stat.S_IMODE((tmp_path / "data" / name).stat().st_mode) == 0o600
        assert server.process is not None
        assert server._password not in (find(server.process.pid) or pytest.fail("not running")).command


async def test_the_store_is_limited(tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path / "data", max_file_store_bytes=1024 * 1024) as server:
        connection = await client.connect(server.url)
        with pytest.raises(APIError, match="storage"):
            await connection.jetstream().add_stream(name="BIG", subjects=["big.>"], max_bytes=2 * 1024 * 1024)
        await connection.close()


async def test_a_server_that_an_earlier_run_left_is_ended(tmp_path: Path) -> None:
    abandoned = EmbeddedNats(tmp_path / "data")
    await abandoned.start()
    left = abandoned.process
    assert left is not None
    abandoned._lock.release()  # as the end of its owner would
    async with EmbeddedNats(tmp_path / "data") as server:
        assert await streams_of(server.url) == []
        assert find(left.pid) is None
    await end(left)


async def test_a_recorded_pid_that_belongs_to_somebody_else_is_left_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    bystander = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        (data / "nats.pid").write_text(f"{bystander.pid}\n")
        async with EmbeddedNats(data) as server:
            assert await streams_of(server.url) == []
        assert bystander.returncode is None
    finally:
        bystander.kill()
        await bystander.wait()


async def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MachineError, match=f"Port {port} for NATS is in use"):
            await EmbeddedNats(tmp_path / "data", port=port).start()
    assert not (tmp_path / "data" / "nats.conf").exists()


async def test_a_store_that_cannot_be_opened_is_reported_with_the_end_of_the_log(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "jetstream").write_text("a file where a folder must be")
    with pytest.raises(MachineError, match="NATS did not start"):
        await EmbeddedNats(data).start()
