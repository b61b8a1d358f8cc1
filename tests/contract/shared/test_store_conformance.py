"""What every artifact store promises, whatever it is kept in."""

from __future__ import annotations

import asyncio
import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
import pytest

from pixloom.artifacts.remote_store import RemoteStore
from pixloom.artifacts.store import CHUNK_BYTES, ArtifactStore, open_store
from pixloom.errors import InvalidError, NotFoundError, RangeError
from pixloom.v1 import item_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ABSENT = "0" * 64


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    return open_store((tmp_path / "new" / "artifacts").as_uri() if request.param == "file" else "memory://")


@pytest.mark.parametrize("data", [b"", b"x", b"\x00" * 70_000])
async def test_what_was_put_is_got_back_under_its_digest(store: ArtifactStore, data: bytes) -> None:
    ref = store.put(data, "application/octet-stream")
    assert ref == pb.ArtifactRef(
        sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data), media_type="application/octet-stream"
    )
    assert store.get(ref.sha256) == data
    assert await store.aget(ref.sha256) == data
    assert await store.aput(data, "application/octet-stream") == ref


async def test_head_tells_size_and_media_type_or_nothing(store: ArtifactStore) -> None:
    ref = store.put(b'{"a": 1}', "application/json")
    assert store.head(ref.sha256) == ref
    assert await store.ahead(ref.sha256) == ref
    assert store.head(ABSENT) is None
    assert await store.ahead(ABSENT) is None


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, 3, b"abc"),
        (2, None, b"cdef"),
        (4, 10, b"ef"),
        (6, None, b""),
        (3, 0, b""),
        (0, None, b"abcdef"),
        (0, 6, b"abcdef"),
    ],
)
async def test_ranges(store: ArtifactStore, offset: int, length: int | None, expected: bytes) -> None:
    sha256 = store.put(b"abcdef", "text/plain").sha256
    assert store.get(sha256, offset, length) == expected
    assert await store.aget(sha256, offset, length) == expected
    assert b"".join([chunk async for chunk in store.astream(sha256, offset, length)]) == expected


@pytest.mark.parametrize(("offset", "length"), [(7, None), (7, 1), (-1, None), (0, -1)])
async def test_ranges_outside_are_refused(store: ArtifactStore, offset: int, length: int | None) -> None:
    sha256 = store.put(b"abcdef", "text/plain").sha256
    with pytest.raises(RangeError):
        store.get(sha256, offset, length)
    with pytest.raises(RangeError):
        await store.aget(sha256, offset, length)
    with pytest.raises(RangeError):
        await anext(aiter(store.astream(sha256, offset, length)))


async def test_absent_artifacts_are_not_found(store: ArtifactStore) -> None:
    with pytest.raises(NotFoundError, match=ABSENT):
        store.get(ABSENT)
    with pytest.raises(NotFoundError):
        store.get(ABSENT, 1, 2)
    with pytest.raises(NotFoundError):
        await store.aget(ABSENT)
    with pytest.raises(NotFoundError):
        await anext(aiter(store.astream(ABSENT)))
    with pytest.raises(NotFoundError):
        await store.sync([ABSENT])
    assert store.path(ABSENT) is None


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n", "g" * 64])
async def test_what_is_no_digest_is_refused(store: ArtifactStore, digest: str) -> None:
    for call in (store.get, store.head, store.path):
        with pytest.raises(InvalidError, match="no digest"):
            call(digest)
    with pytest.raises(InvalidError):
        await store.aget(digest)
    with pytest.raises(InvalidError):
        await store.ahead(digest)
    with pytest.raises(InvalidError):
        await anext(aiter(store.astream(digest)))
    with pytest.raises(InvalidError):
        await store.sync([digest])


async def test_streams_come_in_chunks(store: ArtifactStore) -> None:
    data = bytes(range(256)) * (CHUNK_BYTES // 128) + b"end"
    sha256 = (await store.aput(data, "application/octet-stream")).sha256
    chunks = [chunk async for chunk in store.astream(sha256)]
    assert max(map(len, chunks)) <= CHUNK_BYTES
    assert len(chunks) == 3
    assert b"".join(chunks) == data


async def test_sync_takes_many_callers_at_once(store: ArtifactStore) -> None:
    digests = [store.put(bytes([number]), "x/y").sha256 for number in range(40)]
    async with asyncio.TaskGroup() as group:
        for start in range(20):
            group.create_task(store.sync(digests[start : start + 20] * 2))
    await store.sync([])


async def test_sync_of_an_absent_one_fails_only_who_asked_for_it(store: ArtifactStore) -> None:
    sha256 = store.put(b"here", "x/y").sha256
    outcomes = await asyncio.gather(
        store.sync([sha256]), store.sync([sha256, ABSENT]), store.sync([sha256]), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [type(None), NotFoundError, type(None)]


def test_the_same_bytes_may_be_put_by_many_at_once(store: ArtifactStore) -> None:
    data = b"same" * 50_000
    with ThreadPoolExecutor(8) as threads:
        refs = list(threads.map(lambda _: store.put(data, "x/y"), range(32)))
    assert len({ref.sha256 for ref in refs}) == 1
    assert store.get(refs[0].sha256) == data


def test_only_the_file_store_has_paths(store: ArtifactStore) -> None:
    sha256 = store.put(b"bytes", "x/y").sha256
    path = store.path(sha256)
    if store.uri.startswith("file:"):
        assert path is not None
        assert path.read_bytes() == b"bytes"
        assert path.parts[-3:] == ("cas", sha256[:2], sha256)
    else:
        assert path is None


@pytest.mark.parametrize("url", ["", "/folder", "http://x/y", "file://host/x", "file:relative", "s3://", "ftp://x"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(InvalidError, match="PIXLOOM_ARTIFACTS_URL"):
        open_store(url)


def test_credentials_stay_out_of_the_uri() -> None:
    assert open_store("s3://key:secret@bucket/prefix").uri == "s3://bucket/prefix"


def _files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def _pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


@pytest.mark.parametrize("size", [0, 1, 300_000, 3 * 1024 * 1024 + 5])
async def test_bytes_that_come_in_pieces_are_stored_under_their_digest(store: ArtifactStore, size: int) -> None:
    data = b"\x89PNG\r\n\x1a\n"[:size] + bytes(max(0, size - 8))

    ref = await store.astore(_pieces(data, 65_536))
    again = await store.astore(_pieces(data, 1_000_000))

    assert ref == again == store.head(ref.sha256)
    assert (ref.sha256, ref.size_bytes) == (hashlib.sha256(data).hexdigest(), size)
    assert store.get(ref.sha256) == data


async def test_upload_that_breaks_off_leaves_nothing_behind(store: ArtifactStore) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield bytes(2 * 1024 * 1024)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await store.astore(broken())

    assert store.head(hashlib.sha256(bytes(2 * 1024 * 1024)).hexdigest()) is None
    if store.uri.startswith("file:"):
        assert _files_below(Path(unquote(urlsplit(store.uri).path))) == []


async def test_what_is_finished_is_never_discarded(store: ArtifactStore) -> None:
    assert store.discard_unfinished(before_s=time.time() + 60) == 0
    ref = store.put(b"abc", "text/plain")
    streamed = await store.astore(_pieces(b"abcdef", 3))
    assert store.discard_unfinished(before_s=time.time() + 60) == 0
    assert (store.get(ref.sha256), store.get(streamed.sha256)) == (b"abc", b"abcdef")


def test_what_an_upload_left_in_a_bucket_is_discarded() -> None:
    store = RemoteStore("memory://")
    obstore.put(store._store, "tmp/left", b"half")
    assert store.discard_unfinished(before_s=time.time() - 60) == 0
    assert store.discard_unfinished(before_s=time.time() + 60) == 1
    assert store.discard_unfinished(before_s=time.time() + 60) == 0
