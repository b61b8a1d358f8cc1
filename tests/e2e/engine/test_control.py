"""Verbs that steer jobs, over real processes: what they end, what they keep, and what a restart of the scheduler keeps."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pixloom.errors import InvalidError, NotFoundError, StateConflictError
from tests.support.engine import Engine, node_of
from tests.support.gate import Gate

if TYPE_CHECKING:
    from pathlib import Path

    from pixloom.resources import Job

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("engine-control")]

LONG_S = 600
WAITING = {"name": "waiting", "nodes": [{"id": "numbers", "op": "debug.range", "params": {"count": 3}}]}
SIZED = {
    "name": "sized",
    "params": {"count": {"type": "integer", "minimum": 1}, "seconds": {"type": "number", "default": 0}},
    "nodes": [
        {"id": "numbers", "op": "debug.range", "params": {"count": "${params.count}"}},
        {"id": "wait", "op": "debug.sleep", "inputs": {"items": "numbers"}, "params": {"seconds": "${params.seconds}"}},
    ],
}


def sleeping(seconds: float, count: int = 6) -> tuple[dict[str, Any], dict[str, Any]]:
    wait: dict[str, Any] = {"id": "wait", "op": "debug.sleep", "inputs": {"items": "numbers"}}
    return (
        {"id": "numbers", "op": "debug.range", "params": {"count": count}},
        {**wait, "params": {"seconds": seconds}, "shard_size": 1, "timeout_s": 2 * LONG_S, "estimated_duration_s": 1},
    )


async def under_way(engine: Engine, *nodes: dict[str, Any]) -> Job:
    """Submit a job of slow tasks and return when every executor runs one.

    Args:
        engine: The stack.
        nodes: What the job has, `wait` among them; tasks that sleep longer than any test unless given.
    """
    job = await engine.submit(*(nodes or sleeping(LONG_S)))
    await engine.until(job.id, lambda snapshot: node_of(snapshot, "wait").state == "RUNNING")
    await until_busy(engine, 2)
    return job


async def until_busy(engine: Engine, slots: int, *, within_s: float = 60) -> None:
    """Wait until both executors say by their heartbeats that so many slots are in use."""
    since = time.monotonic()
    while True:
        busy = [executor.busy for executor in await engine.client.list_executors()]
        if len(busy) == 2 and sum(busy) == slots:
            return
        assert time.monotonic() - since < within_s, f"{busy} slots are in use after {within_s} s, not {slots}"
        await asyncio.sleep(0.05)


async def until_told(engine: Engine, *, within_s: float = 60) -> None:
    """Wait until both executors have read what they were told so far: they have been heard of for two seconds since."""
    begin = max(executor.last_seen_time for executor in await engine.client.list_executors() if executor.last_seen_time)
    since = time.monotonic()
    while True:
        seen = [executor.last_seen_time for executor in await engine.client.list_executors()]
        # Heartbeats come each second, and what is told comes before the replies to them.
        if len(seen) == 2 and all(at is not None and at > begin + timedelta(seconds=2) for at in seen):
            return
        assert time.monotonic() - since < within_s, f"executors were last heard of at {seen}"
        await asyncio.sleep(0.05)


def behind(gate: Gate, count: int = 6) -> tuple[dict[str, Any], dict[str, Any]]:
    return ({"id": "numbers", "op": "debug.range", "params": {"count": count}}, gate.node("wait"))


async def restart_scheduler(engine: Engine) -> None:
    """Kill the scheduler and return when another has taken over."""
    await engine.stack.wait_replaced("scheduler", engine.stack.kill("scheduler"))
    await engine.stack.wait_ready()


async def test_pause_now_gives_running_tasks_back_and_they_run_again_as_the_same_attempt(engine: Engine) -> None:
    job = await under_way(engine, *sleeping(LONG_S, count=2))
    paused = await engine.client.pause_job(job.id, now=True)
    assert paused.state == "PAUSED"
    await until_busy(engine, 0)
    assert await engine.attempts(job.id, "wait") == []
    assert (await engine.client.pause_job(job.id, now=True)).state == "PAUSED"

    resumed = await engine.client.resume_job(job.id)
    assert resumed.state == "RUNNING"
    await until_busy(engine, 2)
    await engine.client.cancel_job(job.id, now=True)
    await until_busy(engine, 0)


async def test_plain_pause_lets_running_tasks_finish_and_starts_no_other(engine: Engine, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    job = await under_way(engine, *behind(gate))
    await engine.client.pause_job(job.id)
    await until_told(engine)
    gate.open()
    await until_busy(engine, 0)
    # Executors say that they are free as soon as they are: what they have done may not be durable yet.
    await engine.until(job.id, lambda snapshot: node_of(snapshot, "wait").tasks.done == 2)
    attempts = await engine.attempts(job.id, "wait")
    assert [attempt.outcome for attempt in attempts] == ["OK", "OK"]
    node = await engine.node(job.id, "wait")
    assert node.waiting_reason == "paused"

    await engine.client.resume_job(job.id)
    ended = await engine.finish(job.id)
    assert (ended.state, ended.items.ok) == ("COMPLETED", 6)
    assert {attempt.number for attempt in await engine.require_each_once(job.id, "wait", 6)} == {1}


async def test_pause_now_after_a_pause_takes_back_what_still_runs(engine: Engine) -> None:
    job = await under_way(engine)
    await engine.client.pause_job(job.id)
    assert sum(executor.busy for executor in await engine.client.list_executors()) == 2
    await engine.client.pause_job(job.id, now=True)
    await until_busy(engine, 0)
    await engine.client.cancel_job(job.id)
    assert (await engine.finish(job.id)).state == "CANCELLED"


async def test_cancel_now_ends_the_job_and_its_running_tasks_at_once(engine: Engine) -> None:
    job = await under_way(engine)
    cancelled = await engine.client.cancel_job(job.id, now=True, reason="enough")
    assert cancelled.state == "CANCELLED"
    assert {node.state for node in await engine.nodes(job.id)} == {"COMPLETED", "CANCELLED"}
    await until_busy(engine, 0)
    assert (await engine.client.cancel_job(job.id, now=True)).state == "CANCELLED"


async def test_cancel_waits_for_running_tasks_and_starts_no_other(engine: Engine, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    job = await under_way(engine, *behind(gate))
    assert (await engine.client.cancel_job(job.id)).state == "RUNNING"
    await until_told(engine)
    gate.open()
    ended = await engine.finish(job.id)
    assert ended.state == "CANCELLED"
    attempts = await engine.attempts(job.id, "wait")
    assert len([attempt for attempt in attempts if attempt.outcome == "OK"]) == 2
    assert ended.items.ok == 2


async def test_cancelled_work_makes_room_for_others_at_once(engine: Engine) -> None:
    # The dispatcher notices by itself as well, but only what it offered ten seconds ago: three times that is too long.
    async with asyncio.timeout(28):
        for _ in range(3):
            big = await engine.submit(*sleeping(LONG_S, count=200))
            await until_busy(engine, 2)
            await engine.client.cancel_job(big.id, now=True)
            assert (await engine.run({"id": "numbers", "op": "debug.range", "params": {"count": 3}})).items.ok == 3


@pytest.mark.parametrize("now", [False, True])
async def test_a_pause_outlives_the_scheduler(engine: Engine, *, now: bool) -> None:
    job = await under_way(engine)
    await engine.client.pause_job(job.id, now=now)
    await restart_scheduler(engine)
    assert (await engine.client.get_job(job.id)).state == "PAUSED"
    await until_busy(engine, 0 if now else 2)
    await engine.client.resume_job(job.id)
    await until_busy(engine, 2)
    await engine.client.cancel_job(job.id, now=True)
    await until_busy(engine, 0)
    await restart_scheduler(engine)
    assert (await engine.client.get_job(job.id)).state == "CANCELLED"


async def test_executors_hear_of_a_pause_that_they_missed(engine: Engine) -> None:
    job = await under_way(engine)
    # The scheduler is gone before its cancel can have ended anything for sure; what it had journaled holds.
    await engine.client.pause_job(job.id, now=True)
    await restart_scheduler(engine)
    await until_busy(engine, 0)
    assert (await engine.client.cancel_job(job.id)).id == job.id
    assert (await engine.finish(job.id)).state == "CANCELLED"


async def test_two_steps_give_the_params_at_the_start(engine: Engine) -> None:
    answer = await engine.http.post("/api/workflow", json=SIZED)
    assert answer.status_code == 201
    execution = answer.json()["execution_id"]
    assert (await engine.client.get_job(execution)).state == "PENDING"
    assert [node.id for node in await engine.nodes(execution)] == ["numbers", "wait"]

    missing = await engine.http.post(f"/api/workflow/trigger/{execution}")
    assert (missing.status_code, missing.json()["reason"]) == (422, "INVALID_PARAMS")
    bad = await engine.http.post(f"/api/workflow/trigger/{execution}", json={"params": {"count": 0}})
    assert (bad.status_code, [place["pointer"] for place in bad.json()["errors"]]) == (422, ["/params/count"])
    assert (await engine.client.get_job(execution)).state == "PENDING"

    await restart_scheduler(engine)
    for _ in range(2):
        triggered = await engine.http.post(f"/api/workflow/trigger/{execution}", json={"params": {"count": 4}})
        assert (triggered.status_code, triggered.json()) == (202, {"instance_id": execution})
        if (await engine.client.get_job(execution)).state.is_final:
            break
    ended = await engine.finish(execution)
    assert (ended.state, ended.items.ok, ended.params) == ("COMPLETED", 4, {"count": 4, "seconds": 0})
    listed = (await engine.http.get("/api/workflows", params={"page_size": 1})).json()["items"]
    assert [entry["instance_id"] for entry in listed] == [execution]
    results = (await engine.http.get(f"/api/workflows/{execution}/results")).json()
    assert results["complete"] is True


async def test_a_start_is_repeatable_with_the_same_params_only(engine: Engine) -> None:
    job = await engine.client.create_job(spec=SIZED, params={"count": 2}, start=False)
    with pytest.raises(InvalidError) as refused:
        await engine.client.start_job(job.id, params={"seconds": "long"})
    assert refused.value.problems[0].pointer == "/params/seconds"
    started = await engine.client.start_job(job.id, params={"seconds": LONG_S})
    assert (started.state, started.params) == ("RUNNING", {"count": 2, "seconds": LONG_S})
    await restart_scheduler(engine)
    again = await engine.client.start_job(job.id, params={"seconds": LONG_S})
    assert (again.state, again.params) == ("RUNNING", started.params)
    assert (await engine.client.start_job(job.id)).params == started.params
    with pytest.raises(StateConflictError, match="RUNNING with other params"):
        await engine.client.start_job(job.id, params={"seconds": 1})
    await engine.client.cancel_job(job.id, now=True)
    with pytest.raises(StateConflictError, match="CANCELLED"):
        await engine.client.start_job(job.id)


@pytest.mark.parametrize("ending", ["COMPLETED", "CANCELLED"])
async def test_a_start_that_is_repeated_after_the_end_tells_what_became_of_the_job(engine: Engine, ending: str) -> None:
    seconds = 0 if ending == "COMPLETED" else LONG_S
    job = await engine.client.create_job(spec=SIZED, params={"count": 1, "seconds": seconds}, start=False)
    path, headers = f"/api/v1/jobs/{job.id}:start", {"Idempotency-Key": f"once-{job.id}"}
    first = await engine.http.post(path, json={"params": {"count": 2}}, headers=headers)
    assert (first.status_code, first.json()["params"]["count"]) == (200, 2)
    if ending == "CANCELLED":
        await engine.client.cancel_job(job.id, now=True)
    ended = await engine.finish(job.id)
    assert ended.state == ending
    for _ in range(2):
        again = await engine.http.post(path, json={"params": {"count": 2}}, headers=headers)
        assert (again.status_code, again.json()["state"], again.json()["seq"]) == (200, ending, ended.seq)
        by_id = await engine.client.start_job(job.id, params={"count": 2}, request_id=headers["Idempotency-Key"])
        assert by_id == ended
        with pytest.raises(StateConflictError, match=ending):
            await engine.client.start_job(job.id, params={"count": 3}, request_id=headers["Idempotency-Key"])
        # Without an id nobody knows whether it is the same call, but what it asks for holds, unless it was undone.
        if ending == "COMPLETED":
            assert (await engine.client.start_job(job.id)) == ended
            trigger = await engine.http.post(f"/api/workflow/trigger/{job.id}", json={"params": {"count": 2}})
            assert (trigger.status_code, trigger.json()) == (202, {"instance_id": job.id})
        # The second time the job has left the scheduler's memory.
        await restart_scheduler(engine)


async def test_tags_and_priority_are_changed_and_kept(engine: Engine) -> None:
    job = await under_way(engine)
    changed = await engine.client.update_job(job.id, tags={"team": "b"}, priority=9)
    assert (changed.tags, changed.priority) == ({"team": "b"}, 9)
    await restart_scheduler(engine)
    kept = await engine.client.get_job(job.id)
    assert (kept.tags, kept.priority) == ({"team": "b"}, 9)
    await engine.client.cancel_job(job.id, now=True)

    for tags in ({"team": "c"}, {"team": "d"}):  # in memory; then in the database only
        assert (await engine.client.update_job(job.id, tags=tags)).tags == tags
        with pytest.raises(StateConflictError, match="CANCELLED"):
            await engine.client.update_job(job.id, priority=1)
        assert (await engine.client.update_job(job.id, priority=9)).priority == 9
        if tags == {"team": "c"}:
            await restart_scheduler(engine)
        assert (await engine.client.get_job(job.id)).tags == tags
    assert [event.type for event in await engine.events(job.id)][-2:] == ["job_updated", "job_updated"]
    assert [entry.id for entry in (await engine.client.list_jobs(tags={"team": "d"})).items] == [job.id]


async def test_delete_leaves_nothing(engine: Engine) -> None:
    job = await engine.run({"id": "numbers", "op": "debug.range", "params": {"count": 3}})
    await engine.client.delete_job(job.id)
    with pytest.raises(NotFoundError):
        await engine.client.get_job(job.id)
    with pytest.raises(NotFoundError):
        await engine.client.delete_job(job.id)
    await engine.client.delete_job(job.id, allow_missing=True)
    assert (await engine.http.delete(f"/api/v1/jobs/{job.id}")).status_code == 404
    assert (await engine.http.delete(f"/api/v1/jobs/{job.id}?allow_missing=true")).status_code == 204
    running = await under_way(engine)
    with pytest.raises(StateConflictError, match="RUNNING"):
        await engine.client.delete_job(running.id)
    await engine.client.cancel_job(running.id, now=True)
    await restart_scheduler(engine)
    await engine.client.delete_job(running.id)
    assert (await engine.http.get(f"/api/v1/jobs/{running.id}/nodes")).status_code == 404


async def test_cancel_all_ends_what_matches(engine: Engine) -> None:
    spec = {**WAITING, "tags": {"batch": "1"}}
    waiting = [await engine.client.create_job(spec=spec, start=False) for _ in range(3)]
    other = await engine.client.create_job(spec=WAITING, start=False)
    assert await engine.client.cancel_all_jobs(tags={"batch": "1"}, states=["RUNNING"]) == 0
    assert await engine.client.cancel_all_jobs(workflow="waiting", tags={"batch": "1"}) == 3
    assert await engine.client.cancel_all_jobs(workflow="waiting", tags={"batch": "1"}) == 0
    assert {(await engine.client.get_job(job.id)).state for job in waiting} == {"CANCELLED"}
    assert (await engine.client.get_job(other.id)).state == "PENDING"
    with pytest.raises(InvalidError, match="COMPLETED"):
        await engine.client.cancel_all_jobs(states=["COMPLETED"])
    assert await engine.client.cancel_all_jobs() == 1


@pytest.mark.parametrize("verb", ["pause_job", "resume_job", "cancel_job", "start_job"])
async def test_a_verb_that_does_not_fit_names_the_state(engine: Engine, verb: str) -> None:
    job = await engine.run({"id": "numbers", "op": "debug.range", "params": {"count": 1}})
    with pytest.raises(StateConflictError, match="COMPLETED") as refused:
        await getattr(engine.client, verb)(job.id)
    assert refused.value.metadata["state"] == "COMPLETED"
    answer = await engine.http.post(f"/api/v1/jobs/{job.id}:{verb.removesuffix('_job')}")
    assert (answer.status_code, answer.json()["reason"]) == (409, "STATE_CONFLICT")
    assert "COMPLETED" in answer.json()["detail"]


async def test_only_started_jobs_are_paused_and_resumed(engine: Engine) -> None:
    job = await engine.client.create_job(spec=WAITING, start=False)
    for verb in (engine.client.pause_job, engine.client.resume_job):
        with pytest.raises(StateConflictError, match="PENDING"):
            await verb(job.id)
    assert (await engine.client.cancel_job(job.id)).state == "CANCELLED"


async def test_a_cancelled_job_is_recovered_and_does_only_what_was_not_done(engine: Engine, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    job = await engine.submit(
        {"id": "numbers", "op": "debug.range", "params": {"count": 12}}, gate.node("wait", free=2)
    )
    await engine.until(job.id, lambda snapshot: node_of(snapshot, "wait").items.ok == 2)
    await engine.client.cancel_job(job.id, now=True)
    before = {attempt.task.rpartition(".")[2] for attempt in await engine.attempts(job.id, "wait")}
    assert (await engine.client.recover_job(job.id)).generation == 2
    assert (await engine.client.recover_job(job.id)).generation == 2  # taken up already
    gate.open()
    ended = await engine.finish(job.id)
    assert (ended.state, ended.items.ok, ended.generation, ended.recovery_attempts) == ("COMPLETED", 12, 2, 1)
    again = [attempt for attempt in await engine.attempts(job.id, "wait") if attempt.generation == 2]
    assert {attempt.task.rpartition(".")[2] for attempt in again if attempt.outcome == "OK"}.isdisjoint(before)
    assert sorted(int(item.key) for item in await engine.items(job.id, "wait")) == list(range(12))
    with pytest.raises(StateConflictError, match="COMPLETED"):
        await engine.client.recover_job(job.id)


async def test_rejected_items_are_retried_in_the_next_generation(engine: Engine) -> None:
    fail = {
        "id": "step",
        "op": "debug.fail",
        "inputs": {"items": "numbers"},
        "params": {"times": 1, "retryable": False},
    }
    job = await engine.run({"id": "numbers", "op": "debug.range", "params": {"count": 3}}, fail)
    assert (job.state, job.items.rejected) == ("COMPLETED", 3)
    with pytest.raises(StateConflictError, match="COMPLETED"):
        await engine.client.retry_job(job.id, reasons=["TRUNCATED"])
    answer = await engine.http.post(f"/api/v1/jobs/{job.id}:retry", json={"reasons": ["DEBUG"]})
    # Which items these are is looked up first.
    assert (answer.status_code, answer.json()["state"]) == (200, "RECOVERING")
    ended = await engine.finish(job.id)
    assert (ended.state, ended.generation, ended.items.ok + ended.items.rejected) == ("COMPLETED", 2, 3)
    attempts = await engine.attempts(job.id, "step")
    assert {attempt.generation for attempt in attempts} == {1, 2}


async def test_a_rerun_is_a_job_of_its_own_with_other_params(engine: Engine) -> None:
    old = await engine.finish((await engine.client.create_job(spec=SIZED, params={"count": 2})).id)
    new = await engine.client.rerun_job(old.id, params={"count": 5}, request_id="monday")
    assert new.id != old.id
    assert (await engine.client.rerun_job(old.id, params={"count": 5}, request_id="monday")).id == new.id
    ended = await engine.finish(new.id)
    assert (ended.state, ended.items.ok, ended.params["count"]) == ("COMPLETED", 5, 5)
    assert (await engine.client.get_job(old.id)).items.ok == 2
    with pytest.raises(InvalidError):
        await engine.client.rerun_job(old.id, params={"count": 0})
