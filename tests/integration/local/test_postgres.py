"""The embedded PostgreSQL server, for real."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from pixloom.errors import MachineError
from pixloom.local import launcher
from pixloom.local.postgres import EmbeddedPostgres
from pixloom.local.processes import end, find, wait_exit

NO_NAMESPACES = str(Path(__file__).with_name("no_namespaces.py"))
START = """
import asyncio, os, sys
from pathlib import Path
import asyncpg
from pixloom.errors import MachineError
from pixloom.local.postgres import EmbeddedPostgres

async def main():
    async with EmbeddedPostgres(Path(sys.argv[1])) as server:
        connection = await asyncpg.connect(server.url)
        print(os.geteuid(), await connection.fetchval("SHOW server_version_num"))
        await connection.close()

try:
    asyncio.run(main())
except MachineError as error:
    sys.exit(f"MachineError: {error}")
"""


async def value_of(server: EmbeddedPostgres, statement: str) -> object:
    connection = await asyncpg.connect(server.url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def modes_of(*paths: Path) -> dict[Path, tuple[int, int, int]]:
    return {path: (state.st_mode, state.st_uid, state.st_gid) for path in paths for state in [path.stat()]}


async def test_server_answers_and_keeps_its_data_over_a_restart(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "data")
    async with server:
        url = server.url
        await value_of(server, "CREATE TABLE kept AS SELECT 7 AS value")
    async with server:
        assert server.url == url
        assert await value_of(server, "SELECT value FROM kept") == 7
    await server.stop()


async def test_sqlalchemy_takes_the_address(postgres: EmbeddedPostgres) -> None:
    engine = create_async_engine(postgres.url.replace("postgresql://", "postgresql+asyncpg://", 1))
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
    await engine.dispose()


async def test_each_test_has_an_empty_database(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    await connection.close()


async def test_commits_are_durable(postgres: EmbeddedPostgres) -> None:
    assert [
        await value_of(postgres, f"SHOW {name}") for name in ("fsync", "full_page_writes", "synchronous_commit")
    ] == [
        "on",
        "on",
        "on",
    ]
    assert str(await value_of(postgres, "SHOW server_version_num")).startswith("18")


async def test_nobody_gets_in_without_the_password(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.url.replace(f":{postgres._password}@", ":guess@"))


async def test_secrets_and_sockets_are_private_and_no_permission_outside_changes(tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    inner = outer / "inner"
    inner.mkdir(parents=True)
    outer.chmod(0o700)
    inner.chmod(0o700)
    beside = inner / "beside.txt"
    beside.touch(mode=0o600)
    before = modes_of(*inner.parents, inner, beside)
    server = EmbeddedPostgres(inner / "data")
    await server.start()
    socket_dir = server._socket_dir
    assert socket_dir is not None
    for path, mode in (
        (inner / "data", 0o700),
        (inner / "data" / "cluster", 0o700),
        (inner / "data" / "postgres.password", 0o600),
        (inner / "data" / "postgres.log", 0o600),
        (socket_dir, 0o700),
    ):
        assert stat.S_IMODE(path.stat().st_mode) == mode, path
    await server.stop()
    assert modes_of(*inner.parents, inner, beside) == before
    assert not socket_dir.exists()


async def test_a_deep_data_directory_needs_no_short_path(tmp_path: Path) -> None:
    async with EmbeddedPostgres(tmp_path / ("a" * 100) / ("b" * 60)) as server:
        assert await value_of(server, "SELECT 1") == 1


async def test_tcp_is_on_loopback_when_asked_for(tmp_path: Path, unused_port: int) -> None:
    async with EmbeddedPostgres(tmp_path / "data", port=unused_port) as server:
        host = server.url.partition("@/")[0] + f"@127.0.0.1:{unused_port}/pixloom"
        connection = await asyncpg.connect(host)
        assert await connection.fetchval("SHOW listen_addresses") == "127.0.0.1"
        await connection.close()
        with pytest.raises(MachineError, match=f"Port {unused_port} for PostgreSQL is in use"):
            await EmbeddedPostgres(tmp_path / "other", port=unused_port).start()


async def test_it_runs_as_a_normal_user(tmp_path: Path) -> None:
    words = [sys.executable, "-c", START, str(tmp_path / "data")]
    if os.geteuid() == 0:
        words = [
            sys.executable,
            launcher.__file__,
            str(int(signal.SIGTERM)),
            str(os.getpid()),
            "--in-namespace",
            *words,
        ]
    shown = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, timeout=60, check=False)
    assert shown.stderr == ""
    assert shown.stdout.split()[0] != "0"
    assert shown.stdout.split()[1].startswith("18")


async def test_a_crashed_server_recovers_what_was_committed(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "data")
    await server.start()
    url = server.url
    await value_of(server, "CREATE TABLE kept AS SELECT 7 AS value")
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGKILL)
    await wait_exit(server.process)
    await server.start()
    assert server.url == url
    assert await value_of(server, "SELECT value FROM kept") == 7
    await server.stop(immediate=True)
    async with server:
        assert await value_of(server, "SELECT value FROM kept") == 7


async def test_a_server_that_an_earlier_run_left_is_ended(tmp_path: Path) -> None:
    abandoned = EmbeddedPostgres(tmp_path / "data")
    await abandoned.start()
    left, socket_dir = abandoned.process, abandoned._socket_dir
    assert left is not None
    assert socket_dir is not None
    abandoned._lock.release()  # as the end of its owner would
    async with EmbeddedPostgres(tmp_path / "data") as server:
        assert await value_of(server, "SELECT 1") == 1
        assert find(left.pid) is None
        assert not socket_dir.exists()
    await end(left)


async def test_a_server_in_use_is_left_alone(tmp_path: Path) -> None:
    async with EmbeddedPostgres(tmp_path / "data") as server:
        with pytest.raises(MachineError, match=rf"PostgreSQL in .* is already running \(pid {os.getpid()}\)"):
            await EmbeddedPostgres(tmp_path / "data").start()
        assert await value_of(server, "SELECT 1") == 1


async def test_a_stale_pid_file_whose_pid_belongs_to_another_process_does_not_keep_it_down(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "data")
    async with server:
        pid_file = tmp_path / "data" / "cluster" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
    bystander = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        pid_file.write_text("\n".join([str(bystander.pid), *lines[1:]]) + "\n")
        async with server:
            assert await value_of(server, "SELECT 1") == 1
        assert bystander.returncode is None
    finally:
        bystander.kill()
        await bystander.wait()


async def test_an_interrupted_first_start_leaves_nothing_to_repair(tmp_path: Path) -> None:
    half = tmp_path / "data" / "cluster.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    async with EmbeddedPostgres(tmp_path / "data") as server:
        assert await value_of(server, "SELECT 1") == 1
    assert not half.exists()


async def test_a_start_that_is_cancelled_leaves_no_process_and_no_lock(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "data")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await server.start()
    assert not (tmp_path / "data" / "cluster.new").exists()
    async with server:
        assert await value_of(server, "SELECT 1") == 1


async def test_a_cluster_of_another_version_is_refused_with_the_remedy(tmp_path: Path) -> None:
    cluster = tmp_path / "data" / "cluster"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("16\n")
    with pytest.raises(MachineError, match=r"made by PostgreSQL 16, and this is PostgreSQL 18\..*pg_dump 16"):
        await EmbeddedPostgres(tmp_path / "data").start()
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["cluster", "postgres.lock"]


async def test_a_folder_that_is_no_cluster_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data" / "cluster").mkdir(parents=True)
    with pytest.raises(MachineError, match="is not a PostgreSQL cluster"):
        await EmbeddedPostgres(tmp_path / "data").start()


async def test_a_lost_password_is_named(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "data")
    async with server:
        pass
    (tmp_path / "data" / "postgres.password").unlink()
    with pytest.raises(MachineError, match=r"postgres\.password is missing"):
        await server.start()


async def test_a_damaged_cluster_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "data")
    async with server:
        pass
    (tmp_path / "data" / "cluster" / "global" / "pg_control").unlink()
    with pytest.raises(MachineError, match=r"PostgreSQL did not start in(.|\n)*pg_control"):
        await server.start()


if sys.platform == "linux" and os.geteuid() == 0:  # a normal user needs no other identity

    async def run_without_namespaces(data: Path, *, drop: tuple[int, ...] = ()) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, NO_NAMESPACES, *map(str, drop), "--", sys.executable, "-c", START, str(data)]
        return await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, timeout=60, check=False)

    async def test_root_without_namespaces_runs_it_as_another_user_with_no_permission_changed(tmp_path: Path) -> None:
        outer = tmp_path / "outer"
        outer.mkdir(mode=0o700)
        before = modes_of(*outer.parents, outer)
        for _ in range(2):
            shown = await run_without_namespaces(outer / "data")
            assert shown.stderr == ""
            assert shown.stdout.startswith("0 18")
            assert (outer / "data" / "cluster").stat().st_uid == launcher.NOBODY
        assert modes_of(*outer.parents, outer) == before
        # With namespaces again, the files go back to root.
        async with EmbeddedPostgres(outer / "data") as server:
            assert await value_of(server, "SELECT 1") == 1

    async def test_root_with_no_other_identity_is_told_what_to_do(tmp_path: Path) -> None:
        shown = await run_without_namespaces(tmp_path / "data", drop=(6, 7))  # CAP_SETGID, CAP_SETUID
        assert shown.returncode == 1
        assert "MachineError: PostgreSQL does not run as root" in shown.stderr
        assert "Run pixloom as a normal user" in shown.stderr
        assert not list((tmp_path / "data").glob("cluster*"))
