"""Verbs as the scheduler serves them, over a real PostgreSQL: what they write, what they refuse, what a reload shows."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from pixloom.errors import InvalidError, NotFoundError, StateConflictError, UnavailableError
from pixloom.v1 import job_pb2
from pixloom_scheduler.core.events import CancelRequested
from pixloom_scheduler.journal import finished
from pixloom_scheduler.journal.finished import FinishedJobs, fence
from pixloom_scheduler.journal.reader import JobFilter
from tests.support.scheduler_verbs import CONTEXT, Scheduler

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


async def test_a_waiting_job_may_lack_params_and_shows_its_nodes(scheduler: Scheduler) -> None:
    job_id = await scheduler.submit(start=False, params={})
    live = scheduler.replica.find(job_id)
    assert live is not None
    assert [node.plan.id for node in live.run.nodes] == ["numbers", "wait"]
    with pytest.raises(InvalidError) as refused:
        await scheduler.start_job(job_id)
    assert (refused.value.reason, refused.value.problems[0].reason) == ("INVALID_PARAMS", "MISSING_PARAM")
    with pytest.raises(InvalidError, match="count"):
        await scheduler.submit(start=True, params={})


async def test_wrong_params_are_refused_for_a_waiting_job_too(scheduler: Scheduler) -> None:
    with pytest.raises(InvalidError) as refused:
        await scheduler.submit(start=False, params={"seconds": "long"})
    assert [problem.pointer for problem in refused.value.problems] == ["/params/seconds"]


async def test_params_and_plan_become_durable_with_the_start(scheduler: Scheduler, tasks: asyncio.TaskGroup) -> None:
    job_id = await scheduler.submit(start=False, params={})
    started = await scheduler.start_job(job_id, {"count": 7})
    assert started.state == job_pb2.JOB_STATE_RUNNING
    assert orjson.loads(started.params_json) == {"count": 7, "seconds": 0}
    live = scheduler.replica.find(job_id)
    assert live is not None
    assert live.run.nodes[0].plan.params == {"count": 7}
    assert live.run.deadline > 0
    await scheduler.require_same_after_replay(job_id)
    await scheduler.restart(tasks)
    again = scheduler.replica.find(job_id)
    assert again is not None
    assert again.run.nodes[0].plan.params == {"count": 7}
    assert again.run.plan == live.run.plan


async def test_params_that_do_not_fit_leave_the_job_pending_and_untouched(scheduler: Scheduler) -> None:
    job_id = await scheduler.submit(start=False)
    for params, pointer in (({"count": 0}, "/params/count"), ({"cuont": 1}, "/params/cuont")):
        with pytest.raises(InvalidError) as refused:
            await scheduler.start_job(job_id, params)
        assert [problem.pointer for problem in refused.value.problems] == [pointer]
    live = scheduler.replica.find(job_id)
    assert live is not None
    assert (str(live.run.state), live.run.seq, orjson.loads(live.header.params_json)) == (
        "PENDING",
        1,
        {"count": 3, "seconds": 0},
    )


async def test_of_two_starts_at_once_one_wins_and_the_other_is_told(scheduler: Scheduler) -> None:
    job_id = await scheduler.submit(start=False)
    answers = await asyncio.gather(
        *(scheduler.start_job(job_id, {"count": count}) for count in (4, 5)), return_exceptions=True
    )
    won = [answer for answer in answers if isinstance(answer, job_pb2.Job)]
    lost = [answer for answer in answers if isinstance(answer, StateConflictError)]
    assert (len(won), len(lost)) == (1, 1)
    assert lost[0].metadata == {"state": "RUNNING"}
    params = orjson.loads(won[0].params_json)
    assert (await scheduler.start_job(job_id, params)).params_json == won[0].params_json
    with pytest.raises(StateConflictError):
        await scheduler.start_job(job_id, {"count": params["count"] + 10})


async def test_a_pause_says_in_the_journal_whether_running_tasks_are_taken_back(
    scheduler: Scheduler, tasks: asyncio.TaskGroup
) -> None:
    job_id = await scheduler.submit()
    for now, seq in ((False, 3), (False, 3), (True, 4), (True, 4), (False, 4)):
        job = (await scheduler.verbs.PauseJob(job_pb2.PauseJobRequest(id=job_id, now=now), CONTEXT)).job
        assert (job.state, job.seq) == (job_pb2.JOB_STATE_PAUSED, seq)
    await scheduler.restart(tasks)
    live = scheduler.replica.find(job_id)
    assert live is not None
    assert (str(live.run.state), live.run.gives_back) == ("PAUSED", True)
    for _ in range(2):
        job = (await scheduler.verbs.ResumeJob(job_pb2.ResumeJobRequest(id=job_id), CONTEXT)).job
        assert (job.state, job.seq) == (job_pb2.JOB_STATE_RUNNING, 5)
    await scheduler.require_same_after_replay(job_id)


async def test_an_update_changes_row_and_memory_alike(scheduler: Scheduler, tasks: asyncio.TaskGroup) -> None:
    job_id = await scheduler.submit()
    job = await scheduler.update(job_id, "tags", "priority", tags={"x": "y"}, priority=9)
    assert (dict(job.tags), job.priority, job.seq) == ({"x": "y"}, 9, 3)
    assert (await scheduler.update(job_id, "tags", "priority", tags={"x": "y"}, priority=9)).seq == 3
    assert dict((await scheduler.update(job_id, "priority", tags={"not": "this"}, priority=0)).tags) == {"x": "y"}
    await scheduler.require_same_after_replay(job_id)
    await scheduler.restart(tasks)
    live = scheduler.replica.find(job_id)
    assert live is not None
    assert (live.header.tags, live.header.priority, live.run.priority) == ({"x": "y"}, 0, 0)
    found = await scheduler.reader.job_ids(JobFilter(tags={"x": "y"}), before="", most=10)
    assert found == [job_id]


@pytest.mark.parametrize("in_memory", [True, False])
async def test_tags_of_a_finished_job_are_changed_and_its_priority_is_not(
    scheduler: Scheduler, tasks: asyncio.TaskGroup, *, in_memory: bool
) -> None:
    job_id = await scheduler.cancelled()
    if not in_memory:
        await scheduler.restart(tasks)
        assert scheduler.replica.find(job_id) is None
    before = (await scheduler.update(job_id, "priority", priority=5)).seq
    for tags in ({"x": "y"}, {"x": "y"}, {}):
        job = await scheduler.update(job_id, "tags", tags=tags)
        assert (dict(job.tags), job.state) == (tags, job_pb2.JOB_STATE_CANCELLED)
    assert job.seq == before + 2
    with pytest.raises(StateConflictError, match=r"CANCELLED.*priority"):
        await scheduler.update(job_id, "priority", priority=6)
    stored = await scheduler.reader.job(job_id)
    assert stored is not None
    assert stored.record is not None
    record = job_pb2.Job.FromString(stored.record)
    assert (dict(record.tags), record.seq, record.reason) == ({}, before + 2, "CANCELLED")
    events = await scheduler.reader.events(stored.day, job_id, before)
    assert [event["seq"] for event in events] == [before + 1, before + 2]
    loaded = await scheduler.loader.load(job_id)
    assert loaded is not None
    assert (loaded.run.seq, loaded.header.tags) == (before + 2, {})


async def test_an_update_says_what_it_cannot_change(scheduler: Scheduler) -> None:
    job_id = await scheduler.submit()
    for paths, values in (((), {}), (("name",), {"name": "x"}), (("priority",), {"priority": 10})):
        with pytest.raises(InvalidError):
            await scheduler.update(job_id, *paths, **values)
    with pytest.raises(NotFoundError):
        await scheduler.update("0" * 32, "tags")


@pytest.mark.parametrize("in_memory", [True, False])
async def test_delete_leaves_no_row(scheduler: Scheduler, tasks: asyncio.TaskGroup, *, in_memory: bool) -> None:
    job_id, other = await scheduler.cancelled(), await scheduler.cancelled()
    if not in_memory:
        await scheduler.restart(tasks)
    counts = {table: await scheduler.rows(table, job_id) for table in ("job", "node", "journal")}
    assert all(counts.values())
    await scheduler.delete(job_id)
    assert {table: await scheduler.rows(table, job_id) for table in counts} == dict.fromkeys(counts, 0)
    assert {table: await scheduler.rows(table, other) for table in counts} == counts
    assert scheduler.replica.find(job_id) is None
    with pytest.raises(NotFoundError):
        await scheduler.delete(job_id)
    await scheduler.delete(job_id, allow_missing=True)


async def test_an_unfinished_job_is_not_deleted(scheduler: Scheduler) -> None:
    waiting, running = await scheduler.submit(start=False), await scheduler.submit()
    for job_id, state in ((waiting, "PENDING"), (running, "RUNNING")):
        with pytest.raises(StateConflictError, match=state) as refused:
            await scheduler.delete(job_id)
        assert refused.value.metadata == {"state": state}
        assert scheduler.replica.find(job_id) is not None


async def test_a_former_owner_deletes_and_changes_nothing(scheduler: Scheduler, tasks: asyncio.TaskGroup) -> None:
    job_id = await scheduler.cancelled()
    await scheduler.restart(tasks)
    stored = await scheduler.reader.job(job_id)
    assert stored is not None
    epoch = scheduler.replica.stamps[stored.partition].epoch
    jobs = FinishedJobs(scheduler.engine)
    counts = {table: await scheduler.rows(table, job_id) for table in ("job", "node", "journal")}
    for former in (epoch - 1, epoch + 1):
        with pytest.raises(UnavailableError):
            await jobs.delete(stored, epoch=former)
        with pytest.raises(UnavailableError):
            await jobs.retag(stored, {"x": "y"}, epoch=former)
    assert {table: await scheduler.rows(table, job_id) for table in counts} == counts
    assert await jobs.delete(stored, epoch=epoch)
    assert not await jobs.delete(stored, epoch=epoch)
    assert await jobs.retag(stored, {"x": "y"}, epoch=epoch) is None


async def test_cancel_all_goes_through_all_pages_and_counts_what_it_cancelled(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixloom_scheduler.rpc.verbs.CANCEL_BATCH", 4)
    jobs = [await scheduler.submit(start=number % 2 == 0, tags={"batch": "1"}) for number in range(11)]
    other = await scheduler.submit(tags={"batch": "2"})

    async def cancel_all(**wanted: Any) -> int:
        request = job_pb2.CancelAllJobsRequest(now=True, **wanted)
        return (await scheduler.verbs.CancelAllJobs(request, CONTEXT)).cancelled

    assert await cancel_all(tags={"batch": "1"}, workflow="another") == 0
    assert await cancel_all(tags={"batch": "1"}, states=[job_pb2.JOB_STATE_PENDING]) == 5
    assert await cancel_all(tags={"batch": "1"}) == 6
    assert await cancel_all(tags={"batch": "1"}) == 0
    assert {str(live.run.state) for job_id in jobs if (live := scheduler.replica.find(job_id))} == {"CANCELLED"}
    live = scheduler.replica.find(other)
    assert live is not None
    assert str(live.run.state) == "RUNNING"
    with pytest.raises(InvalidError, match="FAILED"):
        await cancel_all(states=[job_pb2.JOB_STATE_FAILED])


async def test_verbs_on_finished_jobs_name_the_state_after_a_restart_too(
    scheduler: Scheduler, tasks: asyncio.TaskGroup
) -> None:
    job_id = await scheduler.cancelled()
    for _ in range(2):
        cancelled = (await scheduler.verbs.CancelJob(job_pb2.CancelJobRequest(id=job_id), CONTEXT)).job
        assert cancelled.state == job_pb2.JOB_STATE_CANCELLED
        for verb in (
            scheduler.start_job(job_id),
            scheduler.verbs.PauseJob(job_pb2.PauseJobRequest(id=job_id, now=True), CONTEXT),
            scheduler.verbs.ResumeJob(job_pb2.ResumeJobRequest(id=job_id), CONTEXT),
        ):
            with pytest.raises(StateConflictError, match="CANCELLED") as refused:
                await verb
            assert refused.value.metadata == {"state": "CANCELLED"}
        await scheduler.restart(tasks)


@pytest.mark.parametrize("verb", ["RecoverJob", "RetryJob"])
async def test_a_job_is_taken_up_once_by_a_call_also_when_it_ended_again_and_after_a_restart(
    scheduler: Scheduler, tasks: asyncio.TaskGroup, verb: str
) -> None:
    job_id = await scheduler.cancelled()
    request = getattr(job_pb2, f"{verb}Request")
    taken_up = (await getattr(scheduler.verbs, verb)(request(id=job_id, request_id="once"), CONTEXT)).job
    await scheduler.verbs.CancelJob(job_pb2.CancelJobRequest(id=job_id, now=True), CONTEXT)
    for _ in range(2):
        again = (await getattr(scheduler.verbs, verb)(request(id=job_id, request_id="once"), CONTEXT)).job
        assert (again.state, again.generation) == (job_pb2.JOB_STATE_CANCELLED, taken_up.generation)
        assert again.recovery_attempts == taken_up.recovery_attempts
        await scheduler.require_same_after_replay(job_id)
        await scheduler.restart(tasks)
    further = (await getattr(scheduler.verbs, verb)(request(id=job_id, request_id="twice"), CONTEXT)).job
    assert further.generation == taken_up.generation + 1


async def test_a_node_to_recover_from_that_the_job_does_not_have_is_named_with_its_place(scheduler: Scheduler) -> None:
    job_id = await scheduler.cancelled()
    for request, pointer in (
        (scheduler.verbs.RecoverJob(job_pb2.RecoverJobRequest(id=job_id, from_node="wit"), CONTEXT), "/from"),
        (scheduler.verbs.RetryJob(job_pb2.RetryJobRequest(id=job_id, nodes=["wit"]), CONTEXT), "/nodes"),
    ):
        with pytest.raises(InvalidError, match="has no node wit; it has numbers, wait") as refused:
            await request
        assert [problem.pointer for problem in refused.value.problems] == [pointer]


async def test_a_reload_after_a_refused_batch_keeps_header_and_plan_together(scheduler: Scheduler) -> None:
    good, bad = await scheduler.submit(start=False), await scheduler.submit()
    # Both in one batch: what the database refuses of the one must not leave half a start of the other.
    answers = await asyncio.gather(
        scheduler.start_job(good, {"count": 9}),
        scheduler.replica.command(bad, CancelRequested(detail="a\0b", now=True)),
        return_exceptions=True,
    )
    assert isinstance(answers[0], job_pb2.Job)
    assert orjson.loads(answers[0].params_json)["count"] == 9
    await scheduler.require_same_after_replay(good)


async def test_events_tell_what_was_changed(scheduler: Scheduler) -> None:
    job_id = await scheduler.submit()
    await scheduler.update(job_id, "priority", priority=8)
    await scheduler.verbs.PauseJob(job_pb2.PauseJobRequest(id=job_id, now=True), CONTEXT)
    live = scheduler.replica.find(job_id)
    assert live is not None
    assert [(event.type, event.detail) for event in live.events][-2:] == [
        ("job_updated", "its priority is 8"),
        ("job_paused", "running tasks were taken back"),
    ]
    assert live.events[0].time.ToDatetime(UTC) <= datetime.now(UTC)


async def test_a_change_that_is_under_way_leaves_no_row_behind_a_deletion(scheduler: Scheduler) -> None:
    for _ in range(10):
        job_id = await scheduler.cancelled()
        changes = [scheduler.update(job_id, "tags", tags={"number": str(number)}) for number in range(5)]
        answers = await asyncio.gather(*changes, scheduler.delete(job_id), return_exceptions=True)
        assert answers[-1] is None
        assert all(isinstance(answer, job_pb2.Job | NotFoundError) for answer in answers[:-1])
        assert [await scheduler.rows(table, job_id) for table in ("job", "node", "journal")] == [0, 0, 0]


async def test_a_job_that_is_recovered_while_its_tags_are_changed_keeps_one_order_of_its_journal(
    scheduler: Scheduler, tasks: asyncio.TaskGroup
) -> None:
    jobs = [await scheduler.cancelled() for _ in range(6)]
    await scheduler.restart(tasks)
    for job_id in jobs:
        answers = await asyncio.gather(
            scheduler.update(job_id, "tags", tags={"a": "1"}),
            scheduler.verbs.RecoverJob(job_pb2.RecoverJobRequest(id=job_id), CONTEXT),
            scheduler.update(job_id, "tags", tags={"a": "2"}),
            return_exceptions=True,
        )
        assert [answer for answer in answers if isinstance(answer, BaseException)] == []
        live = scheduler.replica.find(job_id)
        assert live is not None
        assert str(live.run.state) == "RUNNING"
        await scheduler.require_same_after_replay(job_id)


class _Held:
    """Holds deletions where all rows but the job's own are gone, and nothing is committed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

        async def wait(connection: AsyncConnection, partition: int, epoch: int) -> None:
            self.reached.set()
            await self.go_on.wait()
            await fence(connection, partition, epoch)

        monkeypatch.setattr(finished, "fence", wait)


async def test_a_job_that_is_taken_up_while_it_is_deleted_keeps_all_its_rows(
    scheduler: Scheduler, tasks: asyncio.TaskGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await scheduler.cancelled()
    await scheduler.restart(tasks)
    stored = await scheduler.reader.job(job_id)
    assert stored is not None
    held = _Held(monkeypatch)
    epoch = scheduler.replica.stamps[stored.partition].epoch
    deletion = asyncio.create_task(FinishedJobs(scheduler.engine).delete(stored, epoch=epoch))
    await held.reached.wait()
    await scheduler.verbs.RecoverJob(job_pb2.RecoverJobRequest(id=job_id), CONTEXT)
    held.go_on.set()
    assert not await deletion
    await scheduler.require_same_after_replay(job_id)


async def test_nobody_takes_a_job_up_while_it_is_deleted_for_a_caller_who_went_away(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await scheduler.cancelled()
    held = _Held(monkeypatch)
    deletion = asyncio.create_task(scheduler.delete(job_id))
    await held.reached.wait()
    deletion.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deletion
    recovery = asyncio.create_task(scheduler.verbs.RecoverJob(job_pb2.RecoverJobRequest(id=job_id), CONTEXT))
    # It has come as far as it gets when what began after it has ended.
    await scheduler.update(await scheduler.submit(), "tags", tags={"a": "b"})
    assert not recovery.done()
    held.go_on.set()
    with pytest.raises(NotFoundError):
        await recovery
    assert [await scheduler.rows(table, job_id) for table in ("job", "node", "journal")] == [0, 0, 0]
