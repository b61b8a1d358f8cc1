"""Why nodes wait, as REST, gRPC and the command line tell it; what no executor can run, and draining executors."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from pixloom.errors import NotFoundError
from tests.support.engine import Engine, node_of
from tests.support.gate import Gate

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("engine-waiting")]

NUMBERS = {"id": "numbers", "op": "debug.range", "params": {"count": 2}}


def step(op: str, *, behind: str = "numbers", name: str = "step", **more: Any) -> dict[str, Any]:
    return {"id": name, "op": op, "inputs": {"items": behind}, **more}


async def cli(engine: Engine, *words: str) -> str:
    """Run the command line against the engine and return what it prints."""
    command = [sys.executable, "-m", "pixloom.cli", "--server", engine.stack.grpc_address, *words]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, env={**os.environ, "COLUMNS": "200"}
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def test_every_waiting_node_says_why(engine: Engine) -> None:
    job = await engine.submit(
        NUMBERS,
        step("debug.sleep", params={"seconds": 600}, timeout_s=900, name="slow", shard_size=1),
        step("debug.noop", behind="slow", name="fused"),
        step("debug.noop", behind="fused", name="streams", fuse=False),
        step("agg.manifest", behind="streams", name="whole"),
        {"id": "after", "op": "debug.noop", "dependencies": ["numbers", "slow", "whole"]},
        {"id": "elsewhere", "op": "debug.noop", "pool": "gpu"},
    )
    await engine.until(job.id, lambda snapshot: node_of(snapshot, "slow").state == "RUNNING")
    expected = {
        "numbers": None,
        "slow": None,
        "fused": None,
        "streams": "waits for items of fused",
        "whole": "0 of 1 dependency has ended, waits for streams",
        "after": "1 of 3 dependencies have ended, waits for slow and whole",
        "elsewhere": "no executor serves pool gpu",
    }
    await engine.until_waits(job.id, "streams", "waits for items of fused")
    assert {node.id: node.waiting_reason for node in await engine.nodes(job.id)} == expected
    rest = (await engine.http.get(f"/api/v1/jobs/{job.id}/nodes")).json()
    assert {
        node["id"]: node["waiting_reason"] for node in (rest["items"] if isinstance(rest, dict) else rest)
    } == expected
    table = await cli(engine, "get", job.id)
    for reason in filter(None, expected.values()):
        assert reason in table
    await engine.client.cancel_job(job.id, now=True)
    assert {node.waiting_reason for node in await engine.nodes((await engine.finish(job.id)).id)} == {None}


async def test_a_job_that_was_not_started_and_one_that_is_paused_say_so(engine: Engine) -> None:
    job = await engine.submit(NUMBERS, start=False)
    assert (await engine.node(job.id, "numbers")).waiting_reason == "the job has not been started"
    await engine.client.cancel_job(job.id)
    blocked = await engine.submit({"id": "only", "op": "debug.noop", "pool": "gpu"})
    await engine.client.pause_job(blocked.id)
    assert (await engine.node(blocked.id, "only")).waiting_reason == "paused"
    await engine.client.cancel_job(blocked.id)


async def test_a_drained_executor_gives_back_finishes_and_leaves_and_nothing_is_lost(
    engine: Engine, tmp_path: Path
) -> None:
    gate = Gate(tmp_path)
    job = await engine.submit(
        {"id": "numbers", "op": "debug.range", "params": {"count": 120}}, gate.node("step", free=40)
    )
    await gate.until_waiting(2)  # one at each executor
    before = await engine.until_executors(lambda found: all(executor.busy for executor in found))
    first, second = before
    assert {executor.slots for executor in before} == {1}
    assert all(executor.pools == ["cpu", "net"] and "debug.sleep@1" in executor.ops for executor in before)
    assert all(executor.last_seen_time and executor.start_time for executor in before)
    answer = await engine.http.post(f"/api/v1/executors/{first.id}:drain")
    assert answer.status_code == 200
    assert (answer.json()["id"], answer.json()["draining"]) == (first.id, True)
    # Again, while it drains or has gone: the same, or not found.
    again = await engine.http.post(f"/api/v1/executors/{first.id}:drain")
    assert again.status_code in (200, 404)
    gate.open()
    ended = await engine.finish(job.id)
    assert (ended.state, ended.items.ok) == ("COMPLETED", 120)
    attempts = await engine.require_each_once(job.id, "step", 120)
    # What it had not started went to the other one without an attempt of its own.
    assert {attempt.outcome for attempt in attempts} == {"OK"}
    assert len(attempts) == 120
    drained = max(a.start_time for a in attempts if a.executor_id == first.id and a.start_time)
    assert any(a.executor_id == second.id and a.start_time and a.start_time > drained for a in attempts)
    # `up` puts a fresh one in its place.
    after = await engine.until_executors(
        lambda found: len(found) == 2 and first.id not in {executor.id for executor in found}
    )
    assert {executor.draining for executor in after} == {False}


async def test_executors_are_listed_and_drained_by_the_command_line(engine: Engine, tmp_path: Path) -> None:
    first, second = await engine.until_executors(lambda found: len(found) == 2)
    gate = Gate(tmp_path)
    job = await engine.submit(NUMBERS, gate.node("step"))
    await engine.until(job.id, lambda snapshot: node_of(snapshot, "step").state == "RUNNING")
    await engine.until_executors(lambda found: all(executor.busy == 1 for executor in found))
    printed = await cli(engine, "executors", "drain", first.id[:12])
    assert printed.startswith(f"executor {first.id} is draining; 1 of 1 slots are busy")
    gate.open()
    assert (await engine.finish(job.id)).state == "COMPLETED"
    assert {attempt.outcome for attempt in await engine.attempts(job.id, "step")} == {"OK"}
    await engine.until_executors(lambda found: len(found) == 2 and first.id not in {entry.id for entry in found})
    listed = await cli(engine, "executors", "list")
    assert second.id in listed
    assert first.id not in listed
    with pytest.raises(NotFoundError):
        await engine.client.drain_executor("nobody")


async def test_what_no_executor_offers_waits_and_says_so_and_holds_up_nobody(engine: Engine) -> None:
    await engine.run({"id": "first", "op": "tests.echo", "params": {"given": 1}})
    # Both executors come back without the ops of users.
    for name in ("executor-1", "executor-2"):
        await engine.stack.stop_part(name)
    waiting = await engine.submit({"id": "own", "op": "tests.echo", "params": {"given": 1}})
    await engine.until_waits(waiting.id, "own", "no executor serves pool cpu")
    environment = {
        **os.environ,
        **{name: value for name, value in _environment_of(engine).items() if name.startswith("PIXLOOM_")},
        "PIXLOOM_EXECUTOR_IMPORTS": "",
    }
    plain = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pixloom_executor", env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        await engine.until_waits(waiting.id, "own", "no executor of pool cpu offers tests.echo@1")
        assert (await engine.run({"id": "other", "op": "debug.noop"})).state == "COMPLETED"
        await engine.stack.start_part("executor-1")
        assert (await engine.finish(waiting.id)).state == "COMPLETED"
        # With both in one pool, batches find the executor that has their ops.
        for _ in range(10):
            assert (await engine.run({"id": "own", "op": "tests.echo", "params": {"given": 1}})).state == "COMPLETED"
    finally:
        plain.terminate()
        await plain.wait()
        await engine.stack.start_part("executor-2")


def _environment_of(engine: Engine) -> dict[str, str]:
    """Return the environment of the scheduler, which names database, queue and addresses."""
    pid = engine.stack.pid("scheduler")
    assert pid is not None
    found = psutil.Process(pid).environ()
    return {**found, "PIXLOOM_SCHEDULER_ADDRESSES": found["PIXLOOM_SCHEDULER_LISTEN"], "PIXLOOM_EXECUTOR_SLOTS": "1"}
