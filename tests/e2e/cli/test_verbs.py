"""Job control from the command line, against real processes: what is printed, and with which exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.support.command_line import Said, pixloom
from tests.support.engine import Engine, running_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("cli-verbs")]

SPEC = {
    "name": "sized",
    "params": {"count": {"type": "integer", "minimum": 1}, "seconds": {"type": "number", "default": 600}},
    "nodes": [
        {"id": "numbers", "op": "debug.range", "params": {"count": "${params.count}"}},
        {"id": "wait", "op": "debug.sleep", "inputs": {"items": "numbers"}, "params": {"seconds": "${params.seconds}"}},
    ],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    async with running_engine(tmp_path_factory.mktemp("engine")) as made:
        yield made


async def waiting(engine: Engine, **more: Any) -> str:
    return (await engine.client.create_job(spec=SPEC, start=False, **more)).id


async def test_a_job_is_steered_from_its_start_to_its_deletion(engine: Engine) -> None:
    job = await waiting(engine)
    refused = await pixloom(engine, "start", "@latest", "-p", "count=0")
    assert (refused.code, refused.out) == (2, "")
    assert "/params/count" in refused.err
    assert await pixloom(engine, "start", "@latest", "-p", "count=4") == Said(0, f"{job} RUNNING\n", "")
    assert await pixloom(engine, "pause", job, "--now") == Said(0, f"{job} PAUSED\n", "")
    again = await pixloom(engine, "pause", job, "-o", "json")
    assert (again.code, again.json["state"], again.json["params"]) == (0, "PAUSED", {"count": 4, "seconds": 600})
    assert (await pixloom(engine, "resume", job)).out == f"{job} RUNNING\n"
    updated = await pixloom(engine, "update", job, "--tag", "team=a", "--priority", "9", "-o", "jsonl")
    assert (updated.json["tags"], updated.json["priority"]) == ({"team": "a"}, 9)
    early = await pixloom(engine, "delete", job)
    assert (early.code, early.out) == (1, "")
    assert "RUNNING" in early.err
    assert (await pixloom(engine, "cancel", job, "--now", "--reason", "enough")).out == f"{job} CANCELLED\n"
    late = await pixloom(engine, "resume", job)
    assert (late.code, late.out) == (1, "")
    assert late.err.startswith(f"Error: job {job} is CANCELLED")
    assert (await pixloom(engine, "delete", job)).out == f"{job} was deleted.\n"
    gone = await pixloom(engine, "get", job)
    assert (gone.code, "pixloom list" in gone.err) == (2, True)
    assert (await pixloom(engine, "delete", job)).code == 2
    assert (await pixloom(engine, "delete", job, "--missing-ok", "-o", "json")).json == {"id": job, "deleted": True}


async def test_a_job_is_taken_up_and_run_again(engine: Engine) -> None:
    job = await waiting(engine, params={"count": 2, "seconds": 0})
    assert (await pixloom(engine, "recover", job)).code == 1
    await pixloom(engine, "cancel", job)
    recovered = await pixloom(engine, "recover", "@latest", "-o", "json")
    assert (recovered.code, recovered.json["id"], recovered.json["generation"]) == (0, job, 2)
    assert (await engine.finish(job)).state == "COMPLETED"
    retried = await pixloom(engine, "retry", job, "--reason", "TRUNCATED")
    assert (retried.code, "COMPLETED" in retried.err) == (1, True)
    rerun = await pixloom(engine, "rerun", job, "-p", "count=3", "-o", "json")
    assert (rerun.code, rerun.json["params"]["count"], rerun.json["id"] == job) == (0, 3, False)
    assert (await engine.finish(rerun.json["id"])).items.ok == 3
    partly = await pixloom(engine, "rerun", job, "--from", "numbers", "-p", "count=5", "-o", "json")
    assert (partly.code, partly.json["id"] in (job, rerun.json["id"])) == (0, False), partly
    assert (await engine.finish(partly.json["id"])).items.ok == 5
    kept = await pixloom(engine, "rerun", job, "--from", "wait", "-p", "count=5")
    assert (kept.code, kept.out, "node numbers" in kept.err) == (2, "", True)
    refused = await pixloom(engine, "rerun", job, "--from", "nowhere")
    assert (refused.code, "nowhere" in refused.err) == (2, True)


async def test_all_jobs_that_match_are_cancelled(engine: Engine) -> None:
    for number in range(3):
        await waiting(engine, tags={"batch": "1" if number else "2"})
    matching = ("cancel", "--all", "--workflow", "sized", "--tag", "batch=1", "--state", "pending")
    assert (await pixloom(engine, *matching)).out == "2 jobs were cancelled.\n"
    assert (await pixloom(engine, *matching, "-o", "json")).json == {"cancelled": 0}
    assert (await pixloom(engine, "cancel", "--all", "--now")).out == "1 job was cancelled.\n"


@pytest.mark.parametrize(
    "words",
    [
        ("cancel",),
        ("cancel", "j1", "--all"),
        ("cancel", "j1", "--state", "RUNNING"),
        ("cancel", "--all", "--state", "SLEEPING"),
        ("update", "j1"),
        ("update", "j1", "--no-tags", "--tag", "a=b"),
        ("update", "j1", "--priority", "10"),
        ("start", "j1", "-p", "count"),
        ("pause", "j1"),
        ("recover", "j1", "--node", "n"),
    ],
)
async def test_wrong_use_and_unknown_jobs_end_with_2(engine: Engine, words: tuple[str, ...]) -> None:
    said = await pixloom(engine, *words)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("Error: ")
