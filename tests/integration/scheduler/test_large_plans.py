"""Jobs whose plan is larger than a document may be, as one param may stand in many nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pixloom.graph.limits import MAX_DOCUMENT_BYTES
from pixloom.v1 import job_pb2
from tests.support.scheduler_verbs import CONTEXT

if TYPE_CHECKING:
    import asyncio

    from tests.support.scheduler_verbs import Scheduler

DOCUMENT: dict[str, Any] = {
    "name": "large",
    "params": {"path": {"type": "string"}},
    "nodes": [{"id": f"n{place}", "op": "source.folder", "params": {"path": "${params.path}"}} for place in range(100)],
    "outputs": {"last": "n99"},
}


async def test_a_job_with_a_large_plan_is_shown_after_it_has_ended(
    scheduler: Scheduler, tasks: asyncio.TaskGroup
) -> None:
    job_id = await scheduler.cancelled(document=DOCUMENT, params={"path": "x" * 60_000})
    await scheduler.restart(tasks)
    stored = await scheduler.reader.job(job_id)
    assert stored is not None
    assert len(stored.plan) > MAX_DOCUMENT_BYTES
    results = await scheduler.verbs.GetJobResults(job_pb2.GetJobResultsRequest(id=job_id), CONTEXT)
    assert (results.complete, results.state) == (True, job_pb2.JOB_STATE_CANCELLED)
    attempts = await scheduler.verbs.ListAttempts(job_pb2.ListAttemptsRequest(id=job_id, node="n7"), CONTEXT)
    assert not attempts.attempts
    manifests = await scheduler.verbs.ListManifests(job_pb2.ListManifestsRequest(id=job_id, node="n7"), CONTEXT)
    assert not manifests.manifests
