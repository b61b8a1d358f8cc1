"""Every field of every resource is true: before the start, while it runs, after the end, and after schedulers died."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from pixloom.errors import InvalidError, StateConflictError
from pixloom.resources import Event, Snapshot
from tests.support.engine import Engine, node_of
from tests.support.field_checks import Given, check_sight
from tests.support.job_sight import Sight, durable, look, require_same, sight_of_executors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pixloom.resources import Job

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("engine-fields")]

TRACE = "0af7651916cd43dd8448eb211c80319c"


def document(gate: Path) -> dict[str, Any]:
    """Return a workflow with every kind of node, which stands still at `held` until there is a file."""
    return {
        "name": "every-field",
        "description": "…",
        "tags": {"team": "vision"},
        "metadata": {"author": "somebody", "depth": 1.5},
        "params": {"count": {"type": "integer", "default": 3}, "most": {"type": "integer", "default": 9}},
        "nodes": [
            {"id": "numbers", "op": "debug.range", "params": {"count": "${params.count}"}},
            {
                "id": "picked", "op": "tests.number_of", "inputs": {"items": "numbers"},
                "params": {"most": "${params.most}"}, "shard_size": 4,
            },
            {"id": "refused", "op": "tests.refuse", "inputs": {"items": "picked"}, "params": {"below": 2}},
            {
                "id": "flaky", "op": "debug.fail", "inputs": {"items": "refused"}, "fuse": False, "shard_size": 2,
                "params": {"times": 1}, "retry": {"max_attempts": 3, "initial_backoff_s": 0.01},
            },
            {
                "id": "held", "op": "tests.wait_for",
                "dependencies": ["flaky"], "inputs": {"items": "flaky"}, "params": {"path": str(gate)},
                "fuse": False, "shard_size": 3, "timeout_s": 600, "estimated_duration_s": 60,
            },
            {"id": "total", "op": "tests.total", "inputs": {"items": "held"}},
            {"id": "list", "op": "agg.manifest", "inputs": {"items": "held"}},
            {"id": "never", "op": "debug.noop", "inputs": {"items": "held"}, "when": "nodes.held.ok > 1000"},
            {"id": "after", "op": "tests.echo", "params": {"given": {"a": [1]}}, "dependencies": ["total", "numbers"]},
        ],
        "outputs": {"sum": "total", "catalog": "list", "kept": "held", "nothing": "never"},
        "max_recovery_attempts": 2,
    }  # fmt: skip


NEEDS = {
    "numbers": [], "picked": ["numbers"], "refused": ["picked"], "flaky": ["refused"], "held": ["flaky"],
    "total": ["held"], "list": ["held"], "never": ["held"], "after": ["numbers", "total"],
}  # fmt: skip


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """Return where a file lets jobs go on; in the end it is there, so that no executor waits for it."""
    path = tmp_path / "gate"
    yield path
    path.touch()


async def submit(engine: Engine, gate: Path) -> Given:
    """Store the workflow and create a job of it over REST, without starting it."""
    spec = document(gate)
    stored = await engine.http.put(f"/api/v1/workflows/{spec['name']}", json=spec)
    assert stored.status_code in (200, 201)
    since = time.time()
    body = {
        "workflow": spec["name"],
        "name": "once",
        "params": {"count": 12},
        "tags": {"release": "v1"},
        "metadata": {"more": [1, None]},
        "priority": 7,
        "external_id": f"mine-{gate.name}",
        "start": False,
    }
    answer = await engine.http.post("/api/v1/jobs", json=body, headers={"traceparent": f"00-{TRACE}-{'b' * 16}-01"})
    assert answer.status_code == 201
    job_id = answer.json()["id"]
    assert answer.headers["location"] == f"/api/v1/jobs/{job_id}"
    return Given(
        id=job_id,
        spec=spec,
        name="once",
        version=stored.json()["version"],
        params={"count": 12, "most": 9},
        tags={"team": "vision", "release": "v1"},
        metadata={"author": "somebody", "depth": 1.5, "more": [1, None]},
        priority=7,
        external_id=body["external_id"],
        trace_id=TRACE,
        created=(since, time.time()),
        firsts=("numbers", "picked", "flaky", "held", "total", "list", "never", "after"),
        ends=("held",),
        needs=NEEDS,
    )


async def restart_scheduler(engine: Engine) -> None:
    await engine.stack.wait_replaced("scheduler", engine.stack.kill("scheduler"))
    await engine.stack.wait_ready()


async def until_held(engine: Engine, job_id: str, *, tasks: int = 2) -> None:
    """Wait until every slot holds a task that waits for the file, and all before has ended."""

    def stands_still(snapshot: Snapshot) -> bool:
        held = node_of(snapshot, "held")
        return node_of(snapshot, "flaky").state == "COMPLETED" and held.state == "RUNNING"

    await engine.until(job_id, stands_still)
    await engine.until_executors(lambda found: sum(executor.busy for executor in found) == tasks)


async def require_listed(engine: Engine, job: Job) -> None:
    """Require a list to show a job as it shows itself."""
    page = await engine.client.list_jobs(external_id=job.external_id or "")
    assert [durable(entry) for entry in page.items] == [durable(job)]
    rest = (await engine.http.get("/api/v1/jobs", params={"external_id": job.external_id})).json()
    assert [entry["id"] for entry in rest["items"]] == [job.id]
    assert rest["items"][0]["update_time"] == (await engine.http.get(f"/api/v1/jobs/{job.id}")).json()["update_time"]


async def test_every_field_of_a_job_is_true_all_along(engine: Engine, gate: Path) -> None:
    given = await submit(engine, gate)
    pending = await look(engine, given.id)
    check_sight(pending, given, "before the start")
    assert (pending.job.state, pending.job.progress, pending.job.tasks.total) == ("PENDING", 0, 0)
    await require_listed(engine, pending.job)

    progress: list[float] = []
    totals: list[tuple[int, int, int]] = []

    async def watch() -> None:
        async for update in engine.client.watch_job(given.id):
            if isinstance(update, Snapshot):
                progress.append(update.job.progress)
                items = update.job.items
                totals.append(
                    (update.job.tasks.total, update.job.tasks.done, items.ok + items.filtered + items.rejected)
                )

    watching = asyncio.create_task(watch())
    await engine.client.start_job(given.id)
    await until_held(engine, given.id)
    running = await look(engine, given.id)
    check_sight(running, given, "while it runs")
    assert running.nodes["flaky"].retry_count == running.nodes["flaky"].tasks.done > 0
    assert running.nodes["picked"].reasons == {"TOO_MANY": 2}
    assert running.nodes["refused"].reasons == {"TOO_LITTLE": 2}
    assert running.job.estimated_end_time is not None
    await require_listed(engine, running.job)

    await restart_scheduler(engine)
    await until_held(engine, given.id)
    again = await look(engine, given.id)
    check_sight(again, given, "after a kill of the scheduler")
    require_unchanged(again, running)
    await require_listed(engine, again.job)

    await asyncio.to_thread(gate.touch)
    ended = await engine.finish(given.id)
    await asyncio.wait_for(watching, 60)
    assert progress == sorted(progress)
    assert progress[-1] == 100
    assert totals == sorted(totals)
    in_memory = await look(engine, given.id)
    check_sight(in_memory, given, "after the end")
    assert in_memory.job == ended
    assert (ended.items.ok, ended.items.filtered, ended.items.rejected) == (8, 2, 2)
    assert in_memory.nodes["never"].state == "SKIPPED"
    assert ended.outputs["sum"].value == {"sum": sum(range(2, 10)), "count": 8}
    assert ended.outputs["kept"].count == 8
    artifact = ended.outputs["catalog"].artifact
    assert artifact is not None
    assert len(await engine.client.read_artifact(artifact.sha256)) == artifact.size_bytes
    await require_listed(engine, ended)

    await restart_scheduler(engine)
    from_rows = await look(engine, given.id)
    check_sight(from_rows, given, "when it has left memory")
    assert from_rows.job == ended
    require_unchanged(from_rows, in_memory)
    await require_listed(engine, ended)


def require_unchanged(now: Sight, before: Sight) -> None:
    """Require everything that is durable to be shown as it was."""
    for name in ("job", "nodes", "items", "attempts", "events", "results"):
        mine, theirs = getattr(now, name), getattr(before, name)
        if name == "nodes":
            for node in mine:
                # What runs without an attempt that has ended began when its executor was granted it.
                but = {"start_time"} if mine[node].state == "RUNNING" and not before.attempts[node] else set()
                require_same(mine[node], theirs[node], but=but)
        else:
            require_same(mine, theirs)


async def test_every_field_of_a_failed_job_and_of_its_recovery_is_true(engine: Engine, tmp_path: Path) -> None:
    needed = tmp_path / "needed"
    spec: dict[str, Any] = {
        "name": "needs-a-file",
        "nodes": [
            {"id": "numbers", "op": "debug.range", "params": {"count": 4}},
            {
                "id": "need", "op": "tests.require", "inputs": {"items": "numbers"}, "params": {"path": str(needed)},
                "on_error": "fail", "shard_size": 4,
            },
            {"id": "total", "op": "tests.count_items", "inputs": {"items": "need"}},
        ],
        "outputs": {"total": "total"},
        "max_recovery_attempts": 1,
    }  # fmt: skip
    since = time.time()
    job = await engine.client.create_job(spec=spec)
    given = Given(
        id=job.id, spec=spec, name="needs-a-file", version=0, params={}, tags={}, metadata={}, priority=5,
        external_id=None, trace_id=job.trace_id, created=(since, time.time()), firsts=("numbers", "need", "total"),
        ends=("need",), needs={"numbers": [], "need": ["numbers"], "total": ["need"]},
    )  # fmt: skip
    assert (await engine.finish(job.id)).state == "FAILED"
    failed = await look(engine, job.id)
    check_sight(failed, given, "when it has failed")
    assert failed.job.error is not None
    assert (failed.job.error.reason, failed.job.error.node, failed.job.reason) == ("NO_FILE", "need", "NO_FILE")
    assert failed.job.progress < 100
    assert {name: node.state for name, node in failed.nodes.items()} == {
        "numbers": "COMPLETED", "need": "FAILED", "total": "SKIPPED",
    }  # fmt: skip
    await restart_scheduler(engine)
    later = await look(engine, job.id)
    check_sight(later, given, "when it has failed and left memory")
    require_unchanged(later, failed)

    needed.touch()
    await engine.client.recover_job(job.id)
    assert (await engine.finish(job.id)).state == "COMPLETED"
    given = replace(given, recoveries=1)
    recovered = await look(engine, job.id)
    check_sight(recovered, given, "when it was recovered")
    assert (recovered.job.generation, recovered.job.start_time) == (2, failed.job.start_time)
    await restart_scheduler(engine)
    later = await look(engine, job.id)
    check_sight(later, given, "when it was recovered and left memory")
    require_unchanged(later, recovered)


async def test_update_time_moves_with_every_change_and_with_nothing_else(engine: Engine, gate: Path) -> None:
    given = await submit(engine, gate)
    seen = await engine.client.get_job(given.id)
    client = engine.client
    for change in (
        lambda: client.update_job(given.id, tags={"a": "b"}),
        lambda: client.update_job(given.id, priority=3),
        lambda: client.start_job(given.id),
        lambda: client.pause_job(given.id, now=True),
        lambda: client.update_job(given.id, priority=4),
        lambda: client.resume_job(given.id),
        lambda: client.cancel_job(given.id, now=True),
        lambda: client.update_job(given.id, tags={"a": "c"}),
    ):
        if seen.state == "RUNNING":
            # Until nothing else happens in it: results count as changes too.
            await until_held(engine, given.id)
            seen = await client.get_job(given.id)
        changed = await change()
        assert changed.update_time is not None
        assert seen.update_time is not None
        assert changed.update_time > seen.update_time
        events = [update async for update in _until_snapshot(engine, given.id)]
        if changed.state != "RUNNING":
            again = await change() if changed.state != "CANCELLED" or "c" in changed.tags.values() else changed
            assert durable(again) == durable(changed)
            assert events[-1].time == changed.update_time
        seen = await client.get_job(given.id)
    await restart_scheduler(engine)
    assert await client.get_job(given.id) == seen
    # Of a job that is in nobody's memory the tags change in its row.
    changed = await client.update_job(given.id, tags={"a": "d"})
    assert changed.update_time > seen.update_time  # type: ignore[operator]
    assert [update async for update in _until_snapshot(engine, given.id)][-1].time == changed.update_time
    assert (await engine.client.get_job(given.id)) == changed


async def _until_snapshot(engine: Engine, job_id: str) -> Any:
    async for update in engine.client.watch_job(job_id):
        if not isinstance(update, Event):
            return
        yield update


async def test_filters_show_the_jobs_of_those_states_also_after_a_restart(
    engine: Engine, gate: Path, tmp_path: Path
) -> None:
    tag = {"filters": tmp_path.name}
    wait = {
        "id": "held",
        "op": "tests.wait_for",
        "inputs": {"items": "numbers"},
        "params": {"path": str(gate)},
    }
    numbers = {"id": "numbers", "op": "debug.range", "params": {"count": 1}}
    refuse = {
        "id": "no",
        "op": "tests.require",
        "inputs": {"items": "numbers"},
        "params": {"path": str(tmp_path / "y")},
        "on_error": "fail",
    }
    ids: dict[str, str] = {}
    for name, nodes, start in (
        ("pending", [numbers], False),
        ("completed", [numbers], True),
        ("cancelled", [numbers], False),
        ("failed", [numbers, refuse], True),
        ("exhausted", [numbers, refuse], True),
        # These two take both slots.
        ("running", [numbers, {**wait, "timeout_s": 600}], True),
        ("paused", [numbers, {**wait, "timeout_s": 600}], True),
    ):
        spec = {"name": name, "nodes": nodes, "tags": tag, "max_recovery_attempts": 0 if name == "exhausted" else 1}
        ids[name] = (await engine.client.create_job(spec=spec, start=start)).id
        if name in {"completed", "failed", "exhausted"}:
            await engine.finish(ids[name])
    await engine.client.pause_job(ids["paused"])
    await engine.client.cancel_job(ids["cancelled"])
    expected = {
        "active": ["running"],
        "failed": ["exhausted", "failed"],
        "recoverable": ["failed", "cancelled"],
        None: list(reversed(ids)),
    }
    names = {job_id: name for name, job_id in ids.items()}
    ((label, value),) = tag.items()
    for moment in ("before", "after"):
        for chosen, wanted in expected.items():
            params = {"tag": f"{label}={value}", **({"filter": chosen} if chosen else {})}
            found: list[str] = []
            token = ""
            while True:
                page = (
                    await engine.http.get("/api/v1/jobs", params={**params, "page_size": 1, "page_token": token})
                ).json()
                found += [names[entry["id"]] for entry in page["items"]]
                token = page["next_page_token"]
                if not token:
                    break
            assert (moment, chosen, found) == (moment, chosen, wanted)
        if moment == "before":
            await restart_scheduler(engine)
    both = await engine.http.get("/api/v1/jobs", params={"filter": "active", "state": "RUNNING"})
    assert both.status_code == 400
    await engine.client.cancel_job(ids["running"], now=True)
    await engine.client.cancel_job(ids["paused"], now=True)


@pytest.mark.parametrize("token", ["x", "AA", "!!", "LTE", "AA" * 400, "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkw"])
@pytest.mark.parametrize(
    "path",
    [
        "jobs",
        "jobs/{}/nodes/numbers/attempts",
        "jobs/{}/nodes/numbers/items",
        "workflows",
        "workflows/every-field/versions",
    ],
)
async def test_a_page_token_that_no_list_gave_is_refused(engine: Engine, gate: Path, path: str, token: str) -> None:
    given = await submit(engine, gate)
    answer = await engine.http.get(f"/api/v1/{path.format(given.id)}", params={"page_token": token})
    # What decodes to text may be a place in a list by name; it is no failure of the server in any case.
    assert answer.status_code == 400 or (answer.status_code == 200 and path in {"jobs", "workflows"}), answer.text
    if answer.status_code == 400:
        assert "token" in answer.json()["detail"]
    await engine.client.cancel_job(given.id)


async def test_every_field_of_an_executor_is_true(engine: Engine, gate: Path) -> None:
    given = await submit(engine, gate)
    await engine.client.start_job(given.id)
    await until_held(engine, given.id)
    known = {op.id if hasattr(op, "id") else f"{op.name}" for op in await engine.client.list_ops()}
    found = await sight_of_executors(engine)
    pids = {engine.stack.pid(f"executor-{number}") for number in (1, 2)}
    assert {executor.pid for executor in found} == pids
    assert [executor.id for executor in found] == sorted(executor.id for executor in found)
    for executor in found:
        assert (executor.pools, executor.slots, executor.busy, executor.draining) == (["cpu", "net"], 1, 1, False)
        assert executor.hostname == os.uname().nodename
        assert executor.version == version("pixloom")
        assert {"debug.range@1", "tests.wait_for@1", "image.thumbnail@1"} <= set(executor.ops)
        assert {name.partition("@")[0] for name in executor.ops} <= {name.partition("@")[0] for name in known}
        assert executor.start_time is not None
        assert executor.last_seen_time is not None
        begun = psutil.Process(executor.pid).create_time()
        assert begun - 1 <= executor.start_time.timestamp() <= executor.last_seen_time.timestamp() <= time.time() + 1
        assert executor.last_seen_time.timestamp() > time.time() - 5
    drained = (await engine.http.post(f"/api/v1/executors/{found[0].id}:drain")).json()
    assert (drained["id"], drained["draining"], drained["busy"]) == (found[0].id, True, 1)
    assert [executor.draining for executor in await sight_of_executors(engine)] == [True, False]
    # It finishes what it runs, leaves, and another takes its place.
    await asyncio.to_thread(gate.touch)
    assert (await engine.finish(given.id)).state == "COMPLETED"
    after = await engine.until_executors(
        lambda now: len(now) == 2 and found[0].id not in {executor.id for executor in now}
    )
    assert {executor.draining for executor in after} == {False}
    with pytest.raises((InvalidError, StateConflictError)):
        await engine.client.start_job(given.id, params={"count": -1})
