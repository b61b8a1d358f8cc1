from __future__ import annotations

import hashlib
from typing import Any

import grpc
import pytest

from pixloom.v1 import artifact_pb2, artifact_pb2_grpc

JPEG = b"\xff\xd8\xff" + bytes(range(256)) * 8
SHA = hashlib.sha256(JPEG).hexdigest()


@pytest.fixture
async def stored(http: Any) -> Any:
    answer = await http.post("/api/v1/artifacts", content=JPEG)
    assert answer.status_code == 201
    return answer


async def test_upload_names_the_bytes(stored: Any, store: Any) -> None:
    assert stored.json() == {"sha256": SHA, "size_bytes": len(JPEG), "media_type": "image/jpeg"}
    assert stored.headers["location"] == f"/api/v1/artifacts/{SHA}"
    assert store.get(SHA) == JPEG


async def test_upload_beyond_the_limit_is_refused(start_gateway: Any, peer: Any, peer_address: Any, http: Any) -> Any:
    small = await start_gateway([peer_address], max_upload_bytes=100)

    async def chunks() -> Any:
        yield b"x" * 60
        yield b"x" * 60

    answer = await http.post(f"http://{small.http_address}/api/v1/artifacts", content=chunks())
    assert (answer.status_code, answer.json()["reason"]) == (413, "TOO_LARGE")


async def test_download_has_the_headers_of_immutable_bytes(http: Any, stored: Any) -> None:
    answer = await http.get(f"/api/v1/artifacts/{SHA}")
    assert answer.content == JPEG
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["etag"] == f'"{SHA}"'
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "immutable" in answer.headers["cache-control"]
    assert "content-disposition" not in answer.headers
    head = await http.head(f"/api/v1/artifacts/{SHA}")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(JPEG)))


async def test_what_could_run_in_a_browser_is_downloaded(http: Any) -> None:
    for content in (b"<html><script>alert(1)</script>", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b'{"a":1}'):
        location = (await http.post("/api/v1/artifacts", content=content)).headers["location"]
        answer = await http.get(location)
        assert answer.headers["content-disposition"].startswith("attachment")
        assert "sandbox" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, len(JPEG)),
        ("bytes=10-19", 10, 20),
        ("bytes=10-999999", 10, len(JPEG)),
        ("bytes=-5", len(JPEG) - 5, len(JPEG)),
        ("bytes=-999999", 0, len(JPEG)),
        (f"bytes={len(JPEG) - 1}-", len(JPEG) - 1, len(JPEG)),
        ("Bytes = 1 - 2", 1, 3),
    ],
)
async def test_range_is_answered_in_part(http: Any, stored: Any, header: Any, start: Any, stop: Any) -> None:
    answer = await http.get(f"/api/v1/artifacts/{SHA}", headers={"Range": header})
    assert answer.status_code == 206
    assert answer.content == JPEG[start:stop]
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(JPEG)}"
    assert answer.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize("header", [f"bytes={len(JPEG)}-", "bytes=999999-1000000", "bytes=-0"])
async def test_range_outside_is_416_with_the_size(http: Any, stored: Any, header: Any) -> None:
    answer = await http.get(f"/api/v1/artifacts/{SHA}", headers={"Range": header})
    assert (answer.status_code, answer.json()["reason"]) == (416, "RANGE_NOT_SATISFIABLE")
    assert answer.headers["content-range"] == f"bytes */{len(JPEG)}"


@pytest.mark.parametrize("header", ["bytes=5-2", "bytes=-", "items=0-1", "bytes=0-1,3-4", "bytes=a-b", "bytes=٣-٤"])
async def test_range_that_makes_no_sense_is_ignored(http: Any, stored: Any, header: Any) -> None:
    answer = await http.get(f"/api/v1/artifacts/{SHA}", headers={"Range": header.encode()})
    assert (answer.status_code, answer.content) == (200, JPEG)


async def test_conditions_are_honoured(http: Any, stored: Any) -> None:
    for tag in (f'"{SHA}"', f'W/"{SHA}"', "*", f'"x", "{SHA}"'):
        answer = await http.get(f"/api/v1/artifacts/{SHA}", headers={"If-None-Match": tag})
        assert (answer.status_code, answer.content) == (304, b"")
    answer = await http.get(f"/api/v1/artifacts/{SHA}", headers={"Range": "bytes=0-1", "If-Range": '"other"'})
    assert answer.status_code == 200
    answer = await http.get(f"/api/v1/artifacts/{SHA}", headers={"Range": "bytes=0-1", "If-Range": f'"{SHA}"'})
    assert answer.status_code == 206


async def test_empty_artifact_can_be_stored_and_read(http: Any) -> None:
    location = (await http.post("/api/v1/artifacts", content=b"")).headers["location"]
    answer = await http.get(location)
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")
    assert (await http.get(location, headers={"Range": "bytes=0-"})).status_code == 416


async def test_absent_artifact_is_not_found(http: Any) -> None:
    assert (await http.get(f"/api/v1/artifacts/{'0' * 64}")).status_code == 404
    for bad in ("0" * 63, "A" * 64, "..%2f..%2fetc%2fpasswd"):
        assert (await http.get(f"/api/v1/artifacts/{bad}")).status_code in {400, 404}


async def test_large_artifact_streams_over_rest_and_grpc(http: Any, gateway: Any) -> None:
    content = bytes(range(256)) * 4096 * 3 + b"end"
    sha = (await http.post("/api/v1/artifacts", content=content)).json()["sha256"]
    assert (await http.get(f"/api/v1/artifacts/{sha}")).content == content
    async with grpc.aio.insecure_channel(gateway.grpc_address) as channel:
        stub = artifact_pb2_grpc.ArtifactServiceStub(channel)
        found = await stub.GetArtifact(artifact_pb2.GetArtifactRequest(sha256=sha))
        assert found.artifact.size_bytes == len(content)
        chunks = [
            entry.data
            async for entry in stub.DownloadArtifact(
                artifact_pb2.DownloadArtifactRequest(sha256=sha, offset=5, length=2 * 2**20)
            )
        ]
        assert b"".join(chunks) == content[5 : 5 + 2 * 2**20]
        assert max(map(len, chunks)) <= 2**20
        parts = [artifact_pb2.UploadArtifactRequest(data=part) for part in (b"ab", b"", b"c")]
        stored = await stub.UploadArtifact(iter(parts))
        assert stored.artifact.sha256 == hashlib.sha256(b"abc").hexdigest()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetArtifact(artifact_pb2.GetArtifactRequest(sha256="0" * 64))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
