"""`pixloom doctor`: each thing that may be wrong is found on a real machine, and said with its remedy."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from pixloom.cli.__main__ import main
from pixloom.local.diagnosis import Finding, Verdict, examine
from pixloom.local.options import LocalStackOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixloom.local.nats import EmbeddedNats


def wanted(data_dir: Path, **more: str) -> LocalStackOptions:
    """Return options with any free ports."""
    return LocalStackOptions(
        data_dir=data_dir,
        http_port=0,
        grpc_port=0,
        database_url=more.get("database_url"),
        nats_url=more.get("nats_url"),
    )


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


async def found(options: LocalStackOptions, name: str) -> Finding:
    return next(finding for finding in await examine(options) if finding.name == name)


def test_nothing_is_wrong_where_everything_is_installed(tmp_path: Path) -> None:
    findings = asyncio.run(examine(wanted(tmp_path / "data")))
    assert [finding for finding in findings if finding.verdict is Verdict.WRONG] == []
    assert [finding.name for finding in findings] == [
        "python",
        "pixloom[scheduler]",
        "pixloom[executor]",
        "pixloom[gateway]",
        "pixloom[local]",
        "data directory",
        "disk",
        "REST port",
        "gRPC port",
        "PostgreSQL",
        "NATS",
    ]
    assert list(tmp_path.iterdir()) == []


async def test_who_holds_a_port_is_named(tmp_path: Path, taken_port: int) -> None:
    finding = await found(LocalStackOptions(data_dir=tmp_path, http_port=taken_port, grpc_port=0), "REST port")
    assert finding.verdict is Verdict.WRONG
    assert f"{taken_port} is held by pid {os.getpid()}" in finding.detail
    assert "--http-port" in finding.detail


async def test_a_file_in_place_of_the_data_directory_is_found(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    finding = await found(wanted(tmp_path / "data" / "below"), "data directory")
    assert (finding.verdict, "is a file" in finding.detail) == (Verdict.WRONG, True)


async def test_a_data_directory_that_cannot_be_written_to_is_found() -> None:
    # Where not even root makes files.
    finding = await found(
        wanted(Path("/proc/pixloom" if sys.platform == "linux" else "/dev/pixloom")), "data directory"
    )
    assert (finding.verdict, "--data-dir" in finding.detail) == (Verdict.WRONG, True)


async def test_servers_at_urls_are_asked(tmp_path: Path, database_url: str, nats: EmbeddedNats) -> None:
    options = wanted(tmp_path, database_url=database_url, nats_url=nats.url)
    findings = {finding.name: finding for finding in await examine(options)}
    assert "pixloom[local]" not in findings
    for name in ("PostgreSQL", "NATS"):
        assert findings[name].verdict is Verdict.OK, findings[name]
        assert findings[name].detail.startswith(f"{name} ")


async def test_servers_that_do_not_answer_or_refuse_are_found_and_no_secret_is_shown(
    tmp_path: Path, unused_port: int, nats: EmbeddedNats
) -> None:
    where = urlsplit(nats.url)
    for database, queue in (
        (f"postgresql://me:sesame@127.0.0.1:{unused_port}/x", f"nats://me:sesame@127.0.0.1:{unused_port}"),
        (f"postgresql://me:sesame@127.0.0.1:{where.port}/x", f"nats://me:sesame@127.0.0.1:{where.port}"),
    ):
        options = wanted(tmp_path, database_url=database, nats_url=queue)
        findings = {finding.name: finding for finding in await examine(options)}
        for name, setting in (("PostgreSQL", "PIXLOOM_DATABASE_URL"), ("NATS", "PIXLOOM_NATS_URL")):
            assert findings[name].verdict is Verdict.WRONG, findings[name]
            assert setting in findings[name].detail
            assert "sesame" not in findings[name].detail


async def test_what_answers_and_is_no_nats_is_told_apart(tmp_path: Path) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail ready\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        options = wanted(tmp_path, nats_url=f"nats://127.0.0.1:{port}")
        finding = await found(options, "NATS")
    assert (finding.verdict, "is not NATS" in finding.detail) == (Verdict.WRONG, True)


def test_the_exit_code_says_whether_something_is_wrong(
    tmp_path: Path, taken_port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("PIXLOOM_")]:
        monkeypatch.delenv(name)
    assert main(["doctor", "--http-port", "0", "--grpc-port", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} <= {"ok", "note"}
    assert main(["doctor", "--http-port", "0", "--grpc-port", str(taken_port)]) == 1
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("wrong  gRPC port")]
    (tmp_path / "pixloom.toml").write_text("databse_url = ''\n")
    assert main(["doctor"]) == 1
    assert "database_url" in capsys.readouterr().out
