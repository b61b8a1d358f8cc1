from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest


class Stream:
    """Reads server-sent events from an open response."""

    def __init__(self, response: Any) -> None:
        self._lines = response.aiter_lines()

    async def block(self) -> Any:
        lines: list[str] = []
        async for line in self._lines:
            if not line:
                return lines
            lines.append(line)
        return None

    async def event(self) -> Any:
        """Return id, kind and data of the next event, passing over comments and the retry line."""
        while True:
            lines = await asyncio.wait_for(self.block(), 60)
            if lines is None:
                return None
            fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
            if "event" in fields:
                return fields.get("id"), fields["event"], json.loads(fields["data"])

    async def kinds(self) -> Any:
        found = []
        while (event := await self.event()) is not None:
            found.append(event[:2])
        return found


async def submit(http: Any) -> Any:
    return (await http.post("/api/v1/jobs", json={"spec": {"name": "w"}})).json()["id"]


def watch(http: Any, job_id: Any, **headers: Any) -> Any:
    return http.stream("GET", f"/api/v1/jobs/{job_id}/events", headers=headers)


async def test_stream_shows_events_and_snapshots_and_ends_with_end(http: Any, peer: Any) -> None:
    job_id = await submit(http)
    async with watch(http, job_id) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        stream = Stream(response)
        assert (await stream.event())[:2] == ("1", "job_created")
        identity, kind, data = await stream.event()
        assert (identity, kind, data["job"]["id"], data["nodes"]) == (None, "snapshot", job_id, [])
        await peer.jobs.emit(job_id, "node_ended", node="a", state="COMPLETED")
        identity, kind, data = await stream.event()
        assert (identity, kind, data["node"], data["seq"]) == ("2", "node_ended", "a", 2)
        await peer.jobs.emit(job_id, "job_ended", state="COMPLETED")
        assert await stream.kinds() == [(None, "snapshot"), ("3", "job_ended"), (None, "snapshot"), (None, "end")]


async def test_last_event_id_resumes_behind_it(http: Any, peer: Any) -> None:
    job_id = await submit(http)
    for node in "abc":
        await peer.jobs.emit(job_id, "node_ended", node=node)
    await peer.jobs.emit(job_id, "job_ended", state="FAILED")
    async with watch(http, job_id, **{"Last-Event-ID": "3"}) as response:
        assert await Stream(response).kinds() == [
            ("4", "node_ended"),
            ("5", "job_ended"),
            (None, "snapshot"),
            (None, "end"),
        ]
    async with http.stream("GET", f"/api/v1/jobs/{job_id}/events?after_seq=5") as response:
        stream = Stream(response)
        assert (await stream.event())[:2] == (None, "snapshot")
        assert await stream.event() == (None, "end", {"state": "FAILED"})


@pytest.mark.parametrize("number", ["-1", "x", "1.5", "9" * 30, "²"])
async def test_malformed_last_event_id_is_refused(http: Any, number: Any) -> None:
    job_id = await submit(http)
    answer = await http.get(f"/api/v1/jobs/{job_id}/events", headers={"Last-Event-ID": number.encode()})
    assert answer.status_code == 400


async def test_unknown_job_is_a_problem_and_no_stream(http: Any) -> None:
    answer = await http.get("/api/v1/jobs/none/events")
    assert (answer.status_code, answer.json()["reason"]) == (404, "NOT_FOUND")


async def test_silence_is_filled_with_comments(http: Any) -> None:
    job_id = await submit(http)
    async with watch(http, job_id) as response:
        stream = Stream(response)
        await stream.event()
        await stream.event()
        assert await asyncio.wait_for(stream.block(), 60) == [": heartbeat"]


async def test_watch_ends_when_the_client_leaves(http: Any, peer: Any) -> None:
    job_id = await submit(http)
    async with watch(http, job_id) as response:
        await Stream(response).event()
        assert peer.jobs.watchers == 1
    await asyncio.wait_for(peer.jobs.idle.wait(), 60)


async def test_stream_goes_on_over_a_restart_of_the_scheduler(
    http: Any, peer: Any, peer_address: Any, spans: Any
) -> None:
    job_id = await submit(http)
    async with watch(http, job_id) as response:
        stream = Stream(response)
        assert (await stream.event())[:2] == ("1", "job_created")
        await peer.stop()
        await peer.jobs.emit(job_id, "job_ended", state="COMPLETED")
        await peer.start(peer_address, tracer_provider=spans.provider)
        kinds = [event for event in await stream.kinds() if event[1] != "snapshot"]
        assert kinds == [("2", "job_ended"), (None, "end")]


async def test_stream_breaks_off_without_end_when_the_gateway_stops(http: Any, gateway: Any) -> None:
    job_id = await submit(http)
    async with watch(http, job_id) as response:
        stream = Stream(response)
        await stream.event()
        await asyncio.wait_for(gateway.stop(), 10)
        assert (None, "end") not in await stream.kinds()
