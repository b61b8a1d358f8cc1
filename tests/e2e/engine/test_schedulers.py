"""Two schedulers that share the jobs: either answers for both, and one takes over what the other leaves."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
import pytest
import pytest_asyncio

from pixloom.errors import StateConflictError
from pixloom.rpc.channel import aio_channel
from pixloom.sdk.aio import AsyncClient
from pixloom.v1 import job_pb2, job_pb2_grpc
from pixloom_scheduler.rpc.forwarding import FORWARDED
from tests.support.engine import Engine, running_engine
from tests.support.lateness import Lateness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pixloom.resources import Job

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("engine-schedulers")]

LEASE_S = 3.0
COUNT = 60
SECONDS = 0.03


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    """A stack with two schedulers."""
    async with running_engine(tmp_path_factory.mktemp("engine"), schedulers=2) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def database(engine: Engine) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(engine.stack.wiring.database_url)
    yield connection
    await connection.close()


@pytest_asyncio.fixture(loop_scope="module")
async def direct(engine: Engine) -> AsyncIterator[list[AsyncClient]]:
    """Clients of the schedulers themselves, without the gateway."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(AsyncClient(f"127.0.0.1:{port}"))
            for port in engine.stack.wiring.scheduler_ports
        ]


def addresses(engine: Engine) -> list[str]:
    return [f"127.0.0.1:{port}" for port in engine.stack.wiring.scheduler_ports]


async def owned(database: Any) -> dict[str, int]:
    """Return how many partitions each scheduler owns, by address."""
    rows = await database.fetch(
        "SELECT address, count(*) AS n FROM pixloom.partition "
        "WHERE owner <> '' AND expires_at > clock_timestamp() GROUP BY address"
    )
    return {row["address"]: row["n"] for row in rows}


async def until_owned(database: Any, is_so: Callable[[dict[str, int]], bool], *, within_s: float) -> float:
    """Wait until the partitions are divided as asked; return how long that took, seconds."""
    since = time.monotonic()
    with Lateness() as late:
        while not is_so(standing := await owned(database)):
            assert time.monotonic() - since < within_s + late.seconds, standing
            await asyncio.sleep(0.02)
    return time.monotonic() - since


async def level(engine: Engine, database: Any) -> None:
    """Wait until both own eight partitions."""
    await until_owned(database, lambda standing: standing == dict.fromkeys(addresses(engine), 8), within_s=60)


async def owner_of(engine: Engine, database: Any, job: Job) -> tuple[str, str]:
    """Return part and address of the scheduler that owns a job."""
    address = await database.fetchval("SELECT address FROM pixloom.partition WHERE id = $1", int(job.id[-2:], 16))
    return f"scheduler-{addresses(engine).index(address) + 1}", address


async def test_new_jobs_go_to_both_and_either_answers_for_all(
    engine: Engine, database: Any, direct: list[AsyncClient]
) -> None:
    await level(engine, database)
    one_node = {"id": "n", "op": "debug.range", "params": {"count": 3}}
    jobs: list[Job] = []
    owners: set[str] = set()
    async with asyncio.timeout(60):
        # A gateway that found one of them not listening yet tries it again a moment later.
        while owners != {"scheduler-1", "scheduler-2"}:
            jobs.append(await engine.submit(one_node))
            owners.add((await owner_of(engine, database, jobs[-1]))[0])
    for client in direct:
        for job in jobs:
            ended = await client.wait_job(job.id, timeout_s=60)
            assert ended.state == "COMPLETED"
            assert [node.items.ok for node in await client.list_nodes(job.id)] == [3]


async def test_live_job_is_read_watched_and_commanded_at_the_scheduler_that_does_not_own_it(
    engine: Engine, direct: list[AsyncClient], database: Any
) -> None:
    await level(engine, database)
    nodes = [
        {"id": "numbers", "op": "debug.range", "params": {"count": 50}},
        {"id": "wait", "op": "debug.sleep", "inputs": {"items": "numbers"}, "params": {"seconds": 600}, "timeout_s": 900},
    ]  # fmt: skip
    first, second = direct
    job = await first.create_job(spec={"name": "test", "nodes": nodes}, tags={"a": "b"})
    seen = await second.get_job(job.id)
    assert (seen.name, seen.tags, seen.total_steps) == (job.name, {"a": "b"}, 2)
    (listed,) = [each async for each in second.iter_jobs(page_size=50) if each.id == job.id]
    assert (listed.name, listed.workflow, listed.tags, listed.create_time) == (
        job.name,
        job.workflow,
        {"a": "b"},
        job.create_time,
    )
    updates = second.watch_job(job.id)
    async with contextlib.aclosing(updates):
        first_update = await anext(aiter(updates))
        assert first_update is not None
    assert (await second.pause_job(job.id)).state == "PAUSED"
    assert (await first.get_job(job.id)).state == "PAUSED"
    assert (await second.cancel_job(job.id, now=True)).id == job.id
    ended = await second.wait_job(job.id, timeout_s=60)
    assert ended.state == "CANCELLED"
    with pytest.raises(StateConflictError, match="CANCELLED"):
        await second.pause_job(job.id)


async def test_call_that_was_passed_on_is_not_passed_on_again(
    engine: Engine, direct: list[AsyncClient], database: Any
) -> None:
    await level(engine, database)
    nodes = [
        {"id": "numbers", "op": "debug.range", "params": {"count": 1}},
        {"id": "wait", "op": "debug.sleep", "inputs": {"items": "numbers"}, "params": {"seconds": 60}},
    ]
    job = await direct[0].create_job(spec={"name": "test", "nodes": nodes})
    _, owner = await owner_of(engine, database, job)
    other = next(each for each in addresses(engine) if each != owner)
    passed_on = ((FORWARDED, "1"),)
    async with aio_channel(owner) as to_owner, aio_channel(other) as to_other:
        request = job_pb2.GetJobRequest(id=job.id)
        for metadata, channel in ((passed_on, to_owner), (None, to_owner), (None, to_other)):
            stub = job_pb2_grpc.JobServiceStub(channel)
            assert (await stub.GetJob(request, metadata=metadata, timeout=30)).job.id == job.id
        stub = job_pb2_grpc.JobServiceStub(to_other)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await stub.GetJob(request, metadata=passed_on, timeout=30)
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
        answer = await direct[1].cancel_all_jobs(workflow="test", now=True)
        assert answer >= 1
        assert (await direct[0].wait_job(job.id, timeout_s=60)).state == "CANCELLED"
        # One that has ended is read from the database by whoever is asked.
        assert (await stub.GetJob(request, metadata=passed_on, timeout=30)).job.id == job.id


async def test_same_request_at_both_schedulers_makes_one_job(
    engine: Engine, direct: list[AsyncClient], database: Any
) -> None:
    await level(engine, database)
    spec = {"name": "test", "nodes": [{"id": "n", "op": "debug.range", "params": {"count": 1}}]}
    for number in range(10):
        jobs = await asyncio.gather(*(client.create_job(spec=spec, request_id=f"same-{number}") for client in direct))
        again = await asyncio.gather(*(client.create_job(spec=spec, request_id=f"same-{number}") for client in direct))
        assert len({job.id for job in [*jobs, *again]}) == 1
        assert {job.name for job in [*jobs, *again]} == {"test"}
        count = await database.fetchval("SELECT count(*) FROM pixloom.job WHERE request_id = $1", f"same-{number}")
        assert count == 1


async def test_a_job_is_made_of_another_whoever_is_asked(
    engine: Engine, direct: list[AsyncClient], database: Any
) -> None:
    await level(engine, database)
    nodes = [
        {"id": "numbers", "op": "debug.range", "params": {"count": 6}},
        {"id": "first", "op": "debug.noop", "inputs": {"items": "numbers"}, "shard_size": 2, "fuse": False},
        {"id": "all", "op": "agg.manifest", "inputs": {"items": "first"}},
    ]
    for number, client in enumerate(direct):
        old = await client.create_job(spec={"name": "test", "nodes": nodes})
        await engine.finish(old.id)
        # The owner makes it, whichever was asked; asked again, both answer with the one job.
        asked = [
            await each.rerun_job(old.id, from_node="all", request_id=f"rerun-{number}") for each in (*direct, client)
        ]
        assert len({job.id for job in asked}) == 1
        ended = await engine.finish(asked[0].id)
        assert (ended.state, ended.items.ok) == ("COMPLETED", 6)
        firsts = await engine.attempts(ended.id, "first")
        assert ended.create_time is not None
        runs = {attempt.start_time is None or attempt.start_time >= ended.create_time for attempt in firsts}
        assert runs == {False}


async def test_jobs_of_both_outlive_a_scheduler_that_is_killed(
    engine: Engine, direct: list[AsyncClient], database: Any
) -> None:
    await level(engine, database)
    jobs = [await engine.begin(count=COUNT, seconds=SECONDS, client=client) for client in direct]
    part, address = await owner_of(engine, database, jobs[0])
    before = await database.fetchval("SELECT owner FROM pixloom.partition WHERE address = $1 LIMIT 1", address)
    since = time.monotonic()
    pid = engine.stack.kill(part)
    left = True
    with Lateness() as late:
        while left:
            assert time.monotonic() - since < LEASE_S + 1 + late.seconds
            left = await database.fetchval("SELECT count(*) FROM pixloom.partition WHERE owner IN ($1, '')", before) > 0
            await asyncio.sleep(0.005)
    taken_s = time.monotonic() - since
    sys.stdout.write(f"takeover after kill -9 with `up` watching: {taken_s:.3f} s\n")
    for job in jobs:
        assert {attempt.outcome for attempt in await engine.require_completed(job, count=COUNT)} == {"OK"}
    await engine.stack.wait_replaced(part, pid)
    await level(engine, database)


async def test_no_call_fails_while_a_scheduler_is_asked_to_end(
    engine: Engine, direct: list[AsyncClient], database: Any
) -> None:
    await level(engine, database)
    jobs = [await engine.begin(count=100, seconds=SECONDS, client=client) for client in direct]
    part, _ = await owner_of(engine, database, jobs[0])
    one_node = {"id": "n", "op": "debug.range", "params": {"count": 1}}
    done = asyncio.Event()
    more: list[Job] = []
    calls = 0

    async def use() -> None:
        nonlocal calls
        while not done.is_set():
            more.append(await engine.submit(one_node))
            for job in jobs:
                assert (await engine.client.get_job(job.id)).id == job.id
                calls += 1
            calls += 1

    async def watch(job: Job) -> list[int]:
        return [event.seq for event in await engine.events(job.id)]

    async with asyncio.TaskGroup() as tasks:
        users = [tasks.create_task(use()) for _ in range(3)]
        watchers = [tasks.create_task(watch(job)) for job in jobs]
        pid = engine.stack.kill(part, signal.SIGTERM)
        await engine.stack.wait_replaced(part, pid)
        for job in jobs:
            attempts = await engine.require_completed(job, count=100)
            assert {attempt.outcome for attempt in attempts} == {"OK"}
        done.set()
        await asyncio.gather(*users)
        sequences = await asyncio.gather(*watchers)
    for sequence in sequences:
        assert sequence == sorted(set(sequence))
    assert any(line.startswith(part) and "exit code 0" in line for line in engine.lines)
    for job in more:
        assert (await engine.finish(job.id)).state == "COMPLETED"
    sys.stdout.write(f"{calls} calls during the hand-over, none failed\n")
    await level(engine, database)


async def test_scheduler_that_was_stopped_past_its_lease_is_mute_when_it_goes_on(
    engine: Engine, direct: list[AsyncClient], database: Any
) -> None:
    await level(engine, database)
    jobs = [await engine.begin(count=150, seconds=SECONDS, client=client) for client in direct]
    part, address = await owner_of(engine, database, jobs[0])
    other = next(each for each in addresses(engine) if each != address)
    before = dict(await database.fetch("SELECT id, epoch FROM pixloom.partition WHERE address = $1", address))
    engine.stack.kill(part, signal.SIGSTOP)
    try:
        taken_s = await until_owned(database, lambda standing: standing.get(other) == 16, within_s=LEASE_S + 1)
        sys.stdout.write(f"takeover of an owner that was stopped: {taken_s:.3f} s after it\n")
        ended = await engine.finish(jobs[0].id)
        assert ended.state == "COMPLETED"
    finally:
        engine.stack.kill(part, signal.SIGCONT)
    for job in jobs:
        await engine.require_completed(job, count=150)
    await level(engine, database)
    after = dict(await database.fetch("SELECT id, epoch FROM pixloom.partition"))
    assert all(after[partition] > epoch for partition, epoch in before.items())
    assert engine.stack.pid(part) is not None
    refused = [line for line in engine.stack.log(part).read_text().splitlines() if "partitions_lost" in line]
    assert refused, "its first write after it went on was to be refused"
