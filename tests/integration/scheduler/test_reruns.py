"""Jobs that are made of others from a node on, over a real PostgreSQL: what they take over, refuse and survive."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import asyncpg
import orjson
import pytest

from pixloom.errors import AlreadyExistsError, InvalidError, NotFoundError, StateConflictError, UnavailableError
from pixloom.graph.plan_codec import plan_from_json
from pixloom.v1 import job_pb2
from pixloom_scheduler.core.apply import apply
from pixloom_scheduler.core.changes import JobAccepted
from pixloom_scheduler.core.generations import carried_change, stages_from
from pixloom_scheduler.core.model import JobRun
from pixloom_scheduler.journal.check.database import check_database
from pixloom_scheduler.journal.inheritance import InheritanceWriter
from pixloom_scheduler.journal.ownership import Ownership, connect
from pixloom_scheduler.journal.rows import decode
from tests.support.answering import Answering
from tests.support.core_world import durable_view, stage_view
from tests.support.scheduler_verbs import CONTEXT, LEASE_S, Scheduler

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from pixloom_scheduler.live import LiveJob

DOCUMENT: dict[str, Any] = {
    "name": "catalog",
    "params": {
        "count": {"type": "integer", "default": 9},
        "seconds": {"type": "number", "default": 0},
        "least": {"type": "integer", "default": 0},
        "unread": {"type": "string", "default": ""},
    },
    "timeout_s": 600,
    "nodes": [
        {"id": "numbers", "op": "debug.range", "params": {"count": "${params.count}"}},
        {"id": "first", "op": "debug.noop", "inputs": {"items": "numbers"}, "shard_size": 2, "fuse": False},
        {"id": "second", "op": "debug.noop", "inputs": {"items": "first"}, "shard_size": 2, "fuse": False},
        {"id": "aside", "op": "debug.noop", "inputs": {"items": "first"}, "shard_size": 3, "fuse": False,
         "when": "nodes.numbers.ok >= params.least"},
        {"id": "slow", "op": "debug.sleep", "inputs": {"items": "second"}, "shard_size": 1, "fuse": False,
         "params": {"seconds": "${params.seconds}"}},
        {"id": "sheet", "op": "agg.manifest", "inputs": {"items": "slow"}},
        {"id": "other", "op": "agg.manifest", "inputs": {"items": "aside"}},
    ],
    "outputs": {"sheet": "sheet"},
}  # fmt: skip
PLACES: dict[str, int] = {node["id"]: place for place, node in enumerate(DOCUMENT["nodes"])}


def live_of(scheduler: Scheduler, job_id: str) -> LiveJob:
    live = scheduler.replica.find(job_id)
    assert live is not None
    return live


async def finish(scheduler: Scheduler, job_id: str, seed: int = 0, **options: Any) -> Answering:
    answering = Answering(scheduler.replica, random.Random(seed), **options)
    async with asyncio.timeout(60):
        await answering.finish(live_of(scheduler, job_id))
    return answering


async def submit(scheduler: Scheduler, **more: Any) -> str:
    return await scheduler.submit(**{"document": DOCUMENT, "params": {}, **more})


async def completed(scheduler: Scheduler, seed: int = 0, **more: Any) -> str:
    job_id = await submit(scheduler, **more)
    await finish(scheduler, job_id, seed)
    assert str(live_of(scheduler, job_id).run.state) == "COMPLETED"
    return job_id


async def rerun(scheduler: Scheduler, job_id: str, node: str, *, request_id: str = "", **params: Any) -> job_pb2.Job:
    request = job_pb2.RerunJobRequest(
        id=job_id, from_node=node, params_json=orjson.dumps(params) if params else b"", request_id=request_id
    )
    return (await scheduler.verbs.RerunJob(request, CONTEXT)).job


async def records(url: str, job_id: str) -> list[dict[str, Any]]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("SELECT * FROM pixloom.journal WHERE job_id = $1 ORDER BY seq", job_id)
        return [{**row, "data": orjson.loads(row["data"]) if row["data"] else None} for row in rows]
    finally:
        await connection.close()


async def nodes(scheduler: Scheduler, job_id: str) -> dict[str, job_pb2.Node]:
    answer = await scheduler.verbs.ListNodes(job_pb2.ListNodesRequest(id=job_id), CONTEXT)
    return {node.id: node for node in answer.nodes}


async def require_sound(scheduler: Scheduler) -> None:
    findings = await check_database(scheduler.url)
    assert findings.violations == []


async def test_what_is_not_behind_the_node_is_taken_over_and_the_rest_runs(scheduler: Scheduler) -> None:
    old_id = await completed(scheduler, tags={"team": "b"}, priority=7, metadata={"who": "me"})
    before = await nodes(scheduler, old_id)
    job = await rerun(scheduler, old_id, "slow", seconds=0.5)
    assert job.id != old_id
    assert (job.state, job.generation, job.recovery_attempts) == (job_pb2.JOB_STATE_RUNNING, 1, 0)
    assert (dict(job.tags), job.priority, orjson.loads(job.metadata_json)["who"]) == ({"team": "b"}, 7, "me")
    assert orjson.loads(job.params_json)["seconds"] == 0.5
    assert 50 < job.progress < 100
    assert job.update_time.ToDatetime() >= job.create_time.ToDatetime()
    assert job.last_checkpoint_time.ToDatetime() >= job.create_time.ToDatetime()

    live = live_of(scheduler, job.id)
    assert live.run.nodes[PLACES["slow"]].plan.params == {"seconds": 0.5}
    ran = (await finish(scheduler, job.id, seed=7)).ran
    again = stages_from(live.run.plan, PLACES["slow"])
    assert {stage for stage, _ in ran} == again
    after = await nodes(scheduler, job.id)
    for name in ("numbers", "first", "second", "aside", "other"):
        assert after[name].items == before[name].items
        assert after[name].tasks == before[name].tasks
        assert after[name].result == before[name].result
        assert after[name].end_time == before[name].end_time
    assert after["slow"].start_time.seconds
    ended = (await scheduler.verbs.GetJob(job_pb2.GetJobRequest(id=job.id), CONTEXT)).job
    assert (ended.state, ended.progress, ended.current_step) == (job_pb2.JOB_STATE_COMPLETED, 100, len(PLACES))
    assert ended.items.rejected == sum(node.items.rejected for node in after.values())
    assert ended.tasks.done == ended.tasks.total == sum(node.tasks.total for node in after.values())
    request = job_pb2.ListAttemptsRequest(id=job.id, node="first", page_size=100)
    attempts = (await scheduler.verbs.ListAttempts(request, CONTEXT)).attempts
    assert len(attempts) == before["first"].tasks.total
    assert all(attempt.id.startswith(job.id) for attempt in attempts)
    manifests = await scheduler.verbs.ListManifests(
        job_pb2.ListManifestsRequest(id=job.id, node="second", page_size=100), CONTEXT
    )
    assert sum(each.manifest.count for each in manifests.manifests) == before["second"].items.ok
    events = await scheduler.reader.events(live.header.day, job.id, 0)
    assert isinstance(decode(events[0]), JobAccepted)
    assert decode(events[0]) == JobAccepted(made_of=old_id, from_node="slow")
    await scheduler.require_same_after_replay(job.id)
    await require_sound(scheduler)


@pytest.mark.parametrize("seed", range(6))
async def test_a_job_of_several_generations_is_taken_over_as_the_core_says(
    scheduler: Scheduler, tasks: asyncio.TaskGroup, seed: int
) -> None:
    rng = random.Random(seed)
    old_id = await submit(scheduler)
    await finish(scheduler, old_id, seed, fails=0.5)
    for number in range(rng.randint(1, 4)):
        old = live_of(scheduler, old_id)
        if str(old.run.state) == "COMPLETED" or rng.random() < 0.5:
            if any(node.rejected for node in old.run.nodes) or str(old.run.state) != "COMPLETED":
                await scheduler.verbs.RetryJob(job_pb2.RetryJobRequest(id=old_id), CONTEXT)
        else:
            await scheduler.verbs.RecoverJob(job_pb2.RecoverJobRequest(id=old_id), CONTEXT)
        await finish(scheduler, old_id, seed * 10 + number, fails=0.1)
    old = live_of(scheduler, old_id)
    if str(old.run.state) != "COMPLETED":
        await scheduler.verbs.RetryJob(job_pb2.RetryJobRequest(id=old_id), CONTEXT)
        await finish(scheduler, old_id)
    assert (str(old.run.state), old.run.generation > 1) == ("COMPLETED", True)
    if rng.random() < 0.5:
        await scheduler.restart(tasks)
        assert scheduler.replica.find(old_id) is None
    node = rng.choice(list(PLACES))
    job = await rerun(scheduler, old_id, node)
    again = stages_from(old.run.plan, PLACES[node])

    # The database copied what the core says is to be copied, in its order.
    wanted = (carried_change(decode(row), old.run.plan, again) for row in await records(scheduler.url, old_id))
    rows = await records(scheduler.url, job.id)
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    copied = [decode(row) for row in rows][2:]
    assert copied == [change for change in wanted if change is not None]
    payloads = {row["payload"] for row in await records(scheduler.url, old_id) if row["payload"]}
    assert all(row["payload"] in payloads for row in rows if row["payload"])

    live = live_of(scheduler, job.id)
    for stage in live.run.stages:
        if stage.plan.index not in again:
            assert stage_view(stage) == stage_view(old.run.stages[stage.plan.index])
    await scheduler.require_same_after_replay(job.id)
    await finish(scheduler, job.id, seed)
    assert str(live.run.state) == "COMPLETED"
    await require_sound(scheduler)


async def test_deleting_the_old_job_takes_nothing_from_the_new_one(
    scheduler: Scheduler, tasks: asyncio.TaskGroup
) -> None:
    old_id = await completed(scheduler)
    job = await rerun(scheduler, old_id, "second", request_id="once")
    await scheduler.delete(old_id)
    assert await scheduler.rows("journal", old_id) == 0
    # The call is repeated: its answer is still the job it made.
    assert (await rerun(scheduler, old_id, "second", request_id="once")).id == job.id
    with pytest.raises(NotFoundError):
        await rerun(scheduler, old_id, "second")
    await scheduler.restart(tasks)
    await finish(scheduler, job.id)
    assert str(live_of(scheduler, job.id).run.state) == "COMPLETED"
    await require_sound(scheduler)


async def test_a_request_makes_one_job_however_often_it_comes(scheduler: Scheduler) -> None:
    old_id = await completed(scheduler)
    answers = await asyncio.gather(*(rerun(scheduler, old_id, "slow", request_id="once") for _ in range(5)))
    assert len({job.id for job in answers}) == 1
    assert (await rerun(scheduler, old_id, "slow", request_id="once")).id == answers[0].id
    others: tuple[dict[str, Any], ...] = ({"node": "sheet"}, {"node": "slow", "seconds": 1}, {"node": ""})
    for other in others:
        with pytest.raises(AlreadyExistsError):
            await rerun(scheduler, old_id, request_id="once", **other)
    connection = await asyncpg.connect(scheduler.url)
    assert await connection.fetchval("SELECT count(*) FROM pixloom.job") == 2
    assert await connection.fetchval("SELECT count(DISTINCT job_id) FROM pixloom.journal") == 2
    await connection.close()
    # Tags of the old job do not make it another request.
    await scheduler.update(old_id, "tags", tags={"x": "y"})
    assert (await rerun(scheduler, old_id, "slow", request_id="once")).id == answers[0].id


async def test_a_param_that_a_kept_node_reads_is_refused_with_both_names(scheduler: Scheduler) -> None:
    old_id = await completed(scheduler)
    refusals: tuple[tuple[str, dict[str, Any], list[str]], ...] = (
        ("slow", {"count": 4}, ["/params/count"]),
        ("sheet", {"seconds": 2, "count": 4}, ["/params/count", "/params/seconds"]),
        ("second", {"least": 1}, ["/params/least"]),
        ("slow", {"cuont": 4}, ["/params/cuont"]),
    )
    for node, params, pointers in refusals:
        with pytest.raises(InvalidError) as refused:
            await rerun(scheduler, old_id, node, **params)
        assert refused.value.reason == "INVALID_PARAMS"
        assert [problem.pointer for problem in refused.value.problems] == pointers
    refused_count = str(await _refusal(scheduler, old_id, "slow", count=4))
    assert "node numbers" in refused_count
    assert "`count`" in refused_count
    # What nobody reads, and what is as it was, may be given.
    accepted: tuple[tuple[str, dict[str, Any]], ...] = (
        ("sheet", {"unread": "x", "count": 9}),
        ("numbers", {"count": 4, "least": 1, "seconds": 3}),
    )
    for node, params in accepted:
        assert (await rerun(scheduler, old_id, node, **params)).state == job_pb2.JOB_STATE_RUNNING


async def _refusal(scheduler: Scheduler, job_id: str, node: str, **params: Any) -> Exception:
    with pytest.raises((InvalidError, StateConflictError)) as refused:
        await rerun(scheduler, job_id, node, **params)
    return refused.value


async def test_what_has_no_complete_results_or_has_not_ended_is_refused_by_name(scheduler: Scheduler) -> None:
    job_id = await submit(scheduler)
    refused = await _refusal(scheduler, job_id, "slow")
    assert isinstance(refused, StateConflictError)
    assert refused.metadata == {"state": "RUNNING"}
    answering = Answering(scheduler.replica, random.Random(1))
    await answering.finish(live_of(scheduler, job_id), most_reports=3)
    await scheduler.verbs.CancelJob(job_pb2.CancelJobRequest(id=job_id, now=True), CONTEXT)
    run = live_of(scheduler, job_id).run
    assert (str(run.state), str(run.nodes[0].state)) == ("CANCELLED", "COMPLETED")
    refused = await _refusal(scheduler, job_id, "slow")
    assert isinstance(refused, StateConflictError)
    assert refused.metadata == {"state": "CANCELLED", "node": "first"}
    assert "rerun from first on" in str(refused)
    refused = await _refusal(scheduler, job_id, "nowhere")
    assert isinstance(refused, InvalidError)
    assert [problem.pointer for problem in refused.problems] == ["/from"]
    assert "numbers" in str(refused)
    # From where all before it is complete it works.
    job = await rerun(scheduler, job_id, "first")
    await finish(scheduler, job.id)
    assert str(live_of(scheduler, job.id).run.state) == "COMPLETED"
    await require_sound(scheduler)


async def test_nodes_that_share_a_stage_with_the_node_run_again_with_it(scheduler: Scheduler) -> None:
    document = {
        "name": "fused",
        "params": {"a": {"type": "number", "default": 0}, "b": {"type": "number", "default": 0}},
        "nodes": [
            {"id": "numbers", "op": "debug.range", "params": {"count": 5}},
            {"id": "one", "op": "debug.sleep", "inputs": {"items": "numbers"}, "params": {"seconds": "${params.a}"}},
            {"id": "two", "op": "debug.sleep", "inputs": {"items": "one"}, "params": {"seconds": "${params.b}"}},
            {"id": "all", "op": "agg.manifest", "inputs": {"items": "two"}},
        ],
    }
    old_id = await completed(scheduler, document=document)
    refused = await _refusal(scheduler, old_id, "two", a=1)
    assert "node one" in str(refused)
    job = await rerun(scheduler, old_id, "two", b=1)
    live = live_of(scheduler, job.id)
    assert len(live.run.stages) == 3
    ran = (await finish(scheduler, job.id)).ran
    assert {stage for stage, _ in ran} == {1, 2}
    assert str(live.run.state) == "COMPLETED"
    await require_sound(scheduler)


class Silent(InheritanceWriter):
    """A database that is not heard of after the writing, or breaks off before it."""

    writes = True

    async def write(self, *words: Any, **more: Any) -> bool:
        """Write or not, and give no answer."""
        if self.writes:
            await super().write(*words, **more)
        raise UnavailableError("the connection broke")


async def test_an_unanswered_commit_is_found_out(
    scheduler: Scheduler, engine: AsyncEngine, tasks: asyncio.TaskGroup
) -> None:
    old_id = await completed(scheduler)
    scheduler.writer = writer = Silent(engine)
    await scheduler.restart(tasks)
    job = await rerun(scheduler, old_id, "slow")
    await finish(scheduler, job.id)
    assert str(live_of(scheduler, job.id).run.state) == "COMPLETED"
    writer.writes = False
    with pytest.raises(UnavailableError, match="the connection broke"):
        await rerun(scheduler, old_id, "slow")
    connection = await asyncpg.connect(scheduler.url)
    assert await connection.fetchval("SELECT count(*) FROM pixloom.job") == 2
    await connection.close()
    await require_sound(scheduler)


class Deaf(InheritanceWriter):
    """A scheduler that ends between the commit and everything else."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        self.written = asyncio.Event()

    async def write(self, *words: Any, **more: Any) -> bool:
        """Write, and never come back."""
        await super().write(*words, **more)
        self.written.set()
        await asyncio.Event().wait()
        return True


async def test_a_job_that_was_durable_when_its_scheduler_ended_is_gone_on_with(
    scheduler: Scheduler, engine: AsyncEngine, tasks: asyncio.TaskGroup
) -> None:
    old_id = await completed(scheduler)
    scheduler.writer = writer = Deaf(engine)
    await scheduler.restart(tasks)
    asking = asyncio.create_task(rerun(scheduler, old_id, "second", request_id="once"))
    await writer.written.wait()
    stored = await scheduler.reader.job_by_request("default", "once")
    assert stored is not None
    assert stored.state == "RUNNING"
    asking.cancel()
    scheduler.writer = InheritanceWriter(engine)
    await scheduler.restart(tasks)
    assert (await rerun(scheduler, old_id, "second", request_id="once")).id == stored.id
    ran = (await finish(scheduler, stored.id)).ran
    plan = plan_from_json(stored.plan)
    assert {stage for stage, _ in ran} == stages_from(plan, PLACES["second"])
    await require_sound(scheduler)


async def test_who_lost_the_partition_writes_nothing(scheduler: Scheduler, database_url: str) -> None:
    old_id = await completed(scheduler)
    taker = Ownership(
        connect=lambda: connect(database_url, lease_s=LEASE_S), replica="b", address="b:1", lease_s=LEASE_S
    )
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE pixloom.partition SET expires_at = clock_timestamp() - interval '1 s'")
    owned = await taker.take(16)
    assert len(owned) == 16
    with pytest.raises(UnavailableError):
        await rerun(scheduler, old_id, "slow")
    assert await connection.fetchval("SELECT count(DISTINCT job_id) FROM pixloom.journal") == 1
    assert await connection.fetchval("SELECT count(*) FROM pixloom.job") == 1
    await taker.release([partition.id for partition in owned])
    await connection.close()


async def test_the_journal_that_a_job_begins_with_replays_on_its_own(scheduler: Scheduler) -> None:
    """Not only does the loader read it: any prefix of it is a history that could have been."""
    old_id = await completed(scheduler, seed=3)
    job = await rerun(scheduler, old_id, "sheet")
    live = live_of(scheduler, job.id)
    run = JobRun.of(job.id, live.header.partition, live.run.plan)
    for row in await records(scheduler.url, job.id):
        apply(run, [decode(row)], time=row["time"].timestamp())
        assert run.seq == row["seq"]
        assert run.generation == row["generation"]
    assert durable_view(run) == durable_view(live.run)
