from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pixloom.artifacts import open_store
from pixloom_gateway.assembly import assemble
from pixloom_gateway.middleware.limits import RequestLimits
from tests.integration.gateway.peer import SchedulerPeer


@pytest.fixture
def sockets() -> Any:
    # A socket's path is limited to 107 bytes, which tmp_path may exceed.
    folder = tempfile.mkdtemp(prefix="px")
    yield Path(folder)
    shutil.rmtree(folder)


@pytest.fixture
def spans() -> Any:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield SimpleNamespace(provider=provider, finished=exporter.get_finished_spans)
    provider.shutdown()


@pytest.fixture
def peer_address(sockets: Any) -> Any:
    return f"unix:{sockets}/s"


@pytest.fixture
async def peer(peer_address: Any, spans: Any) -> Any:
    scheduler = SchedulerPeer()
    await scheduler.start(peer_address, tracer_provider=spans.provider)
    yield scheduler
    await scheduler.stop()


@pytest.fixture
def store(tmp_path: Any) -> Any:
    return open_store(f"file://{tmp_path}/artifacts")


@pytest.fixture
async def start_gateway(store: Any, spans: Any) -> Any:
    started = []

    async def start(addresses: Any, **more: Any) -> Any:
        numbers = itertools.count(1)
        options = {
            "http_listen": "127.0.0.1:0",
            "grpc_listen": "127.0.0.1:0",
            "heartbeat_s": 0.05,
            "limits": RequestLimits(max_bytes=5 * 2**20, timeout_s=10.0),
            **more,
        }
        gateway = await assemble(
            scheduler_addresses=addresses,
            store=store,
            version="0.0.test",
            new_id=lambda: f"id{next(numbers)}",
            tracer_provider=spans.provider,
            **options,
        )
        await gateway.start()
        started.append(gateway)
        return gateway

    yield start
    for gateway in started:
        await gateway.stop()


@pytest.fixture
async def gateway(start_gateway: Any, peer: Any, peer_address: Any) -> Any:
    return await start_gateway([peer_address])


@pytest.fixture
async def http(gateway: Any) -> Any:
    async with httpx2.AsyncClient(base_url=f"http://{gateway.http_address}", trust_env=False) as client:
        yield client
