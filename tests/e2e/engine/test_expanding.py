"""Ops that make several items of one: what they make is spread, rejected, crashed and retried item by item."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import asyncpg
import orjson
import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.engine import Engine

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("engine-expanding")]


def numbers(count: int) -> dict[str, Any]:
    return {"id": "numbers", "op": "debug.range", "params": {"count": count}}


def step(op: str, name: str, *, behind: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "op": op, "inputs": {"items": behind}, **more}


async def counts(engine: Engine, job_id: str, name: str) -> tuple[int, int, int]:
    """Return how many items are OK, FILTERED and REJECTED at a node, which its items must confirm."""
    node = await engine.node(job_id, name)
    states = Counter(str(item.state) for item in await engine.items(job_id, name))
    found = (node.items.ok, node.items.filtered, node.items.rejected)
    assert found == (states["OK"], states["FILTERED"], states["REJECTED"])
    return found


async def store_fused(engine: Engine, job_id: str) -> None:
    """Give a job of three stages the plan of a planner that fuses whatever is behind an op that expands."""
    connection = await asyncpg.connect(engine.stack.wiring.database_url)
    try:
        plan = orjson.loads(await connection.fetchval("SELECT plan FROM pixloom.job WHERE id = $1", job_id))
        for node in plan["nodes"]:
            del node["expands"]
            node["stage"] = min(node["stage"], 1)
        last = plan["stages"].pop()
        plan["stages"][-1]["nodes"] += last["nodes"]
        await connection.execute("UPDATE pixloom.job SET plan = $2 WHERE id = $1", job_id, orjson.dumps(plan))
    finally:
        await connection.close()


async def test_rejected_parts_of_an_item_are_retried_and_no_others(engine: Engine, tmp_path: Path) -> None:
    late, log = ["0-3", "2-0", "2-4"], tmp_path / "log"
    nodes = (
        numbers(4),
        step("debug.noop", "before", behind="numbers", shard_size=2),
        step("tests.split", "split", behind="before", params={"into": 5}),
        step(
            "tests.admit",
            "admit",
            behind="split",
            params={"path": str(tmp_path / "open"), "late": late, "log": str(log)},
            shard_size=4,
        ),
        step("debug.noop", "after", behind="admit"),
        step("tests.count_items", "count", behind="after"),
    )
    plan = await engine.client.plan_workflow(spec={"name": "test", "nodes": list(nodes)})
    assert [(stage.nodes, stage.boundary) for stage in plan.stages][1:3] == [
        (["before", "split"], "reads the items of numbers"),
        (["admit", "after"], "split may make several items of one"),
    ]
    job = await engine.run(*nodes)
    assert (job.state, job.items.ok, job.items.rejected) == ("COMPLETED", 17, 3)
    assert await counts(engine, job.id, "split") == (20, 0, 0)
    assert await counts(engine, job.id, "admit") == (17, 0, 3)
    parts = [item.ordinal for item in await engine.items(job.id, "split")]
    assert sorted(parts) == [[number, part] for number in range(4) for part in range(5)]
    # Each shard of two items gave ten, which are cut into shards of their own.
    assert len(await engine.attempts(job.id, "admit")) == 6

    (tmp_path / "open").touch()
    await engine.client.retry_job(job.id)
    again = await engine.finish(job.id)
    assert (again.state, again.generation, again.items.ok, again.items.rejected) == ("COMPLETED", 2, 20, 0)
    for name in ("split", "admit", "after"):
        assert await counts(engine, job.id, name) == (20, 0, 0)
    every = [f"{number}-{part}" for number in range(4) for part in range(5)]
    assert Counter(log.read_text().split()) == Counter([*every, *late])
    assert {attempt.generation for attempt in await engine.attempts(job.id, "split")} == {1}
    results = await engine.client.get_results(job.id)
    assert results.nodes["count"].value == {"count": 20}


async def test_an_op_that_makes_several_items_of_one_says_so_at_every_door(engine: Engine) -> None:
    ops = {op.name: op.expands for op in await engine.client.list_ops()}
    assert (ops["tests.split@1"], ops["tests.admit@1"], ops["debug.noop@1"]) == (True, False, False)
    answer = await engine.http.get("/api/v1/ops/tests.split")
    assert answer.json()["expands"] is True
    command = (sys.executable, "-m", "pixloom.cli", "--server", engine.stack.grpc_address, "ops", "show", "tests.split")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    shown, _ = await process.communicate()
    assert "may make several items of one" in shown.decode()


async def test_a_part_that_takes_its_process_down_costs_only_itself(engine: Engine) -> None:
    job = await engine.run(
        numbers(1),
        step("tests.split", "split", behind="numbers", params={"into": 8}),
        step("debug.crash", "crash", behind="split", params={"at": [3]}, shard_size=8),
        step("debug.noop", "after", behind="crash"),
    )
    assert job.state == "COMPLETED"
    assert await counts(engine, job.id, "split") == (8, 0, 0)
    assert await counts(engine, job.id, "crash") == (7, 0, 1)
    assert await counts(engine, job.id, "after") == (7, 0, 0)
    rejected = [(item.key, item.reason) for item in await engine.items(job.id, "crash") if item.reason]
    assert rejected == [("0-3", "CRASHED")]


async def test_a_job_whose_stored_plan_has_such_an_op_inside_a_stage_runs_as_it_was_cut(
    engine: Engine, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    job = await engine.submit(
        numbers(3),
        step("tests.split", "split", behind="numbers", params={"into": 4}),
        step(
            "tests.admit",
            "admit",
            behind="split",
            params={"path": str(tmp_path / "open"), "late": ["1-2"], "log": str(log)},
        ),
        start=False,
    )
    await store_fused(engine, job.id)
    await engine.stack.wait_replaced("scheduler", engine.stack.kill("scheduler"))
    await engine.stack.wait_ready()
    await engine.client.start_job(job.id)
    ended = await engine.finish(job.id)
    assert (ended.state, ended.items.ok, ended.items.rejected) == ("COMPLETED", 11, 1)
    stages = {attempt.task for name in ("split", "admit") for attempt in await engine.attempts(job.id, name)}
    assert len(stages) == 1
    nodes = {node.id: (node.items.ok, node.items.rejected) for node in await engine.nodes(job.id)}
    assert nodes == {"numbers": (3, 0), "split": (12, 0), "admit": (11, 1)}

    # What was rejected is not among what its task read, so it stays as it is.
    (tmp_path / "open").touch()
    await engine.client.retry_job(job.id)
    again = await engine.finish(job.id)
    assert (again.state, again.generation, again.items.ok, again.items.rejected) == ("COMPLETED", 2, 11, 1)
    assert sorted(log.read_text().split()) == [f"{number}-{part}" for number in range(3) for part in range(4)]


async def test_an_item_of_which_a_part_cannot_be_stored_is_rejected_and_retried_itself(
    engine: Engine, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    job = await engine.run(
        numbers(3),
        step("tests.split", "split", behind="numbers", params={"into": 4, "whole": str(whole)}, shard_size=3),
        step("debug.noop", "after", behind="split"),
    )
    assert job.state == "COMPLETED"
    assert await counts(engine, job.id, "split") == (8, 0, 1)
    rejected = [(item.key, item.ordinal) for item in await engine.items(job.id, "split") if item.reason]
    assert rejected == [("1", [1])]

    whole.touch()
    await engine.client.retry_job(job.id, reasons=["BAD_ATTRIBUTES"])
    again = await engine.finish(job.id)
    assert (again.state, again.items.ok, again.items.rejected) == ("COMPLETED", 12, 0)
    assert await counts(engine, job.id, "split") == await counts(engine, job.id, "after") == (12, 0, 0)
    assert sorted(item.ordinal for item in await engine.items(job.id, "after")) == [
        [number, part] for number in range(3) for part in range(4)
    ]
