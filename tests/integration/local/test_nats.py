"""The embedded NATS server, for real."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nats as client

if TYPE_CHECKING:
    from pixloom.local.nats import EmbeddedNats


async def test_a_wiped_store_has_no_streams_and_the_address_stays(nats: EmbeddedNats) -> None:
    before = nats.url
    connection = await client.connect(before)
    await connection.jetstream().add_stream(name="WIPED", subjects=["wiped.>"])
    await connection.close()
    await nats.wipe()
    assert nats.url == before
    connection = await client.connect(nats.url)
    assert await connection.jetstream().streams_info() == []
    await connection.close()
