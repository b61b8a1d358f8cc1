"""Tasks and results in columns, against a running scheduler."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from pixloom.v1 import executor_pb2 as pb
from pixloom.v1 import item_pb2
from tests.e2e.engine.test_streams import journal_of, scheduler_of
from tests.support.bare_executor import BareExecutor, succeeded

if TYPE_CHECKING:
    from pixloom.resources import Job
    from tests.support.engine import Engine

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("engine-columns")]


async def wide(engine: Engine, executor: BareExecutor, pool: str) -> tuple[Job, pb.LeaseBatch]:
    """Submit a job with four tasks in a row for one pool, and take the first dispatch of them off the queue."""
    job = await engine.submit(
        {"id": "numbers", "op": "debug.range", "params": {"count": 4}},
        {"id": "step", "op": "debug.noop", "inputs": {"items": "numbers"}, "pool": pool, "shard_size": 1},
        {"id": "all", "op": "agg.manifest", "inputs": {"items": "step"}},
    )
    batch = await executor.pull(engine.stack.wiring.nats_url)
    assert batch.job_id == job.id
    return job, batch


def in_columns(batch: pb.LeaseBatch, grant: pb.Grant) -> pb.Report:
    """Return a report that all tasks of columns let their items pass."""
    columns = batch.ordinary
    report = pb.Report(
        report_id=1, lease_token=grant.lease_token, job_id=batch.job_id, generation=batch.generation, stage=batch.stage
    )
    report.ordinary.elapsed_ns.extend([1000] * len(batch.calls))
    for shard, attempt, place, offset, count in zip(
        columns.shards, columns.attempts, columns.places, columns.offsets, columns.counts, strict=True
    ):
        items = item_pb2.ItemBatch.FromString(columns.sources[place].manifest.inline).items[offset : offset + count]
        now = time.time_ns() // 1000
        report.ordinary.shards.append(shard)
        report.ordinary.attempts.append(attempt)
        report.ordinary.started_us.append(now)
        report.ordinary.ended_us.append(now)
        report.ordinary.items.append(count)
        report.ordinary.outputs.append(item_pb2.ItemBatch(items=items).SerializeToString())
    return report


async def test_tasks_and_results_travel_as_columns(engine: Engine) -> None:
    async with BareExecutor("bare-5", scheduler=scheduler_of(engine), pool="wide", reads_columns=True) as executor:
        job, batch = await wide(engine, executor, "wide")
        assert not batch.tasks
        assert sorted(batch.ordinary.shards) == [0, 1, 2, 3]
        assert list(batch.ordinary.attempts) == [1] * 4
        grant = await executor.claim(batch)
        assert (grant.all, list(grant.tasks)) == (True, [])
        # The same once more gets nothing.
        assert not (await executor.claim(batch)).lease_token
        report = in_columns(batch, grant)
        assert await executor.refused(report) == []
        ended = await engine.finish(job.id)
        assert (ended.state, ended.items.ok) == ("COMPLETED", 4)
        rows = await journal_of(engine, job.id)
        report.report_id = 2
        assert await executor.refused(report) == list(batch.ordinary.shards)
        assert await journal_of(engine, job.id) == rows


async def test_columns_that_cannot_be_read_fail_their_tasks_and_hold_nobody_up(engine: Engine) -> None:
    async with BareExecutor("bare-6", scheduler=scheduler_of(engine), pool="odd", reads_columns=True) as executor:
        job, batch = await wide(engine, executor, "odd")
        grant = await executor.claim(batch)
        report = in_columns(batch, grant)
        del report.ordinary.outputs[0]
        # It was taken, for a failure; and the stream goes on.
        assert await executor.refused(report) == []
        attempts = await engine.attempts(job.id, "step")
        assert [(attempt.outcome, attempt.reason) for attempt in attempts] == [("FAILED", "MALFORMED_REPORT")] * len(
            batch.ordinary.shards
        )
        claim = pb.Claim(claim_id=99, dispatch_id=batch.dispatch_id, job_id=job.id, generation=1, stage=batch.stage)
        claim.keys.shards.extend(batch.ordinary.shards)
        await executor.send(claim=claim)
        refused = await executor.answer("grant")
        assert (refused.claim_id, refused.lease_token, refused.all) == (99, b"", False)
        await engine.client.cancel_job(job.id)
        await engine.finish(job.id)


@pytest.mark.parametrize(("pool", "shards", "attempts"), [("short", 4, 3), ("bare", 4, 0), ("long", 3, 4)])
async def test_a_claim_whose_columns_differ_in_length_gets_nothing_and_spoils_nothing(
    engine: Engine, pool: str, shards: int, attempts: int
) -> None:
    async with BareExecutor(f"bare-{pool}", scheduler=scheduler_of(engine), pool=pool, reads_columns=True) as executor:
        job, batch = await wide(engine, executor, pool)
        claim = pb.Claim(claim_id=99, dispatch_id=batch.dispatch_id, job_id=job.id, generation=1, stage=batch.stage)
        claim.keys.shards.extend(list(batch.ordinary.shards)[:shards])
        claim.keys.attempts.extend([1] * attempts)
        await executor.send(claim=claim)
        refused = await executor.answer("grant")
        assert (refused.claim_id, refused.lease_token, refused.all, list(refused.tasks)) == (99, b"", False, [])
        # What it asked for is still to be had, by the same stream.
        grant = await executor.claim(batch)
        assert grant.all
        assert await executor.refused(in_columns(batch, grant)) == []
        ended = await engine.finish(job.id)
        assert (ended.state, ended.items.ok) == ("COMPLETED", 4)
        attempts_made = await engine.attempts(job.id, "step")
        assert [(attempt.number, attempt.outcome) for attempt in attempts_made] == [(1, "OK")] * 4


async def test_nobody_gets_columns_while_somebody_of_the_pool_does_not_read_them(engine: Engine) -> None:
    async with (
        BareExecutor("bare-7", scheduler=scheduler_of(engine), pool="mixed", reads_columns=True) as executor,
        BareExecutor("bare-8", scheduler=scheduler_of(engine), pool="mixed"),
    ):
        job, batch = await wide(engine, executor, "mixed")
        assert batch.tasks
        assert not batch.ordinary.shards
        grant = await executor.claim(batch)
        assert not grant.all
        assert [task.shard for task in grant.tasks] == [task.shard for task in batch.tasks]
        assert await executor.refused(succeeded(batch, grant)) == []
        ended = await engine.finish(job.id)
    assert (ended.state, ended.items.ok) == ("COMPLETED", 4)
