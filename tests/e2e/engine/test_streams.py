"""The streams between the parts: reports that are not what was granted, and watchers through a restart."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
import orjson
import pytest
from google.protobuf.duration_pb2 import Duration

from pixloom.errors import InvalidError
from pixloom.resources import Event
from pixloom.rpc.channel import aio_channel
from pixloom.v1 import executor_pb2 as pb
from pixloom.v1 import job_pb2, job_pb2_grpc
from tests.support.bare_executor import BareExecutor, succeeded
from tests.support.gate import Gate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from pixloom.resources import Job
    from tests.support.engine import Engine

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("engine-streams")]

FORGERIES: dict[str, Callable[[pb.Report], object]] = {
    "no token": lambda report: report.ClearField("lease_token"),
    "a token made up": lambda report: setattr(report, "lease_token", bytes(range(32))),
    "a token with one bit turned": lambda report: setattr(
        report, "lease_token", report.lease_token[:-1] + bytes([report.lease_token[-1] ^ 1])
    ),
    "another generation": lambda report: setattr(report, "generation", report.generation + 1),
    "an older generation": lambda report: setattr(report, "generation", report.generation - 1),
    "another stage": lambda report: setattr(report, "stage", report.stage - 1),
    "a stage that is not there": lambda report: setattr(report, "stage", 99),
    "another job": lambda report: setattr(report, "job_id", report.job_id[:-3] + "000"),
    "a stale attempt": lambda report: setattr(report.results[0], "attempt", 0),
    "an attempt to come": lambda report: setattr(report.results[0], "attempt", 2),
    "a task of somebody else": lambda report: setattr(report.results[0], "shard", 1),
    "a task that is not there": lambda report: setattr(report.results[0], "shard", 4_000_000_000),
}


def scheduler_of(engine: Engine) -> str:
    return f"127.0.0.1:{engine.stack.wiring.scheduler_port}"


async def journal_of(engine: Engine, job_id: str) -> list[tuple[Any, ...]]:
    """Return the journal of a job, whole rows."""
    connection = await asyncpg.connect(engine.stack.wiring.database_url)
    try:
        rows = await connection.fetch("SELECT * FROM journal WHERE job_id = $1 ORDER BY seq", job_id)
    finally:
        await connection.close()
    return [tuple(row.values()) for row in rows]


async def granted(engine: Engine, executor: BareExecutor, pool: str) -> tuple[Job, pb.LeaseBatch, pb.Grant]:
    """Submit a job whose second node only `executor` serves, and let it claim its only task."""
    job = await engine.submit(
        {"id": "numbers", "op": "debug.range", "params": {"count": 4}},
        {"id": "step", "op": "debug.noop", "inputs": {"items": "numbers"}, "pool": pool, "shard_size": 4},
    )
    batch = await executor.pull(engine.stack.wiring.nats_url)
    assert batch.job_id == job.id
    grant = await executor.claim(batch)
    assert [(task.shard, task.attempt) for task in grant.tasks] == [(0, 1)]
    return job, batch, grant


async def test_reports_that_are_not_what_was_granted_change_nothing(engine: Engine) -> None:
    async with (
        BareExecutor("bare-1", scheduler=scheduler_of(engine), pool="bare") as executor,
        BareExecutor("bare-2", scheduler=scheduler_of(engine), pool="elsewhere") as thief,
    ):
        job, batch, grant = await granted(engine, executor, "bare")
        report = succeeded(batch, grant)
        seq = (await engine.client.get_job(job.id)).seq
        rows = await journal_of(engine, job.id)
        for number, (name, forge) in enumerate(FORGERIES.items(), start=100):
            forged = pb.Report()
            forged.CopyFrom(report)
            forged.report_id = number
            forge(forged)
            assert await executor.refused(forged) == [forged.results[0].shard], name
            assert await journal_of(engine, job.id) == rows, name
        # The true token in the hands of another executor.
        assert await thief.refused(report) == [0]
        lease = pb.Lease(
            lease_token=grant.lease_token,
            job_id=job.id,
            generation=batch.generation,
            stage=batch.stage,
            tasks=grant.tasks,
            held=[0],
        )
        await thief.send(announce=pb.Announce(leases=[lease]))
        assert list((await thief.answer("announce_ack")).refused_tokens) == [grant.lease_token]
        assert await thief.refused(report) == [0]
        assert await journal_of(engine, job.id) == rows
        assert (await engine.client.get_job(job.id)).seq == seq

        # What was granted is accepted, once.
        assert await executor.refused(report) == []
        ended = await engine.finish(job.id)
        assert (ended.state, ended.items.ok) == ("COMPLETED", 4)
        rows = await journal_of(engine, job.id)
        report.report_id = 2
        assert await executor.refused(report) == [0]
        assert await journal_of(engine, job.id) == rows
        attempts = await engine.attempts(job.id, "step")
        assert [(attempt.outcome, attempt.executor_id) for attempt in attempts] == [("OK", "bare-1")]


async def test_a_task_whose_executor_is_silent_goes_to_another_one_and_its_report_comes_too_late(
    engine: Engine,
) -> None:
    async with BareExecutor("bare-4", scheduler=scheduler_of(engine), pool="late") as second:
        async with BareExecutor("bare-3", scheduler=scheduler_of(engine), pool="late") as first:
            job, batch, grant = await granted(engine, first, "late")
        # The stream of the first one is broken now: its lease is lost after a short grace.
        again = await second.pull(engine.stack.wiring.nats_url)
        assert [(task.shard, task.attempt) for task in again.tasks] == [(0, 2)]
        grant_again = await second.claim(again)
        async with BareExecutor("bare-3", scheduler=scheduler_of(engine), pool="late") as first:
            assert await first.refused(succeeded(batch, grant)) == [0]
        assert await second.refused(succeeded(again, grant_again)) == []
        assert (await engine.finish(job.id)).items.ok == 4
        attempts = await engine.attempts(job.id, "step")
        assert [(attempt.number, attempt.outcome) for attempt in attempts] == [(1, "LOST"), (2, "OK")]


async def test_what_was_handed_over_on_a_stream_that_nobody_read_goes_out_again_as_the_same_attempt(
    engine: Engine,
) -> None:
    async with BareExecutor("bare-9", scheduler=scheduler_of(engine), pool="unread", open_slots=1) as before:
        job = await engine.submit(
            {"id": "numbers", "op": "debug.range", "params": {"count": 4}},
            {"id": "step", "op": "debug.noop", "inputs": {"items": "numbers"}, "pool": "unread", "shard_size": 4},
        )
        unread = await before.answer("assignment")
        assert unread.batch.job_id == job.id
        # It comes back and knows of no lease.
        async with BareExecutor("bare-9", scheduler=scheduler_of(engine), pool="unread", open_slots=1) as again:
            handed = await again.answer("assignment")
            assert [(task.shard, task.attempt) for task in handed.batch.tasks] == [(0, 1)]
            assert handed.lease_token != unread.lease_token
            assert await again.refused(succeeded(unread.batch, unread)) == [0]
            report = succeeded(handed.batch, handed)
            report.report_id = 2
            assert await again.refused(report) == []
            assert (await engine.finish(job.id)).items.ok == 4
    attempts = await engine.attempts(job.id, "step")
    assert [(attempt.number, attempt.outcome) for attempt in attempts] == [(1, "OK")]


async def test_a_claim_on_a_stream_that_its_executor_has_left_is_granted_to_nobody(engine: Engine) -> None:
    async with BareExecutor("bare-10", scheduler=scheduler_of(engine), pool="left") as before:
        job = await engine.submit(
            {"id": "numbers", "op": "debug.range", "params": {"count": 4}},
            {"id": "step", "op": "debug.noop", "inputs": {"items": "numbers"}, "pool": "left", "shard_size": 4},
        )
        batch = await before.pull(engine.stack.wiring.nats_url)
        async with BareExecutor("bare-10", scheduler=scheduler_of(engine), pool="left") as again:
            # It was still on its way when its executor opened another stream.
            await before.ask(batch)
            await before.send(heartbeat=pb.Heartbeat(open_slots=0))
            await before.answer("heartbeat_reply")
            grant = await again.claim(batch)
            assert [(task.shard, task.attempt) for task in grant.tasks] == [(0, 1)]
            assert await again.refused(succeeded(batch, grant)) == []
            assert (await engine.finish(job.id)).items.ok == 4


async def test_what_an_executor_had_pulled_when_it_went_is_offered_to_others_without_waiting_for_it(
    engine: Engine,
) -> None:
    nats_url = engine.stack.wiring.nats_url
    async with BareExecutor("bare-12", scheduler=scheduler_of(engine), pool="pulled") as second:
        async with BareExecutor("bare-11", scheduler=scheduler_of(engine), pool="pulled") as first:
            job = await engine.submit(
                {"id": "numbers", "op": "debug.range", "params": {"count": 4}},
                {"id": "step", "op": "debug.noop", "inputs": {"items": "numbers"}, "pool": "pulled", "shard_size": 4},
            )
            pulled = await first.pull(nats_url, acknowledge=False)
        again = await second.pull(nats_url)
        while again.dispatch_id == pulled.dispatch_id:
            # So much time has passed that the message itself came again.
            again = await second.pull(nats_url)
        grant = await second.claim(again)
        assert await second.refused(succeeded(again, grant)) == []
        assert (await engine.finish(job.id)).items.ok == 4
        assert (await second.claim(pulled)).tasks == []


async def chain(engine: Engine, *, steps: int = 8, seconds: float = 0.2, gate: Gate | None = None) -> Job:
    """Submit a job whose nodes end one after the other; the last of them waits at the gate, if there is one."""
    nodes: list[dict[str, Any]] = [{"id": "n0", "op": "debug.range", "params": {"count": 1}}]
    nodes += [
        {
            "id": f"n{number}",
            "op": "debug.sleep",
            "inputs": {"items": f"n{number - 1}"},
            "params": {"seconds": seconds},
            "fuse": False,
        }
        for number in range(1, steps + 1)
    ]
    if gate is not None:
        nodes[-1] = gate.node(f"n{steps}", behind=f"n{steps - 1}", fuse=False)
    return await engine.submit(*nodes)


async def sse_events(
    engine: Engine, job_id: str, *, last_event_id: int = 0
) -> AsyncIterator[tuple[int | None, str, Any]]:
    """Yield number, kind and data of server-sent events until the stream ends."""
    headers = {"Last-Event-ID": str(last_event_id)} if last_event_id else {}
    async with engine.http.stream("GET", f"/api/v1/jobs/{job_id}/events", headers=headers) as response:
        assert response.status_code == 200
        fields: dict[str, str] = {}
        async for line in response.aiter_lines():
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
            elif not line and "event" in fields:
                number = int(fields["id"]) if "id" in fields else None
                yield number, fields["event"], orjson.loads(fields["data"])
                fields = {}


class Watcher:
    """What one watcher has seen, and whether it has begun."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.breaks = 0
        self.begun = asyncio.Event()

    def take(self, seq: int) -> None:
        self.seen.append(seq)
        if len(self.seen) == 3:
            self.begun.set()

    async def watch_scheduler(self, engine: Engine, job: Job) -> None:
        """Watch the scheduler itself, without any help of the gateway or the SDK."""
        async with aio_channel(scheduler_of(engine)) as channel:
            stub = job_pb2_grpc.JobServiceStub(channel)
            ended = False
            while not ended:
                request = job_pb2.WatchJobRequest(id=job.id, after_seq=self.seen[-1] if self.seen else 0)
                try:
                    async for update in stub.WatchJob(request, wait_for_ready=True):
                        if update.WhichOneof("update") == "event":
                            self.take(update.event.seq)
                    ended = True
                except grpc.aio.AioRpcError as error:
                    assert error.code() == grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - what else it is matters here
                    self.breaks += 1

    async def watch_events(self, engine: Engine, job: Job) -> None:
        """Watch the gateway as a browser does, over one connection."""
        last = ""
        async for number, kind, _ in sse_events(engine, job.id):
            last = kind
            if number is not None:
                self.take(number)
        assert last == "end"

    async def watch_client(self, engine: Engine, job: Job) -> None:
        """Watch with the SDK."""
        async for update in engine.client.watch_job(job.id):
            if isinstance(update, Event):
                self.take(update.seq)


async def test_watchers_miss_and_repeat_nothing_when_the_scheduler_is_killed(engine: Engine, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    job = await chain(engine, gate=gate)
    scheduler, browser, client = watchers = (Watcher(), Watcher(), Watcher())
    async with asyncio.timeout(90), asyncio.TaskGroup() as tasks:
        tasks.create_task(scheduler.watch_scheduler(engine, job))
        tasks.create_task(browser.watch_events(engine, job))
        tasks.create_task(client.watch_client(engine, job))
        for watcher in watchers:
            await watcher.begun.wait()
        await engine.stack.wait_replaced("scheduler", engine.stack.kill("scheduler"))
        gate.open()
    assert scheduler.breaks > 0
    assert (await engine.finish(job.id)).state == "COMPLETED"
    events = await engine.events(job.id)
    expected = [event.seq for event in events]
    assert expected == sorted(set(expected))
    assert [event.type for event in events][:2] == ["job_created", "job_started"]
    assert [event.node for event in events if event.type == "node_ended"] == [f"n{number}" for number in range(9)]
    assert events[-1].type == "job_ended"
    for watcher in watchers:
        assert watcher.seen == expected
    for event in events:
        after = [later.seq for later in await engine.events(job.id, after_seq=event.seq)]
        assert after == [seq for seq in expected if seq > event.seq]


async def test_a_browser_that_connects_again_after_each_event_misses_and_repeats_nothing(engine: Engine) -> None:
    job = await chain(engine, steps=4, seconds=0.1)
    seen: list[Event] = []
    ended = False
    async with asyncio.timeout(60):
        while not ended:
            stream = sse_events(engine, job.id, last_event_id=seen[-1].seq if seen else 0)
            async for number, kind, data in stream:
                ended = kind == "end"
                if number is not None:
                    seen.append(Event.model_validate(data))
                    assert seen[-1].seq == number
                    break
            await stream.aclose()  # type: ignore[attr-defined]
    assert seen == await engine.events(job.id)
    assert len(seen) >= 2 + 5 + 1


def taken_back(report: pb.Report) -> pb.Report:
    """Return a report that its tasks were ended before they were finished."""
    ended = pb.Report()
    ended.CopyFrom(report)
    ended.report_id = 7
    for result in ended.results:
        result.Clear()
        result.attempt, result.outcome, result.reason = 1, job_pb2.ATTEMPT_OUTCOME_CANCELLED, "CANCELLED"
    return ended


async def test_a_result_that_arrives_before_its_task_is_handed_back_counts(engine: Engine) -> None:
    async with BareExecutor("bare-3", scheduler=scheduler_of(engine), pool="paused") as executor:
        job, batch, grant = await granted(engine, executor, "paused")
        await engine.client.pause_job(job.id, now=True)
        told = await executor.answer("cancel_tasks")
        assert (told.job_id, told.generation, told.now) == (job.id, 1, True)
        # It was finished at that very moment.
        assert await executor.refused(succeeded(batch, grant)) == []
        assert await executor.refused(taken_back(succeeded(batch, grant))) == [0]
        # It was the last, so the job has ended although it was paused.
        ended = await engine.finish(job.id)
    assert (ended.state, ended.items.ok) == ("COMPLETED", 4)


async def test_a_task_that_was_handed_back_is_granted_again_as_the_same_attempt_and_its_old_lease_is_void(
    engine: Engine,
) -> None:
    async with BareExecutor("bare-4", scheduler=scheduler_of(engine), pool="given-back") as executor:
        job, batch, grant = await granted(engine, executor, "given-back")
        await engine.client.pause_job(job.id, now=True)
        await executor.answer("cancel_tasks")
        rows = await journal_of(engine, job.id)
        assert await executor.refused(taken_back(succeeded(batch, grant))) == [0]
        assert await executor.refused(succeeded(batch, grant)) == [0]
        assert (await executor.claim(batch)).tasks == []
        assert await journal_of(engine, job.id) == rows
        await engine.client.resume_job(job.id)
        again = await executor.pull(engine.stack.wiring.nats_url)
        second = await executor.claim(again)
        assert [(task.shard, task.attempt) for task in second.tasks] == [(0, 1)]
        assert second.lease_token != grant.lease_token
        assert await executor.refused(succeeded(batch, grant)) == [0]
        assert await executor.refused(succeeded(again, second)) == []
        assert (await engine.finish(job.id)).state == "COMPLETED"
    assert [attempt.number for attempt in await engine.attempts(job.id, "step")] == [1]


async def test_an_executor_that_announces_what_was_taken_back_is_told_again(engine: Engine) -> None:
    async with BareExecutor("bare-5", scheduler=scheduler_of(engine), pool="reminded") as executor:
        job, batch, grant = await granted(engine, executor, "reminded")
        lease = pb.Lease(
            lease_token=grant.lease_token, job_id=job.id, generation=1, stage=batch.stage, tasks=grant.tasks, held=[0]
        )
        for now in (False, True):
            await engine.client.pause_job(job.id, now=now)
            assert (await executor.answer("cancel_tasks")).now is now
            await executor.send(announce=pb.Announce(leases=[lease]))
            assert (await executor.answer("announce_ack")).refused_tokens == []
            assert (await executor.answer("cancel_tasks")).now is now
        await engine.client.cancel_job(job.id, now=True)
        await executor.send(announce=pb.Announce(leases=[lease]))
        assert (await executor.answer("announce_ack")).refused_tokens == [grant.lease_token]


async def test_a_cancelled_job_ends_when_its_last_task_is_handed_back(engine: Engine) -> None:
    async with BareExecutor("bare-6", scheduler=scheduler_of(engine), pool="leaving") as executor:
        job, batch, grant = await granted(engine, executor, "leaving")
        assert (await engine.client.cancel_job(job.id)).state == "RUNNING"
        assert (await executor.answer("cancel_tasks")).now is False
        back = pb.GiveBack(lease_token=grant.lease_token, job_id=job.id, generation=1, stage=batch.stage, shards=[0])
        await executor.send(give_back=back)
        assert (await engine.finish(job.id)).state == "CANCELLED"


async def test_a_create_that_waits_answers_with_the_job_as_it_ended(engine: Engine) -> None:
    document = {
        "name": "small",
        "nodes": [{"id": "only", "op": "debug.range", "params": {"count": 2}}],
        "outputs": {"numbers": "only"},
    }
    job = await engine.client.create_job(spec=document, wait_s=60)
    assert job.state == "COMPLETED"
    assert job == await engine.client.get_job(job.id)
    assert job.outputs["numbers"].count == 2
    answer = await engine.http.post("/api/v1/jobs", json={"spec": document}, headers={"Prefer": "wait=60"})
    assert (answer.status_code, answer.json()["state"]) == (201, "COMPLETED")


async def test_a_create_that_waits_answers_when_its_time_is_up_and_the_job_goes_on(engine: Engine) -> None:
    document = {"name": "long", "nodes": [{"id": "only", "op": "debug.sleep", "params": {"seconds": 60}}]}
    begin = asyncio.get_running_loop().time()
    job = await engine.client.create_job(spec=document, wait_s=0.5, request_id="waits-in-vain")
    waited_s = asyncio.get_running_loop().time() - begin
    assert job.state == "RUNNING"
    assert waited_s >= 0.5
    async with aio_channel(engine.client.address) as channel:
        request = job_pb2.CreateJobRequest(
            spec_json=orjson.dumps(document), request_id="waits-in-vain", wait=Duration(seconds=60)
        )
        # The deadline of the call comes before that of its wait: it is answered all the same, and with the first job.
        again = await job_pb2_grpc.JobServiceStub(channel).CreateJob(request, timeout=2)
    assert (again.job.id, again.job.state) == (job.id, job_pb2.JOB_STATE_RUNNING)
    await engine.client.cancel_job(job.id, now=True)


@pytest.mark.parametrize("wait_s", [-1.0, 61.0])
async def test_a_wait_out_of_range_is_refused_before_anything_is_accepted(engine: Engine, wait_s: float) -> None:
    with pytest.raises(InvalidError, match="it ranges from 0 to 60 s") as refused:
        await engine.client.create_job(
            spec={"name": "never", "nodes": [{"id": "a", "op": "debug.noop"}]}, wait_s=wait_s
        )
    assert [problem.pointer for problem in refused.value.problems] == ["/wait"]
    assert [job async for job in engine.client.iter_jobs(workflow="never")] == []
