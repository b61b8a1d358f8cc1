"""What is measured at 500,000 tasks: speed and memory against 10,000, a restart, a takeover."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import statistics
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg
import grpc
import psutil

from pixloom.local.options import LocalStackOptions
from pixloom.local.stack import LocalStack
from pixloom.rpc.channel import aio_channel
from pixloom.v1 import job_pb2, job_pb2_grpc
from tests.bench import documents
from tests.bench.client import cancel_job, run_job, submit, until_tasks_done

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.bench.workloads import Bench

__all__ = ["restart", "takeover", "wide_fan_out"]

Figures = dict[str, Any]
Answer = TypeVar("Answer")

FEW: Final = 10_000
MANY: Final = 500_000
LEFT: Final = 50_000
"""Tasks that a job still has when its scheduler dies, so that there is something to dispatch."""

SMALL_JOBS: Final = 16
CALL_S: Final = 0.5
LIMIT_S: Final = 120.0


async def wide_fan_out(bench: Bench) -> Figures:
    """Speed at 500,000 tasks against 10,000 in the same run, and the most memory that the scheduler took."""
    await run_job(bench.channel, documents.fan_out(FEW))
    few = [FEW / (await run_job(bench.channel, documents.fan_out(FEW))).elapsed_s for _ in range(bench.runs)]
    small = bench.scheduler_mb()
    async with _peak_mb(bench) as peak:
        finished = await run_job(bench.channel, documents.fan_out(MANY))
    # Once more, as the machine may have become faster or slower meanwhile.
    few += [FEW / (await run_job(bench.channel, documents.fan_out(FEW))).elapsed_s for _ in range(bench.runs)]
    rate = statistics.median(few)
    return {
        "tasks": MANY,
        "tasks_per_s": round(MANY / finished.elapsed_s),
        "tasks_per_s_at_10000": round(rate),
        "ratio": round(MANY / finished.elapsed_s / rate, 3),
        "scheduler_mb_at_10000": round(small),
        "scheduler_mb_most": round(max(peak)),
    }


@contextlib.asynccontextmanager
async def _peak_mb(bench: Bench) -> AsyncIterator[list[float]]:
    """Look at the scheduler's memory every half second."""
    seen = [bench.scheduler_mb()]

    async def look() -> None:
        while True:
            await asyncio.sleep(0.5)
            seen.append(bench.scheduler_mb())

    task = asyncio.create_task(look())
    try:
        yield seen
    finally:
        seen.append(bench.scheduler_mb())
        task.cancel()


async def restart(bench: Bench) -> Figures:
    """Seconds from kill -9 of the scheduler, with 500,000 tasks of a job done, until it takes commands and goes on."""
    small = await _pending_job(bench.channel)
    big = await submit(bench.channel, documents.fan_out(MANY + LEFT))
    await until_tasks_done(bench.channel, big, done=MANY)
    pid = bench.stack.kill("scheduler")
    figures = await _recovery(bench.channel, big, [small])
    await bench.stack.wait_replaced("scheduler", pid)
    figures["scheduler_mb"] = round(bench.scheduler_mb())
    await cancel_job(bench.channel, big)
    return {"tasks_done": MANY, **figures}


async def takeover(bench: Bench) -> Figures:
    """Seconds from SIGSTOP of the owner of such a job until another scheduler serves its partitions; the lease is 3 s."""
    options = LocalStackOptions.from_settings(
        data_dir=bench.folder / "two", http_port=0, grpc_port=0, executors=1, schedulers=2
    )
    async with LocalStack(options, announce=lambda _: None) as stack, aio_channel(stack.grpc_address) as channel:
        smalls = [await _pending_job(channel) for _ in range(SMALL_JOBS)]
        big = await submit(channel, documents.fan_out(MANY + LEFT))
        await until_tasks_done(channel, big, done=MANY)
        owner = await _owner(stack, big)
        survivor = next(
            port
            for part, port in zip(_schedulers(stack), stack.wiring.scheduler_ports, strict=True)
            if stack.pid(part) != owner
        )
        # Not through the gateway, which takes a while to notice that a connection has gone silent without a word.
        async with aio_channel(f"127.0.0.1:{survivor}") as direct:
            process = psutil.Process(owner)
            process.send_signal(signal.SIGSTOP)
            try:
                figures = await _recovery(direct, big, smalls)
            finally:
                process.send_signal(signal.SIGCONT)
            await cancel_job(direct, big)
    return {"tasks_done": MANY, **figures}


def _schedulers(stack: LocalStack) -> list[str]:
    """Return the names of the schedulers, in the order of their ports."""
    return [part for part in stack.parts if part.startswith("scheduler")]


async def _owner(stack: LocalStack, job_id: str) -> int:
    """Return the pid of the scheduler that owns a job."""
    connection = await asyncpg.connect(stack.wiring.database_url)
    try:
        query = "SELECT owner FROM pixloom.partition WHERE id = $1"
        owner: str = await connection.fetchval(query, int(job_id[-2:], 16))
    finally:
        await connection.close()
    return int(owner.split(":")[1])


async def _pending_job(channel: grpc.aio.Channel) -> str:
    """Create a one-node job that waits to be started."""
    return await submit(channel, documents.one_node(), start=False)


async def _recovery(channel: grpc.aio.Channel, big: str, smalls: list[str]) -> Figures:
    """Send commands until they are taken, all at the same time; return the seconds from now that each took."""
    stub = job_pb2_grpc.JobServiceStub(channel)
    begin = time.perf_counter()

    async def others() -> float:
        await asyncio.gather(*(_insist(partial(stub.UpdateJob, _mark(job), timeout=CALL_S)) for job in smalls))
        return time.perf_counter() - begin

    async def new() -> float:
        await _insist(lambda: run_job(channel, documents.one_node()))
        return time.perf_counter() - begin

    async def same() -> tuple[float, float]:
        job = await _insist(partial(stub.UpdateJob, _mark(big), timeout=CALL_S))
        taken = time.perf_counter() - begin
        await _insist(lambda: until_tasks_done(channel, big, done=job.job.tasks.done + 1))
        return taken, time.perf_counter() - begin

    other_s, new_s, (same_s, dispatches_s) = await asyncio.gather(others(), new(), same())
    return {
        "other_jobs_take_commands_s": round(other_s, 2),
        "new_job_done_s": round(new_s, 2),
        "the_job_takes_commands_s": round(same_s, 2),
        "the_job_goes_on_s": round(dispatches_s, 2),
    }


def _mark(job_id: str) -> job_pb2.UpdateJobRequest:
    """Return a command that may be repeated: a tag."""
    request = job_pb2.UpdateJobRequest(job=job_pb2.Job(id=job_id, tags={"seen": "yes"}))
    request.update_mask.paths.append("tags")
    return request


async def _insist(call: Callable[[], Awaitable[Answer]]) -> Answer:
    """Make a call again until it is answered.

    Raises:
        TimeoutError: It was not within two minutes.
    """
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                answer = await call()
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise
                await asyncio.sleep(0.02)
            else:
                return answer
