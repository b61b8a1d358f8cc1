from __future__ import annotations

import asyncio

import pytest

from pixloom.errors import InvalidError, MachineError
from pixloom_gateway.middleware.limits import RequestLimits


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST"])
@pytest.mark.parametrize("with_port", [True, False])
async def test_loopback_hosts_are_served(http, gateway, host, with_port):
    port = gateway.http_address.rpartition(":")[2]
    answer = await http.get("/healthz", headers={"Host": f"{host}:{port}" if with_port else host})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "host",
    [
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
        "0.0.0.0",
        "localhost.",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/healthz", "/api/v1/jobs", "/api/docs", "/nowhere"])
async def test_foreign_hosts_are_refused_everywhere(http, host, path):
    answer = await http.get(path, headers={"Host": host})
    assert answer.status_code == 403
    assert answer.json()["reason"] == "FORBIDDEN"


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://localhost:1", "http://127.0.0.1", "file://", "http://evil.example@127.0.0.1"],
)
async def test_foreign_origins_are_refused(http, peer, origin):
    answer = await http.post("/api/v1/jobs", json={"spec": {"name": "w"}}, headers={"Origin": origin})
    assert answer.status_code == 403
    assert peer.jobs.seen_requests == []


async def test_same_origin_is_served(http, gateway):
    headers = {"Origin": f"http://{gateway.http_address}"}
    answer = await http.post("/api/v1/jobs", json={"spec": {"name": "w"}}, headers=headers)
    assert answer.status_code == 201


async def raw(gateway, request):
    host, port = gateway.http_address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    await writer.drain()
    line = await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    await writer.wait_closed()
    return int(line.split()[1])


async def test_request_with_two_hosts_or_none_is_refused(gateway):
    assert await raw(gateway, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n") in {400, 403}
    assert await raw(gateway, b"GET /healthz HTTP/1.0\r\n\r\n") in {400, 403}


async def test_foreign_answers_carry_no_cors_headers(http):
    answer = await http.get("/api/v1/ops")
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.0.2.1:0", "[::]:0", "example.org:0"])
async def test_gateway_refuses_other_addresses_than_loopback(start_gateway, peer, peer_address, address):
    with pytest.raises(InvalidError, match="loopback"):
        await start_gateway([peer_address], http_listen=address)


async def test_port_in_use_is_a_machine_error(start_gateway, gateway, peer_address):
    with pytest.raises(MachineError, match="cannot be bound"):
        await start_gateway([peer_address], http_listen=gateway.http_address)
    with pytest.raises(MachineError, match="cannot be bound"):
        await start_gateway([peer_address], grpc_listen=gateway.grpc_address)


async def test_slow_body_is_cut_off(start_gateway, peer, peer_address):
    gateway = await start_gateway([peer_address], limits=RequestLimits(max_bytes=1000, timeout_s=0.1))
    status = await raw(gateway, b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
    assert status == 504
