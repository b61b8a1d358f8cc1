"""Jobs that are taken up again, over real processes: recovered, retried and rerun, with what was done kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
import pyvips

from pixloom.errors import InvalidError, StateConflictError
from tests.support.engine import Engine, running_engine
from tests.support.gate import Gate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("engine-generations")]

PHOTOS = 12


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose subfolders sources may read."""
    return tmp_path_factory.mktemp("shelf")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory, shelf: Path) -> AsyncIterator[Engine]:
    async with running_engine(
        tmp_path_factory.mktemp("engine"), source_roots=[shelf], imports=["tests.support.user_ops"]
    ) as made:
        yield made


def photo(number: int) -> bytes:
    """Return a JPEG that differs from all others."""
    image = pyvips.Image.black(200, 150, bands=3).linear(1, [20 * number, 255 - 20 * number, 90])
    data: bytes = image.cast("uchar").copy(interpretation="srgb").jpegsave_buffer()
    return data


def shoot(folder: Path, *, broken: tuple[int, ...]) -> Path:
    """Fill a folder with photographs of which some end too early."""
    folder.mkdir()
    for number in range(PHOTOS):
        data = photo(number)
        (folder / f"{number:02}.jpg").write_bytes(data[: len(data) // 2] if number in broken else data)
    return folder


def mend(folder: Path, *numbers: int) -> None:
    for number in numbers:
        (folder / f"{number:02}.jpg").write_bytes(photo(number))


def catalogue(folder: Path, *, shard_size: int = 1, on_error: str = "quarantine") -> tuple[dict[str, Any], ...]:
    return (
        {"id": "photos", "op": "source.folder", "params": {"path": str(folder)}},
        {
            "id": "valid",
            "op": "check.decode",
            "inputs": {"images": "photos"},
            "on_error": on_error,
            "shard_size": shard_size,
        },
        {"id": "small", "op": "image.thumbnail", "inputs": {"images": "valid"}, "params": {"width": 64}},
        {"id": "all", "op": "agg.manifest", "inputs": {"items": "small"}},
    )


async def ordinals(engine: Engine, job_id: str, node: str) -> dict[str, list[str]]:
    """Return the files at a node by state."""
    found: dict[str, list[str]] = {}
    for item in await engine.items(job_id, node):
        found.setdefault(str(item.state), []).append(item.key[-6:-4])
    return {state: sorted(names) for state, names in found.items()}


async def test_a_job_recovers_from_its_failure_and_keeps_what_was_done(engine: Engine, shelf: Path) -> None:
    folder = shoot(shelf / "recover", broken=(9,))
    job = await engine.run(*catalogue(folder, on_error="fail"), max_recovery_attempts=1)
    assert job.state == "FAILED"
    assert job.error is not None
    assert job.error.node == "valid"
    done = {
        attempt.task.split(".")[-1] for attempt in await engine.attempts(job.id, "valid") if attempt.outcome == "OK"
    }
    assert done

    mend(folder, 9)
    taken_up = await engine.client.recover_job(job.id)
    assert taken_up.generation == 2
    again = await engine.finish(job.id)
    assert (again.state, again.error, again.recovery_attempts) == ("COMPLETED", None, 1)
    assert again.items.ok == PHOTOS
    assert await ordinals(engine, job.id, "valid") == {"OK": [f"{number:02}" for number in range(PHOTOS)]}
    second = {
        attempt.task.split(".")[-1] for attempt in await engine.attempts(job.id, "valid") if attempt.generation == 2
    }
    assert not done & second
    assert [
        event.type for event in await engine.events(job.id) if event.type.startswith(("job_rec", "generation"))
    ] == [
        "job_recovering",
        "generation_opened",
    ]
    with pytest.raises(StateConflictError, match="COMPLETED"):
        await engine.client.recover_job(job.id)


async def test_rejected_items_are_retried_alone_by_reason(engine: Engine, shelf: Path) -> None:
    folder = shoot(shelf / "retry", broken=(2, 3, 7))
    (folder / "99.jpg").write_text("this is not a photograph")
    job = await engine.run(*catalogue(folder, shard_size=5))
    assert (job.state, job.items.ok, job.items.rejected) == ("COMPLETED", PHOTOS - 3, 4)
    node = await engine.node(job.id, "valid")
    reasons = {item.reason for item in await engine.items(job.id, "valid") if item.reason}
    assert "TRUNCATED" in reasons
    assert len(reasons) == 2

    mend(folder, 2, 7)
    await engine.client.retry_job(job.id, reasons=["TRUNCATED"])
    again = await engine.finish(job.id)
    assert (again.state, again.generation, again.recovery_attempts) == ("COMPLETED", 2, 0)
    assert (again.items.ok, again.items.rejected) == (PHOTOS - 1, 2)
    found = await ordinals(engine, job.id, "valid")
    assert found["OK"] == [f"{number:02}" for number in range(PHOTOS) if number != 3]
    assert found["REJECTED"] == ["03", "99"]
    assert len(await engine.items(job.id, "small")) == PHOTOS - 1
    retried = [attempt for attempt in await engine.attempts(job.id, "valid") if attempt.generation == 2]
    assert sum(attempt.items.ok + attempt.items.rejected for attempt in retried) == 3
    assert (await engine.node(job.id, "valid")).reasons["TRUNCATED"] == node.reasons["TRUNCATED"] - 2
    results = await engine.client.get_results(job.id)
    assert results.complete

    # And once more, of everything that is left.
    mend(folder, 3)
    await engine.client.retry_job(job.id)
    last = await engine.finish(job.id)
    assert (last.generation, last.items.ok, last.items.rejected) == (3, PHOTOS, 1)
    assert (await ordinals(engine, job.id, "valid"))["REJECTED"] == ["99"]
    assert len((await ordinals(engine, job.id, "valid"))["OK"]) == PHOTOS


async def test_a_cancelled_job_recovers_from_a_node_on_although_the_scheduler_was_killed(
    engine: Engine, tmp_path: Path
) -> None:
    gate = Gate(tmp_path)
    nodes = (
        {"id": "numbers", "op": "debug.range", "params": {"count": 40}},
        {"id": "first", "op": "debug.noop", "inputs": {"items": "numbers"}, "shard_size": 4, "fuse": False},
        # Behind all of `first`, so that its items come in their order, and those that pass before those that wait.
        gate.node("wait", behind="first", free=12, dependencies=["first"]),
        {"id": "all", "op": "agg.manifest", "inputs": {"items": "wait"}},
    )
    job = await engine.submit(*nodes)
    await engine.until(job.id, lambda snapshot: snapshot.job.tasks.done > 20)
    await engine.client.cancel_job(job.id, now=True)
    assert (await engine.finish(job.id)).state == "CANCELLED"
    await engine.stack.wait_replaced("scheduler", engine.stack.kill("scheduler"))
    await engine.stack.wait_ready()

    gate.open()
    answer = await engine.http.post(f"/api/v1/jobs/{job.id}:recover", json={"from": "first"})
    assert answer.status_code == 200, answer.text
    again = await engine.finish(job.id)
    assert (again.state, again.generation, again.items.ok) == ("COMPLETED", 2, 40)
    firsts = [attempt.generation for attempt in await engine.attempts(job.id, "first")]
    assert firsts.count(2) == 10
    assert {attempt.generation for attempt in await engine.attempts(job.id, "numbers")} == {1}
    assert sorted(int(item.key) for item in await engine.items(job.id, "wait")) == list(range(40))


async def test_a_rerun_is_another_job_with_other_params(engine: Engine) -> None:
    document = {
        "name": "sized",
        "params": {"count": {"type": "integer"}},
        "nodes": [{"id": "numbers", "op": "debug.range", "params": {"count": "${params.count}"}}],
    }
    first = await engine.client.create_job(spec=document, params={"count": 3}, tags={"team": "a"})
    await engine.finish(first.id)
    second = await engine.client.rerun_job(first.id, params={"count": 5}, request_id="once")
    assert second.id != first.id
    assert (await engine.client.rerun_job(first.id, params={"count": 5}, request_id="once")).id == second.id
    ended = await engine.finish(second.id)
    assert (ended.state, ended.items.ok, ended.tags) == ("COMPLETED", 5, {"team": "a"})
    assert (await engine.client.get_job(first.id)).items.ok == 3


async def test_a_job_is_made_of_another_from_a_node_on_although_the_scheduler_is_killed(
    engine: Engine, shelf: Path
) -> None:
    folder = shoot(shelf / "rerun", broken=(4, 8))
    nodes = [
        {"id": "photos", "op": "source.folder", "params": {"path": str(folder)}},
        {"id": "valid", "op": "check.decode", "inputs": {"images": "photos"}, "shard_size": 3, "fuse": False},
        {"id": "small", "op": "image.thumbnail", "inputs": {"images": "valid"}, "params": {"width": "${params.width}"},
         "shard_size": 2, "fuse": False, "keep": True},
        {"id": "all", "op": "agg.manifest", "inputs": {"items": "small"}},
    ]  # fmt: skip
    document = {
        "name": "sized",
        "params": {"width": {"type": "integer", "default": 64}, "least": {"type": "integer", "default": 0}},
        "nodes": nodes,
        "outputs": {"small": "small"},
    }
    old = await engine.finish((await engine.client.create_job(spec=document)).id)
    assert (old.state, old.items.ok, old.items.rejected) == ("COMPLETED", PHOTOS - 2, 2)
    mend(folder, 4)
    await engine.client.retry_job(old.id)
    old = await engine.finish(old.id)
    assert (old.generation, old.items.ok, old.items.rejected) == (2, PHOTOS - 1, 1)

    answer = await engine.http.post(
        f"/api/v1/jobs/{old.id}:rerun",
        json={"from": "small", "params": {"width": 32}},
        headers={"Idempotency-Key": "from small"},
    )
    assert answer.status_code == 201, answer.text
    job_id = answer.json()["id"]
    await engine.stack.wait_replaced("scheduler", engine.stack.kill("scheduler"))
    await engine.stack.wait_ready()
    again = await engine.client.rerun_job(old.id, from_node="small", params={"width": 32}, request_id="from small")
    assert again.id == job_id
    await engine.client.delete_job(old.id)
    job = await engine.finish(job_id)
    assert (job.state, job.params["width"], job.progress) == ("COMPLETED", 32, 100)
    assert (job.items.ok, job.items.rejected, job.recovery_attempts) == (PHOTOS - 1, 1, 0)
    assert await ordinals(engine, job_id, "valid") == {
        "OK": [f"{number:02}" for number in range(PHOTOS) if number != 8],
        "REJECTED": ["08"],
    }
    smalls = await engine.items(job_id, "small")
    assert {item.width for item in smalls if str(item.state) == "OK"} == {32}
    assert job.create_time is not None
    ran_here = {
        name: {attempt.start_time is not None and attempt.start_time >= job.create_time for attempt in attempts}
        for name in ("photos", "valid", "small")
        if (attempts := await engine.attempts(job_id, name))
    }
    assert ran_here == {"photos": {False}, "valid": {False}, "small": {True}}
    assert (await engine.client.get_results(job_id)).complete
    first = (await engine.events(job_id))[0]
    assert first.type == "job_created"
    assert old.id in (first.detail or "")

    # What cannot be is said by both doors, with names.
    for body, status, words in (
        ({"from": "valid", "params": {"width": "wide"}}, 422, "width"),
        ({"from": "all", "params": {"width": 16}}, 422, "node small"),
        ({"from": "nowhere"}, 400, "photos, valid"),
    ):
        refused = await engine.http.post(f"/api/v1/jobs/{job_id}:rerun", json=body)
        assert (refused.status_code, words in refused.text) == (status, True), refused.text
    with pytest.raises(InvalidError, match="node small"):
        await engine.client.rerun_job(job_id, from_node="all", params={"width": 16})


async def test_words_beyond_those_that_are_counted_are_other_and_can_be_tried_again(engine: Engine) -> None:
    job = await engine.run(
        {"id": "numbers", "op": "debug.range", "params": {"count": 1100}},
        {"id": "odd", "op": "tests.invent", "inputs": {"items": "numbers"}, "shard_size": 550},
    )
    node = await engine.node(job.id, "odd")
    assert (job.state, node.items.rejected, len(node.reasons), node.reasons["OTHER"]) == ("COMPLETED", 1100, 1001, 100)
    # The items have their own words all the same.
    own = {item.reason or "" for item in await engine.items(job.id, "odd")}
    assert len(own) == 1100

    await engine.client.retry_job(job.id, reasons=["OTHER"])
    again = await engine.finish(job.id)
    assert (again.state, again.generation) == ("COMPLETED", 2)
    tried = [attempt for attempt in await engine.attempts(job.id, "odd") if attempt.generation == 2]
    assert [attempt.outcome for attempt in tried] == ["OK"]
    assert (await engine.node(job.id, "odd")).reasons == node.reasons

    await engine.client.retry_job(job.id, reasons=[min(own - node.reasons.keys())])
    assert (await engine.finish(job.id)).generation == 3
    assert (await engine.node(job.id, "odd")).reasons == node.reasons
