"""How items, nodes and jobs end: retries, crashes, time limits, conditions, references, cancels, ops of users."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from pixloom.errors import AlreadyExistsError, StateConflictError
from tests.support.engine import Engine, node_of

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("engine-outcomes")]

MANY = 5000
"""So many tasks that they are not done by the time somebody has noticed that some of them are."""

RETRY = {"max_attempts": 4, "initial_backoff_s": 0.1, "multiplier": 2}


def numbers(count: Any, **more: Any) -> dict[str, Any]:
    return {"id": "numbers", "op": "debug.range", "params": {"count": count}, **more}


def step(op: str, *, behind: str = "numbers", name: str = "step", **more: Any) -> dict[str, Any]:
    return {"id": name, "op": op, "inputs": {"items": behind}, **more}


async def pids(engine: Engine) -> dict[str, int]:
    """Return the pids of both executors, by id, once they are in session."""
    executors = await engine.until_executors(lambda found: len(found) == 2)
    return {executor.id: executor.pid for executor in executors}


async def test_a_failing_task_is_tried_again_after_longer_and_longer_waits(engine: Engine) -> None:
    job = await engine.run(numbers(3), step("debug.fail", params={"times": 2}, retry=RETRY, shard_size=3))
    assert (job.state, job.items.ok) == ("COMPLETED", 3)
    attempts = await engine.attempts(job.id, "step")
    assert [(attempt.number, attempt.outcome, attempt.reason) for attempt in attempts] == [
        (1, "FAILED", "DEBUG"),
        (2, "FAILED", "DEBUG"),
        (3, "OK", None),
    ]
    for (before, after), wait_s in zip(pairwise(attempts), (0.1, 0.2), strict=True):
        assert before.end_time is not None
        assert after.start_time is not None
        # Jitter only ever adds; but the wait is measured by the database's clock and these times by the executor's.
        assert (after.start_time - before.end_time).total_seconds() >= wait_s * 0.8
    assert (await engine.node(job.id, "step")).retry_count == 2
    for attempt in attempts:
        found = await engine.http.get(f"/api/v1/attempts/{attempt.id}")
        assert (found.status_code, found.json()["id"]) == (200, attempt.id)
    for missing in (f"{attempts[0].task}.9", f"{job.id}.1.9.9.1", f"{job.id}.1.1.0.{1 << 70}"):
        assert (await engine.http.get(f"/api/v1/attempts/{missing}")).status_code == 404


async def test_items_are_rejected_when_no_attempt_is_left(engine: Engine) -> None:
    job = await engine.run(
        numbers(3),
        step(
            "debug.fail",
            params={"times": 99, "reason": "FLAKY"},
            retry={**RETRY, "max_attempts": 2, "initial_backoff_s": 0.05},
            shard_size=3,
        ),
        step("debug.noop", behind="step", name="after", fuse=False),
    )
    assert (job.state, job.items.rejected) == ("COMPLETED", 3)
    items = await engine.items(job.id, "step")
    assert [(item.key, item.state, item.reason) for item in items] == [
        (str(number), "REJECTED", "FLAKY") for number in range(3)
    ]
    assert [attempt.outcome for attempt in await engine.attempts(job.id, "step")] == ["FAILED", "OK"]
    assert await engine.items(job.id, "after") == []


async def test_what_cannot_help_is_not_tried_again(engine: Engine) -> None:
    job = await engine.run(numbers(2), step("debug.fail", params={"times": 1, "retryable": False}, retry=RETRY))
    assert (job.state, job.items.rejected) == ("COMPLETED", 2)
    assert [attempt.outcome for attempt in await engine.attempts(job.id, "step")] == ["OK"]


@pytest.mark.parametrize("mode", ["signal", "exit", "alloc"])
async def test_a_crash_rejects_the_item_it_was_on_and_no_other(engine: Engine, mode: str) -> None:
    before = await pids(engine)
    job = await engine.run(numbers(8), step("debug.crash", params={"at": [3], "mode": mode}, shard_size=8))
    assert (job.state, job.items.ok, job.items.rejected) == ("COMPLETED", 7, 1)
    items = {item.key: item for item in await engine.items(job.id, "step")}
    assert sorted(items) == [str(number) for number in range(8)]
    reason = "OUT_OF_MEMORY" if mode == "alloc" else "CRASHED"
    assert (items["3"].state, items["3"].reason) == ("REJECTED", reason)
    assert {item.state for key, item in items.items() if key != "3"} == {"OK"}
    assert await pids(engine) == before
    assert {engine.stack.pid(f"executor-{number}") for number in (1, 2)} == set(before.values())


async def test_an_item_that_hangs_is_rejected_at_its_time_limit(engine: Engine) -> None:
    before = await pids(engine)
    job = await engine.run(
        numbers(4), step("debug.crash", params={"at": [2], "mode": "hang"}, timeout_s=0.8, shard_size=4)
    )
    assert (job.state, job.items.ok, job.items.rejected) == ("COMPLETED", 3, 1)
    (rejected,) = [item for item in await engine.items(job.id, "step") if item.state == "REJECTED"]
    assert (rejected.key, rejected.reason) == ("2", "TIMEOUT")
    assert await pids(engine) == before


async def test_a_crash_fails_the_node_if_the_workflow_says_so(engine: Engine) -> None:
    job = await engine.run(
        numbers(4),
        step("debug.crash", params={"at": [2]}, on_error="fail"),
        step("debug.noop", behind="step", name="after"),
    )
    assert job.state == "FAILED"
    assert job.error is not None
    assert (job.error.reason, job.error.node) == ("CRASHED", "step")
    # The node is said once, by `node`; and no item came out at the end.
    assert "step" not in job.error.detail
    assert job.items.ok == 0
    assert (await engine.node(job.id, "after")).state == "SKIPPED"


async def test_a_node_whose_condition_is_false_is_skipped_with_all_behind_it(engine: Engine) -> None:
    job = await engine.run(
        numbers(3),
        step("debug.noop", when="nodes.numbers.ok > 5"),
        step("debug.noop", behind="step", name="fused"),
        step("debug.noop", behind="fused", name="apart", fuse=False),
        step("debug.noop", name="other", when="nodes.numbers.ok == 3"),
    )
    assert job.state == "COMPLETED"
    nodes = {node.id: node for node in await engine.nodes(job.id)}
    errors = {name: node.error for name, node in nodes.items() if node.error is not None}
    assert {name: (nodes[name].state, error.reason) for name, error in errors.items()} == {
        "step": ("SKIPPED", "WHEN_FALSE"),
        "fused": ("SKIPPED", "UPSTREAM_SKIPPED"),
        "apart": ("SKIPPED", "UPSTREAM_SKIPPED"),
    }
    assert "nodes.numbers.ok > 5" in errors["step"].detail
    assert (nodes["other"].state, nodes["other"].items.ok) == ("COMPLETED", 3)


async def test_ops_of_users_run_plain_and_async_on_items_collections_and_values(engine: Engine) -> None:
    job = await engine.run(
        {"id": "plan", "op": "tests.describe", "params": {"count": 5}},
        numbers("${nodes.plan.value.count}"),
        step("tests.number_of", params={"most": 3}, name="known"),
        step("tests.total", behind="known", name="total"),
        {"id": "sum", "op": "tests.add", "inputs": {"value": "total"}, "params": {"more": 100}},
        {"id": "more", "op": "tests.add", "inputs": {"value": "sum"}, "params": {"more": "${nodes.plan.value.count}"}},
        outputs={"sum": "more"},
    )
    assert (job.state, job.error) == ("COMPLETED", None)
    results = await engine.client.get_results(job.id)
    assert results.nodes["plan"].value == {"count": 5, "words": ["one", "two"]}
    assert results.nodes["total"].value == {"sum": 0 + 1 + 2 + 3, "count": 4}
    assert results.nodes["sum"].value == {"sum": 106}
    assert results.outputs["sum"].value == {"sum": 111}
    items = {item.key: item for item in await engine.items(job.id, "known")}
    assert {key: item.attributes for key, item in items.items() if item.state == "OK"} == {
        str(number): {"number": number} for number in range(4)
    }
    assert (items["4"].state, items["4"].reason) == ("FILTERED", "TOO_MANY")
    op = await engine.client.get_op("user.darken")
    assert (op.name, op.summary) == ("user.darken@2", "Make an image darker.")


async def test_a_cancelled_job_starts_nothing_new(engine: Engine) -> None:
    job = await engine.submit(numbers(MANY), step("debug.sleep", params={"seconds": 0.02}, shard_size=1))
    await engine.until(job.id, lambda snapshot: node_of(snapshot, "step").items.ok >= 10)
    asked = await engine.client.cancel_job(job.id, reason="seen enough")
    ended = await engine.finish(job.id)
    assert ended.state == "CANCELLED"
    attempts = await engine.attempts(job.id, "step")
    assert 10 <= len([attempt for attempt in attempts if attempt.outcome == "OK"]) < MANY
    # Another job runs through; had anything of the cancelled one been left, it would have come before.
    await engine.run(numbers(4), step("debug.noop", shard_size=1))
    assert (await engine.client.get_job(job.id)).seq == ended.seq >= asked.seq
    assert [attempt.id for attempt in await engine.attempts(job.id, "step")] == [attempt.id for attempt in attempts]
    assert (await engine.node(job.id, "step")).state == "CANCELLED"
    assert (await engine.client.cancel_job(job.id)).state == "CANCELLED"


async def test_cancelling_now_ends_what_runs(engine: Engine) -> None:
    job = await engine.submit(numbers(2), step("debug.sleep", params={"seconds": 600}, timeout_s=900, shard_size=1))
    await engine.until(job.id, lambda snapshot: node_of(snapshot, "step").state == "RUNNING")
    await engine.client.cancel_job(job.id, now=True)
    assert (await engine.finish(job.id)).state == "CANCELLED"
    # Both slots are free again.
    assert (await engine.run(numbers(4), step("debug.noop", shard_size=1))).state == "COMPLETED"


async def test_an_ended_job_cannot_be_cancelled(engine: Engine) -> None:
    job = await engine.run(numbers(1))
    with pytest.raises(StateConflictError) as caught:
        await engine.client.cancel_job(job.id)
    assert "COMPLETED" in str(caught.value)


async def test_a_request_sent_twice_makes_one_job(engine: Engine) -> None:
    jobs = await asyncio.gather(*(engine.submit(numbers(1), request_id="r-1") for _ in range(8)))
    assert len({job.id for job in jobs}) == 1
    await engine.finish(jobs[0].id)
    assert (await engine.submit(numbers(1), request_id="r-1")).id == jobs[0].id
    with pytest.raises(AlreadyExistsError):
        await engine.submit(numbers(2), request_id="r-1")
    body = {"spec": {"name": "w", "nodes": [numbers(1)]}}
    answers = [
        await engine.http.post("/api/v1/jobs", json=sent, headers={"Idempotency-Key": "k-1"})
        for sent in (body, body, {**body, "tags": {"a": "b"}})
    ]
    assert [answer.status_code for answer in answers] == [201, 201, 409]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert answers[2].json()["reason"] == "ALREADY_EXISTS"
