from __future__ import annotations

import json
from typing import Any

import pytest

from pixloom.resources import Job
from pixloom.v1 import job_pb2


async def submit(http: Any, **more: Any) -> Any:
    body = {"spec": {"name": "w", "nodes": []}, "params": {"n": 1, "big": 2**53}, **more}
    answer = await http.post("/api/v1/jobs", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def test_job_is_created_with_everything_given(http: Any, peer: Any) -> None:
    answer = await http.post(
        "/api/v1/jobs",
        json={
            "workflow": "w",
            "version": 3,
            "params": {"é": [1.0, None]},
            "tags": {"a": "b"},
            "metadata": {"m": {}},
            "priority": 0,
            "external_id": "x1",
            "name": "first",
            "start": False,
        },
    )
    assert answer.status_code == 201
    job = Job.model_validate_json(answer.content)
    assert answer.headers["location"] == f"/api/v1/jobs/{job.id}"
    assert (job.state, job.priority, job.params, job.tags) == ("PENDING", 0, {"é": [1.0, None]}, {"a": "b"})
    (seen,) = peer.jobs.seen_requests
    assert (seen.version, seen.start, seen.HasField("priority"), seen.request_id) == (3, False, True, "id1")
    assert (await http.get(answer.headers["location"])).json() == answer.json()


async def test_document_reaches_the_scheduler_with_its_values_unchanged(http: Any, peer: Any) -> None:
    spec = {"name": "w", "params": {"x": 9007199254740993, "y": 1.0, "z": "\u2028"}}
    await http.post("/api/v1/jobs", json={"spec": spec})
    (seen,) = peer.jobs.seen_requests
    assert json.loads(seen.spec_json) == spec
    assert not seen.HasField("priority")


async def test_idempotency_key_gives_the_first_job_again(http: Any) -> None:
    answers = [
        await http.post("/api/v1/jobs", json={"spec": {"name": "w"}}, headers={"Idempotency-Key": "k"})
        for _ in range(2)
    ]
    assert answers[0].json()["id"] == answers[1].json()["id"]


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=10", 10),
        ("respond-async, wait=5", 5),
        ('Wait = "7"; strict', 7),
        ("wait=100000", 60),
        ("wait=-1", 0),
        ("wait=soon", 0),
        ("await=3", 0),
        ("", 0),
    ],
)
async def test_the_end_is_waited_for_if_that_is_preferred(http: Any, peer: Any, prefer: Any, seconds: Any) -> None:
    answer = await http.post("/api/v1/jobs", json={"spec": {"name": "w"}}, headers={"Prefer": prefer})
    assert answer.status_code == 201
    assert answer.headers.get("preference-applied") == (f"wait={seconds}" if seconds else None)
    assert peer.jobs.seen_requests[0].wait.seconds == seconds


async def test_jobs_are_listed_with_filters_and_pages(http: Any, peer: Any) -> Any:
    ids = [await submit(http, tags={"n": str(n % 2), "a:b": "c"}, external_id=f"e{n}") for n in range(5)]
    await peer.jobs.emit(ids[0], "job_ended", state="FAILED")
    await peer.jobs.emit(ids[1], "job_ended", state="COMPLETED")

    async def listed(query: Any) -> Any:
        answer = await http.get(f"/api/v1/jobs?{query}")
        assert answer.status_code == 200, answer.text
        return [job["id"] for job in answer.json()["items"]]

    assert await listed("") == ids[::-1]
    assert await listed("state=failed&state=COMPLETED") == [ids[1], ids[0]]
    assert await listed("state=FAILED,COMPLETED") == [ids[1], ids[0]]
    assert await listed("tag=n=1") == [ids[3], ids[1]]
    assert await listed("tag=n:0&tag=a:b=c") == []
    assert await listed("external_id=e2") == [ids[2]]
    assert await listed("workflow=other") == []
    assert await listed("filter=active") == [ids[4], ids[3], ids[2]]
    assert await listed("filter=failed") == [ids[0]]
    assert await listed("filter=recoverable") == [ids[0]]
    assert (await http.get("/api/v1/jobs?filter=active&state=FAILED")).status_code == 400
    first = (await http.get("/api/v1/jobs?page_size=3")).json()
    rest = (await http.get(f"/api/v1/jobs?page_size=3&page_token={first['next_page_token']}")).json()
    assert [job["id"] for job in first["items"] + rest["items"]] == ids[::-1]
    assert rest["next_page_token"] == ""


async def test_tags_and_priority_can_be_changed(http: Any) -> None:
    job_id = await submit(http, tags={"a": "1"})
    answer = await http.patch(f"/api/v1/jobs/{job_id}", json={"priority": 9})
    assert (answer.json()["priority"], answer.json()["tags"]) == (9, {"a": "1"})
    answer = await http.patch(f"/api/v1/jobs/{job_id}", json={"tags": {}})
    assert (answer.json()["priority"], answer.json()["tags"]) == (9, {})
    assert (await http.patch(f"/api/v1/jobs/{job_id}", json={})).status_code == 400
    assert (await http.patch(f"/api/v1/jobs/{job_id}", json={"tags": None})).status_code == 400


async def test_delete_names_the_state_that_does_not_fit(http: Any, peer: Any) -> None:
    job_id = await submit(http)
    answer = await http.delete(f"/api/v1/jobs/{job_id}")
    assert (answer.status_code, answer.json()["reason"]) == (409, "STATE_CONFLICT")
    assert "RUNNING" in answer.json()["detail"]
    await peer.jobs.emit(job_id, "job_ended", state="COMPLETED")
    assert (await http.delete(f"/api/v1/jobs/{job_id}")).status_code == 204
    assert (await http.get(f"/api/v1/jobs/{job_id}")).status_code == 404


async def test_verbs_are_passed_on(http: Any) -> None:
    job_id = await submit(http, start=False)
    started = await http.post(f"/api/v1/jobs/{job_id}:start", json={"params": {"a": 1}})
    assert (started.json()["state"], started.json()["params"]) == ("RUNNING", {"a": 1})
    cancelled = await http.post(f"/api/v1/jobs/{job_id}:cancel", json={"now": True, "reason": "enough"})
    assert cancelled.json()["state"] == "CANCELLED"
    rerun = await http.post(f"/api/v1/jobs/{job_id}:rerun", json={"from": "n"})
    assert rerun.status_code == 201
    assert rerun.headers["location"].endswith(rerun.json()["id"])
    everything = await http.post("/api/v1/jobs:cancelAll", json={"filter": {}})
    assert everything.json() == {"cancelled": 1}


async def test_results_nodes_and_attempts_are_shown(http: Any, peer: Any) -> None:
    job_id = await submit(http)
    journal = peer.jobs.journal(job_id)
    journal.nodes += [
        job_pb2.Node(id="a", op="debug.noop@1", state=job_pb2.NODE_STATE_RUNNING),
        job_pb2.Node(
            id="b/c", op="debug.noop@1", step_index=1, state=job_pb2.NODE_STATE_PENDING, waiting_reason="waits for a"
        ),
    ]
    for number, outcome in ((1, job_pb2.ATTEMPT_OUTCOME_OK), (2, job_pb2.ATTEMPT_OUTCOME_PARTIAL)):
        attempt = job_pb2.Attempt(id=f"{job_id}.1.0.0.{number}", node="a", number=number, outcome=outcome)
        journal.attempts.append(attempt)
    results = (await http.get(f"/api/v1/jobs/{job_id}/results")).json()
    assert results["complete"] is False
    assert results["outputs"]["n"] == {
        "kind": "value",
        "node": "x",
        "value": {"a": [1, None]},
        "artifact": None,
        "count": None,
    }
    nodes = (await http.get(f"/api/v1/jobs/{job_id}/nodes")).json()["items"]
    assert [(node["id"], node["state"], node["waiting_reason"]) for node in nodes] == [
        ("a", "RUNNING", None),
        ("b/c", "PENDING", "waits for a"),
    ]
    assert (await http.get(f"/api/v1/jobs/{job_id}/nodes/a")).json() == nodes[0]
    assert (await http.get(f"/api/v1/jobs/{job_id}/nodes/z")).status_code == 404
    page = (await http.get(f"/api/v1/jobs/{job_id}/nodes/a/attempts")).json()
    assert ([entry["number"] for entry in page["items"]], page["next_page_token"]) == ([1], "1")
    answer = await http.get(f"/api/v1/attempts/{job_id}.1.0.0.2")
    assert (answer.json()["number"], answer.json()["outcome"]) == (2, "PARTIAL")
    assert (await http.get(f"/api/v1/attempts/{job_id}.1.0.0.3")).status_code == 404


async def test_two_step_flow_submits_then_triggers(http: Any) -> None:
    for path in ("/api/workflow", "/api/workflows"):
        submitted = await http.post(path, json={"id": "w", "name": "w", "nodes": []})
        assert submitted.status_code == 201
        execution = submitted.json()["execution_id"]
        shown = (await http.get(f"/api/workflows/{execution}")).json()
        assert (shown["instance_id"], shown["state"], shown["nodes"]) == (execution, "PENDING", [])
        triggered = await http.post(f"/api/workflow/trigger/{execution}")
        assert (triggered.status_code, triggered.json()) == (202, {"instance_id": execution})
        assert (await http.get(f"/api/workflows/{execution}")).json()["state"] == "RUNNING"
        assert (await http.get(f"/api/workflows/{execution}/results")).json()["complete"] is False
    assert len((await http.get("/api/workflows")).json()["items"]) == 2
    assert (await http.post("/api/workflow/trigger/none")).status_code == 404


async def test_ops_and_executors_are_shown(http: Any) -> None:
    (op,) = (await http.get("/api/v1/ops")).json()["items"]
    assert (op["name"], op["kind"], op["inputs"][0]["type"]) == ("image.thumbnail@1", "item", "image")
    assert (await http.get("/api/v1/ops/image.thumbnail")).json() == op
    assert (await http.get("/api/v1/ops/image.thumb")).status_code == 404
    (executor,) = (await http.get("/api/v1/executors")).json()["items"]
    assert executor["draining"] is False
    assert (await http.post("/api/v1/executors/e1:drain")).json()["draining"] is True
    assert (await http.post("/api/v1/executors/e2:drain")).status_code == 404
