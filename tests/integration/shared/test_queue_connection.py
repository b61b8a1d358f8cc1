"""The connection to NATS: it says what goes wrong in one line each, and outlives the server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from pixloom.errors import UnavailableError
from pixloom.local.nats import EmbeddedNats
from pixloom.queue import connect_queue

if TYPE_CHECKING:
    from pathlib import Path


async def test_lost_server_is_one_line_each_and_no_traceback(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    back = asyncio.Event()

    async def reconnected() -> None:
        back.set()

    async with EmbeddedNats(tmp_path / "nats") as server:
        with capture_logs() as lines:
            connection = await connect_queue(server.url, service="scheduler", reconnected_cb=reconnected)
            await server.stop(immediate=True)
            await server.start()
            async with asyncio.timeout(60):
                await back.wait()
            await connection.close()

    events = [line["event"] for line in lines]
    assert "nats_disconnected" in events
    assert len([event for event in events if event == "nats_error"]) <= 3
    assert not caplog.records


async def test_server_that_is_not_there_is_named_by_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixloom.queue.CONNECT_S", 1.0)

    with capture_logs() as lines, pytest.raises(UnavailableError, match="PIXLOOM_NATS_URL"):
        await connect_queue("nats://127.0.0.1:9", service="executor")

    assert [line["event"] for line in lines] == ["nats_error"]
