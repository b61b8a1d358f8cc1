"""`JobDefinition.execute` with a client that was given a channel: nothing goes to any other server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pixloom import DAG, ArtifactResult, AsyncClient, Client, CollectionResult, JobDefinition, node
from pixloom.errors import InvalidError
from pixloom.rpc.channel import aio_channel, sync_channel
from pixloom.sdk import definition

if TYPE_CHECKING:
    from tests.support.engine import Engine

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("engine-channels")]


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, unused_port: int) -> None:
    """Let the server of the settings be one that does not answer."""
    monkeypatch.setenv("PIXLOOM_SERVER", f"127.0.0.1:{unused_port}")


def job(*, seconds: float = 0.0) -> JobDefinition:
    dag = DAG("channels")
    numbers = dag.add(node("numbers", "debug.range", count=3))
    slept = dag.add(node("slept", "debug.sleep", items=numbers, seconds=seconds))
    dag.add(node("table", "agg.manifest", items=slept))
    return JobDefinition(name="channels", dag=dag)


async def test_run_and_results_go_through_the_channel_of_a_client(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Longer than a wait, so that the job is waited for again.
    monkeypatch.setattr(definition, "_LONGEST_WAIT_S", 0.2)
    with sync_channel(engine.stack.grpc_address) as channel:
        results = await job(seconds=0.6).execute(Client(channel=channel))
        numbers, table = results["numbers"], results["table"]
        assert isinstance(numbers, CollectionResult)
        assert [item.key for item in await asyncio.to_thread(list, numbers)] == ["0", "1", "2"]
        assert isinstance(table, ArtifactResult)
        assert len(await asyncio.to_thread(table.bytes)) == table.size_bytes


async def test_results_of_a_run_through_a_channel_of_asyncio_say_how_they_are_read(engine: Engine) -> None:
    async with aio_channel(engine.stack.grpc_address) as channel:
        client = AsyncClient(channel=channel)
        results = await job().execute(client)
        numbers, table = results["numbers"], results["table"]
        assert isinstance(numbers, CollectionResult)
        with pytest.raises(InvalidError, match="iter_items"):
            list(numbers)
        assert isinstance(table, ArtifactResult)
        with pytest.raises(InvalidError, match="read_artifact"):
            table.bytes()
        assert len(await client.read_artifact(table.sha256)) == table.size_bytes
