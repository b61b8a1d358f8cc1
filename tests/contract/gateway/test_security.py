from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from pixloom.errors import InvalidError, MachineError
from pixloom_gateway.assembly import assemble
from pixloom_gateway.middleware.limits import RequestLimits


async def test_loopback_hosts_are_served_with_the_port_or_without(http: Any, gateway: Any) -> None:
    port = gateway.http_address.rpartition(":")[2]
    for name in ("localhost", "127.0.0.1", "[::1]", "LOCALHOST"):
        for host in (name, f"{name}:{port}"):
            answer = await http.get("/healthz", headers={"Host": host})
            assert (host, answer.status_code) == (host, 200)


FOREIGN_HOSTS = [
    "evil.example",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "127.0.0.2",
    "localhost:1",
    "127.0.0.1:",
    "localhost@evil.example",
    "[::1]evil",
    "[::2]",
    "[::1",
    "0.0.0.0",  # noqa: S104 - a Host that a page may name
    "localhost.",
    "",
]


@pytest.mark.parametrize("path", ["/healthz", "/api/v1/jobs", "/api/docs", "/nowhere"])
async def test_foreign_hosts_are_refused_everywhere(http: Any, path: Any) -> None:
    for host in FOREIGN_HOSTS:
        answer = await http.get(path, headers={"Host": host})
        assert (host, answer.status_code, answer.json()["reason"]) == (host, 403, "FORBIDDEN")


FOREIGN_ORIGINS = [
    "http://evil.example",
    "null",
    "http://localhost:1",
    "http://127.0.0.1",
    "file://",
    "http://evil.example@127.0.0.1",
]


async def test_foreign_origins_are_refused(http: Any, peer: Any) -> None:
    for origin in FOREIGN_ORIGINS:
        answer = await http.post("/api/v1/jobs", json={"spec": {"name": "w"}}, headers={"Origin": origin})
        assert (origin, answer.status_code) == (origin, 403)
    assert peer.jobs.seen_requests == []


async def test_same_origin_is_served(http: Any, gateway: Any) -> None:
    headers = {"Origin": f"http://{gateway.http_address}"}
    answer = await http.post("/api/v1/jobs", json={"spec": {"name": "w"}}, headers=headers)
    assert answer.status_code == 201


async def raw(gateway: Any, request: Any) -> Any:
    host, port = gateway.http_address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    await writer.drain()
    line = await asyncio.wait_for(reader.readline(), 60)
    writer.close()
    await writer.wait_closed()
    return int(line.split()[1])


async def test_request_with_two_hosts_or_none_is_refused(gateway: Any) -> None:
    assert await raw(gateway, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n") in {400, 403}
    assert await raw(gateway, b"GET /healthz HTTP/1.0\r\n\r\n") in {400, 403}


async def test_foreign_answers_carry_no_cors_headers(http: Any) -> None:
    answer = await http.get("/api/v1/ops")
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.0.2.1:0", "[::]:0", "example.org:0"])
async def test_gateway_refuses_other_addresses_than_loopback(
    start_gateway: Any, peer: Any, peer_address: Any, address: Any
) -> None:
    with pytest.raises(InvalidError, match="loopback"):
        await start_gateway([peer_address], http_listen=address)


async def test_port_in_use_is_a_machine_error(start_gateway: Any, gateway: Any, peer_address: Any) -> None:
    with pytest.raises(MachineError, match="cannot be bound"):
        await start_gateway([peer_address], http_listen=gateway.http_address)
    with pytest.raises(MachineError, match="cannot be bound"):
        await start_gateway([peer_address], grpc_listen=gateway.grpc_address)


async def test_nothing_keeps_a_gateway_that_could_not_listen(gateway: Any, peer_address: Any, store: Any) -> None:
    refused = await assemble(
        scheduler_addresses=[peer_address],
        store=store,
        http_listen=gateway.http_address,
        grpc_listen="127.0.0.1:0",
        version="0.0.test",
        new_id=lambda: "id",
    )
    with pytest.raises(MachineError, match="cannot be bound"):
        await refused.start()
    await refused.stop()
    known = weakref.ref(refused)
    del refused
    gc.collect()
    assert known() is None


async def test_slow_body_is_cut_off(start_gateway: Any, peer: Any, peer_address: Any) -> None:
    gateway = await start_gateway([peer_address], limits=RequestLimits(max_bytes=1000, timeout_s=0.1))
    status = await raw(gateway, b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
    assert status == 504
