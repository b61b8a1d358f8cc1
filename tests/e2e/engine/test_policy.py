"""What a workflow says about failure, time and order, each rule as a user meets it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.engine import Engine, node_of
from tests.support.gate import Gate

if TYPE_CHECKING:
    from pathlib import Path

    from pixloom.resources import Node

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("engine-policy")]

SLACK_S = 0.1
"""By how much two clocks of one machine, the database's and an executor's, may disagree."""


def numbers(count: int, **more: Any) -> dict[str, Any]:
    return {"id": "numbers", "op": "debug.range", "params": {"count": count}, **more}


def step(op: str, *, behind: str = "numbers", name: str = "step", **more: Any) -> dict[str, Any]:
    return {"id": name, "op": op, "inputs": {"items": behind}, **more}


async def by_id(engine: Engine, job_id: str) -> dict[str, Node]:
    return {node.id: node for node in await engine.nodes(job_id)}


async def replace_scheduler(engine: Engine) -> None:
    await engine.stack.wait_replaced("scheduler", engine.stack.kill("scheduler"))
    await engine.stack.wait_ready()


async def test_nothing_is_tried_again_before_the_time_that_was_asked_for(engine: Engine) -> None:
    retry = {"max_attempts": 3, "initial_backoff_s": 0.05}
    job = await engine.run(numbers(2), step("tests.busy", params={"after_s": 1.5}, retry=retry, shard_size=2))
    assert (job.state, job.items.ok) == ("COMPLETED", 2)
    first, second = await engine.attempts(job.id, "step")
    assert (first.outcome, first.reason, second.outcome) == ("FAILED", "BUSY", "OK")
    assert first.end_time is not None
    assert second.start_time is not None
    assert (second.start_time - first.end_time).total_seconds() >= 1.5 - SLACK_S


async def test_invalid_input_of_a_source_is_not_tried_again(engine: Engine) -> None:
    job = await engine.run({"id": "photos", "op": "source.folder", "params": {"path": "/nowhere/at/all"}})
    assert job.state == "FAILED"
    (attempt,) = await engine.attempts(job.id, "photos")
    assert (attempt.outcome, attempt.number) == ("FAILED", 1)
    assert job.error is not None
    assert (job.error.node, job.error.reason) == ("photos", attempt.reason)


async def test_lost_attempts_do_not_count_against_the_retry_policy(engine: Engine, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    job = await engine.submit(numbers(1), gate.node("step", retry={"max_attempts": 1}))
    await engine.until(job.id, lambda snapshot: node_of(snapshot, "step").state == "RUNNING")
    pids = {executor.pid for executor in await engine.until_executors(lambda found: len(found) == 2)}
    names = {engine.stack.pid(name): name for name in ("executor-1", "executor-2")}
    for name in names.values():
        # One of them has it, and nobody says which.
        await engine.stack.wait_replaced(name, engine.stack.kill(name))
    gate.open()
    ended = await engine.finish(job.id)
    assert set(names) == pids
    assert (ended.state, ended.items.ok) == ("COMPLETED", 1)
    outcomes = [attempt.outcome for attempt in await engine.attempts(job.id, "step")]
    assert outcomes[-1] == "OK"
    assert set(outcomes[:-1]) == {"LOST"}


async def test_a_back_off_goes_on_over_a_restart_of_the_scheduler(engine: Engine) -> None:
    retry = {"max_attempts": 2, "initial_backoff_s": 5}
    job = await engine.submit(numbers(1), step("debug.fail", params={"times": 1}, retry=retry))
    snapshot = await engine.until(job.id, lambda snapshot: node_of(snapshot, "step").state == "RETRYING")
    reason = node_of(snapshot, "step").waiting_reason or ""
    assert reason.startswith("retry 1 of 1 in ")
    assert reason.endswith(" s")
    await replace_scheduler(engine)
    assert (await engine.finish(job.id)).state == "COMPLETED"
    first, second = await engine.attempts(job.id, "step")
    assert first.end_time is not None
    assert second.start_time is not None
    waited_s = (second.start_time - first.end_time).total_seconds()
    assert 5 - SLACK_S <= waited_s < 5 * 1.1 + 30


async def test_a_job_ends_at_its_time_limit_over_a_restart_of_the_scheduler(engine: Engine) -> None:
    job = await engine.submit(
        numbers(1), step("debug.sleep", params={"seconds": 600}, timeout_s=900), name="slow", timeout_s=4
    )
    await replace_scheduler(engine)
    ended = await engine.finish(job.id)
    assert (ended.state, ended.reason) == ("FAILED", "JOB_TIMEOUT")
    assert ended.error is not None
    assert ended.error.detail == "the job did not end within its 4 s"
    assert ended.start_time is not None
    assert ended.end_time is not None
    assert timedelta(seconds=4) <= ended.end_time - ended.start_time < timedelta(seconds=60)
    assert (await engine.node(job.id, "step")).state == "CANCELLED"


@pytest.mark.parametrize(
    ("on_error", "state", "items"),
    [
        ("quarantine", "COMPLETED", {"TOO_LITTLE": "REJECTED"}),
        ("skip", "COMPLETED", {"TOO_LITTLE": "FILTERED"}),
        ("fail", "FAILED", {}),
    ],
)
async def test_on_error_decides_what_becomes_of_a_refused_item(
    engine: Engine, on_error: str, state: str, items: dict[str, str]
) -> None:
    job = await engine.run(numbers(4), step("tests.refuse", params={"below": 2}, on_error=on_error, shard_size=4))
    assert job.state == state
    found = await engine.items(job.id, "step")
    assert {item.reason: item.state for item in found if item.state != "OK"} == items
    if state == "FAILED":
        assert job.error is not None
        assert (job.error.reason, job.error.node) == ("TOO_LITTLE", "step")
        assert [attempt.outcome for attempt in await engine.attempts(job.id, "step")] == ["FAILED"]
    else:
        assert len([item for item in found if item.state == "OK"]) == 2


async def test_too_many_rejects_fail_a_node_when_it_ends(engine: Engine) -> None:
    job = await engine.run(
        numbers(10),
        step("tests.refuse", params={"below": 3}, max_failed_ratio=0.2, shard_size=1),
        step("debug.noop", behind="step", name="ahead", fuse=False),
        step("tests.publish", behind="ahead", name="outside"),
        step("tests.count_items", behind="ahead", name="counted"),
        step("debug.noop", name="elsewhere", fuse=False),
    )
    assert job.state == "FAILED"
    assert job.error is not None
    assert (job.error.reason, job.error.node) == ("MAX_FAILED_RATIO", "step")
    nodes = await by_id(engine, job.id)
    assert (nodes["step"].items.ok, nodes["step"].items.rejected) == (7, 3)
    assert {name: node.state for name, node in nodes.items()} == {
        "numbers": "COMPLETED",
        "step": "FAILED",
        "ahead": "SKIPPED",
        "outside": "SKIPPED",
        "counted": "SKIPPED",
        "elsewhere": "COMPLETED",
    }
    # A pure item op may have run ahead; what is seen outside and what reads everything has waited.
    assert await engine.attempts(job.id, "outside") == []
    assert await engine.attempts(job.id, "counted") == []
    errors = {name: node.error for name, node in nodes.items() if node.state == "SKIPPED"}
    assert {error.reason for error in errors.values() if error} == {"UPSTREAM_FAILED"}
    assert {error.detail for error in errors.values() if error} == {"node step failed"}


async def test_rejects_within_the_ratio_fail_nothing(engine: Engine) -> None:
    job = await engine.run(
        numbers(10),
        step("tests.refuse", params={"below": 2}, max_failed_ratio=0.2, shard_size=1),
        step("tests.count_items", behind="step", name="counted"),
    )
    assert (job.state, job.items.rejected) == ("COMPLETED", 2)
    results = await engine.client.get_results(job.id)
    assert results.nodes["counted"].value == {"count": 8}


async def test_independent_branches_finish_and_descendants_tell_whose_fault_it_was(engine: Engine) -> None:
    job = await engine.run(
        numbers(3),
        step("tests.refuse", params={"below": 1}, on_error="fail", name="bad", fuse=False),
        step("debug.noop", behind="bad", name="child", fuse=False),
        step("debug.noop", behind="child", name="grandchild", fuse=False),
        step("debug.sleep", params={"seconds": 0.2}, name="good", fuse=False),
        {"id": "after", "op": "debug.noop", "dependencies": ["grandchild", "good"]},
    )
    nodes = await by_id(engine, job.id)
    assert job.state == "FAILED"
    assert {name: node.state for name, node in nodes.items()} == {
        "numbers": "COMPLETED",
        "bad": "FAILED",
        "child": "SKIPPED",
        "grandchild": "SKIPPED",
        "good": "COMPLETED",
        "after": "SKIPPED",
    }
    for name in ("child", "grandchild", "after"):
        error = nodes[name].error
        assert error is not None
        assert (error.reason, error.detail) == ("UPSTREAM_FAILED", "node bad failed")


async def test_dependencies_order_nodes_with_and_without_data(engine: Engine) -> None:
    job = await engine.run(
        numbers(2),
        step("debug.sleep", params={"seconds": 0.3}, name="slow", fuse=False),
        step("debug.noop", name="with_data", dependencies=["slow"]),
        {"id": "without", "op": "debug.noop", "dependencies": ["slow", "with_data"]},
    )
    assert job.state == "COMPLETED"
    nodes = await by_id(engine, job.id)
    assert nodes["with_data"].dependencies == ["numbers", "slow"]
    assert nodes["without"].dependencies == ["slow", "with_data"]
    for before, after in (("slow", "with_data"), ("with_data", "without")):
        end, start = nodes[before].end_time, nodes[after].start_time
        assert end is not None
        assert start is not None
        assert end <= start + timedelta(seconds=SLACK_S)
    assert nodes["with_data"].items.ok == 2


async def test_values_of_nodes_keep_their_types_in_params(engine: Engine) -> None:
    given = {"whole": 3, "part": 1.5, "text": "x", "yes": True, "none": None, "list": [1, "2"], "table": {"a": [2.0]}}
    job = await engine.run(
        {"id": "first", "op": "tests.echo", "params": {"given": given}},
        {
            "id": "second",
            "op": "tests.echo",
            "params": {"given": {name: f"${{nodes.first.value.given.{name}}}" for name in given}},
        },
        {"id": "third", "op": "tests.echo", "params": {"given": "all: ${nodes.first.value.given.whole}"}},
    )
    assert job.state == "COMPLETED", job.error
    results = await engine.client.get_results(job.id)
    value = results.nodes["second"].value
    assert value == {"given": given}
    assert [type(entry) for entry in value["given"].values()] == [type(entry) for entry in given.values()]
    assert results.nodes["third"].value == {"given": "all: 3"}


async def test_the_authors_estimate_is_shown_and_used(engine: Engine, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    job = await engine.submit(
        numbers(2),
        gate.node("step", fuse=False),
        {"id": "later", "op": "debug.noop", "dependencies": ["step"], "estimated_duration_s": 500},
    )
    snapshot = await engine.until(job.id, lambda snapshot: node_of(snapshot, "step").state == "RUNNING")
    assert node_of(snapshot, "later").estimated_duration_s == 500
    assert snapshot.job.estimated_duration_s is not None
    assert 500 <= snapshot.job.estimated_duration_s < 600
    gate.open()
    await engine.finish(job.id)
    assert (await engine.node(job.id, "later")).estimated_duration_s == 500
