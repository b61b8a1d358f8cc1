"""The local stack over real servers, with stand-ins for the services."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import nats
import pytest

from pixloom.errors import MachineError
from pixloom.local.options import LocalStackOptions, PartSpec, Wiring
from pixloom.local.processes import find
from pixloom.local.stack import LocalStack
from tests.support.lateness import Lateness

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STAND_IN = str(Path(__file__).with_name("stand_in.py"))
UP = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from pixloom.local.options import LocalStackOptions
from pixloom.local import up
from test_stack import services
from pixloom.local.stack import LocalStack
up.LocalStack = lambda options, announce: LocalStack(options, make_parts=services, announce=announce)
options = LocalStackOptions(data_dir=Path(sys.argv[2]), http_port=0, grpc_port=0, executors=1)
sys.exit(asyncio.run(up.up(options, announce=lambda line: print(line, flush=True))))
"""


def part(name: str, *words: str, drain_s: float = 10.0) -> PartSpec:
    return PartSpec(name, (sys.executable, STAND_IN, *words), {}, drain_s=drain_s)


def services(options: LocalStackOptions, wiring: Wiring) -> Sequence[PartSpec]:
    return (
        part("scheduler", "sleeper"),
        part("gateway", "gateway", str(wiring.http_port)),
        *(part(f"executor-{number}", "sleeper") for number in range(1, options.executor_count + 1)),
    )


def options_in(path: Path, *, http_port: int = 0, executors: int = 1) -> LocalStackOptions:
    return LocalStackOptions(data_dir=path / "data", http_port=http_port, grpc_port=0, executors=executors)


async def test_stack_starts_every_part_and_leaves_no_process(tmp_path: Path) -> None:
    lines: list[str] = []
    async with LocalStack(options_in(tmp_path, executors=2), make_parts=services, announce=lines.append) as stack:
        assert stack.parts == ("postgres", "nats", "scheduler", "gateway", "executor-1", "executor-2")
        pids = {name: stack.pid(name) for name in stack.parts}
        commands = {name: found.command for name, pid in pids.items() if pid and (found := find(pid))}
        assert "postgres" in commands["postgres"]
        assert "nats-server" in commands["nats"]
        await (await asyncpg.connect(stack.wiring.database_url)).close()
        await (await nats.connect(stack.wiring.nats_url)).close()
    assert [find(pid or 0) for pid in pids.values()] == [None] * 6
    for name in stack.parts:
        assert any(line.startswith(name) for line in lines)
    assert stack.wiring.database_url not in "".join(lines)
    assert not list((tmp_path / "data" / "run").iterdir())


async def test_second_start_keeps_data_and_is_ready_in_time(tmp_path: Path) -> None:
    options = options_in(tmp_path)
    async with LocalStack(options, make_parts=services) as stack:
        connection = await asyncpg.connect(stack.wiring.database_url)
        await connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
        await connection.close()
    stack = LocalStack(options, make_parts=services)
    with Lateness() as late:
        since = time.monotonic()
        await stack.start()
        taken_s = time.monotonic() - since
    try:
        assert taken_s < 5 + late.seconds
        connection = await asyncpg.connect(stack.wiring.database_url)
        assert await connection.fetchval("SELECT value FROM kept") == 7
        await connection.close()
    finally:
        await stack.stop()
        await stack.stop()


@pytest.mark.parametrize("name", ["postgres", "nats", "scheduler", "gateway", "executor-1"])
async def test_a_killed_part_is_started_again_under_its_address(tmp_path: Path, name: str) -> None:
    lines: list[str] = []
    async with LocalStack(options_in(tmp_path), make_parts=services, announce=lines.append) as stack:
        before = stack.wiring
        killed = stack.kill(name)
        await stack.wait_replaced(name, killed)
        assert any(line.startswith(name) and "SIGKILL" in line for line in lines)
        assert any(line.startswith(name) and "restarted" in line for line in lines)
        await (await asyncpg.connect(before.database_url)).close()
        await (await nats.connect(before.nats_url)).close()


if sys.platform == "linux":  # elsewhere nobody can listen beside a socket that holds a port

    async def test_the_port_of_a_part_that_is_down_is_given_to_nobody_else(tmp_path: Path) -> None:
        def all_asleep(options: LocalStackOptions, wiring: Wiring) -> Sequence[PartSpec]:
            gateway = part("gateway", "gateway", str(wiring.http_port))
            return (part("scheduler", "sleeper"), gateway)  # the sleeper listens nowhere, as one that starts

        async with LocalStack(options_in(tmp_path), make_parts=all_asleep) as stack:
            ports = [*stack.wiring.scheduler_ports, stack.wiring.grpc_port]
            await stack.stop_part("gateway")
            for port in (*ports, stack.wiring.http_port):
                # Bound as a program is that asks for any port; it would be given this one, were it free.
                with socket.socket() as other, pytest.raises(OSError, match="in use"):
                    other.bind(("127.0.0.1", port))
            await stack.start_part("gateway")
            await stack.wait_ready()
        for port in ports:
            with socket.socket() as other:
                other.bind(("127.0.0.1", port))


async def test_parts_are_watched_over_when_nobody_reads_the_lines(tmp_path: Path) -> None:
    def gone(line: str) -> None:
        raise BrokenPipeError(line)

    async with LocalStack(options_in(tmp_path), make_parts=services, announce=gone) as stack:
        await stack.wait_replaced("scheduler", stack.kill("scheduler"))


async def test_a_stopped_part_stays_away_until_it_is_started(tmp_path: Path) -> None:
    async with LocalStack(options_in(tmp_path), make_parts=services) as stack:
        for name in ("nats", "postgres"):
            await stack.stop_part(name)
            assert stack.pid(name) is None
            await stack.start_part(name)
        await (await asyncpg.connect(stack.wiring.database_url)).close()
        await (await nats.connect(stack.wiring.nats_url)).close()


async def test_a_part_that_ignores_sigterm_is_killed_with_its_children(tmp_path: Path) -> None:
    def stubborn(options: LocalStackOptions, wiring: Wiring) -> Sequence[PartSpec]:
        return (*services(options, wiring)[:2], part("executor-1", "stubborn", drain_s=0.2))

    stack = LocalStack(options_in(tmp_path), make_parts=stubborn)
    await stack.start()
    log = stack.log("executor-1")
    async with asyncio.timeout(60):
        while not log.read_text():  # noqa: ASYNC110 - a log has no signal to wait on
            await asyncio.sleep(0.01)
    child = int(log.read_text())
    assert find(child) is not None
    await stack.stop()
    async with asyncio.timeout(60):
        while find(child) is not None:  # noqa: ASYNC110 - the child belongs to init now
            await asyncio.sleep(0.01)


async def test_a_second_stack_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    async with LocalStack(options_in(tmp_path), make_parts=services) as stack:
        pids = [stack.pid(name) for name in stack.parts]
        with pytest.raises(MachineError, match="already running"):
            await LocalStack(options_in(tmp_path), make_parts=services).start()
        assert [stack.pid(name) for name in stack.parts] == pids


async def test_a_port_in_use_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MachineError, match=f"Port {port} for REST is in use.*--http-port"):
            await LocalStack(options_in(tmp_path, http_port=port), make_parts=services).start()
    assert not (tmp_path / "data").exists()


async def test_a_full_disk_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(MachineError, match=r"MB are free on the disk"):
        await LocalStack(options_in(tmp_path), make_parts=services, min_free_bytes=free * 2).start()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("code", [1, 2])
async def test_a_part_that_does_not_stay_up_ends_the_start_with_its_log(tmp_path: Path, code: int) -> None:
    def broken(options: LocalStackOptions, wiring: Wiring) -> Sequence[PartSpec]:
        return (part("scheduler", "broken", str(code)),)

    with pytest.raises(MachineError, match=r"scheduler does not stay up(.|\n)*PIXLOOM_X"):
        await LocalStack(options_in(tmp_path), make_parts=broken).start()


async def test_a_stack_that_does_not_become_ready_says_what_is_missing(tmp_path: Path) -> None:
    def silent(options: LocalStackOptions, wiring: Wiring) -> Sequence[PartSpec]:
        return (part("gateway", "gateway", str(wiring.http_port), "executor: none is in session"),)

    # As long as a busy machine may take until the gateway answers.
    options = dataclasses.replace(options_in(tmp_path), ready_timeout_s=8)
    with pytest.raises(MachineError, match=r"not ready after 8 s; missing: executor: none is in session\. The logs"):
        await LocalStack(options, make_parts=silent).start()
    assert not list((tmp_path / "data" / "run").iterdir())


async def test_a_large_log_is_moved_aside_at_the_start(tmp_path: Path) -> None:
    logs = tmp_path / "data" / "logs"
    logs.mkdir(parents=True)
    with (logs / "gateway.log").open("wb") as file:
        file.truncate(11 * 1024 * 1024)
    (logs / "gateway.log.1").write_text("older")
    async with LocalStack(options_in(tmp_path), make_parts=services):
        assert (logs / "gateway.log").stat().st_size < 1024
    assert (logs / "gateway.log.1").stat().st_size == 11 * 1024 * 1024
    assert (logs / "gateway.log.2").read_text() == "older"


async def test_external_servers_are_used_and_not_started(tmp_path: Path, database_url: str, nats_url: str) -> None:
    options = LocalStackOptions(
        data_dir=tmp_path / "data", http_port=0, grpc_port=0, executors=0, database_url=database_url, nats_url=nats_url
    )
    async with LocalStack(options, make_parts=services) as stack:
        assert stack.parts == ("scheduler", "gateway")
        assert (stack.wiring.database_url, stack.wiring.nats_url) == (database_url, nats_url)


class Up:
    """`pixloom up` as a process of its own."""

    def __init__(self, data_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", UP, str(Path(__file__).parent), str(data_dir)],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []

    def wait_line(self, start: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith(start):
                return
        pytest.fail("".join(self.lines))

    def pids(self) -> list[int]:
        return [int(line.split("pid ")[1].split()[0]) for line in self.lines if " pid " in line]

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        assert self.process.stdout is not None
        self.lines += self.process.stdout.readlines()
        self.process.stdout.close()
        return self.process.wait(60)


@pytest.fixture
def ups() -> Iterator[list[Up]]:
    started: list[Up] = []
    yield started
    for up in started:
        if up.process.poll() is None:
            up.end(signal.SIGTERM)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_an_interrupt_stops_everything(tmp_path: Path, ups: list[Up], number: signal.Signals, code: int) -> None:
    ups.append(up := Up(tmp_path / "data"))
    up.wait_line("Ready")
    pids = up.pids()
    assert len(pids) == 5
    assert up.end(number) == code
    assert up.lines[-1] == "Stopped.\n"
    assert [find(pid) for pid in pids] == [None] * 5


def test_an_interrupt_during_the_start_stops_everything(tmp_path: Path, ups: list[Up]) -> None:
    ups.append(up := Up(tmp_path / "data"))
    up.wait_line("nats ")
    assert up.end(signal.SIGINT) == 130
    assert [find(pid) for pid in up.pids()] == [None] * len(up.pids())


def test_what_a_killed_up_left_is_ended_by_the_next(tmp_path: Path, ups: list[Up]) -> None:
    ups.append(up := Up(tmp_path / "data"))
    up.wait_line("Ready")
    pids = up.pids()
    up.end(signal.SIGKILL)
    ups.append(following := Up(tmp_path / "data"))
    following.wait_line("Ready")
    assert [find(pid) for pid in pids] == [None] * 5
    assert following.end(signal.SIGTERM) == 0
