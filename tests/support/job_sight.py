"""Everything that can be read of a job at one moment, by gRPC and by REST, found equal field by field."""

from __future__ import annotations

import contextlib
import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from pixloom.resources import Attempt, Event, Executor, Item, Job, Node, Results, Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.engine import Engine

__all__ = ["MOVING", "Sight", "durable", "look", "require_same", "sight_of_executors"]

MOVING = frozenset({"actual_duration_s", "estimated_duration_s", "estimated_end_time", "waiting_reason"})
"""Fields that are worked out when somebody reads, so that they move while nothing happens."""

R = TypeVar("R", bound=BaseModel)

WITHIN_S = 30

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")


@dataclass(frozen=True, slots=True)
class Sight:
    """A job as it shows itself.

    Attributes:
        since: Time before it was read, seconds.
        until: Time afterwards.
        job: The job.
        nodes: Its nodes by id, in the order of the document.
        items: What is listed at each node.
        attempts: The attempts at each node.
        events: Durable events so far.
        snapshot: What a watcher sees first.
        results: Its results.
        executors: Ids of the executors in session.
    """

    since: float
    until: float
    job: Job
    nodes: dict[str, Node]
    items: dict[str, list[Item]]
    attempts: dict[str, list[Attempt]]
    events: list[Event]
    snapshot: Snapshot
    results: Results
    executors: frozenset[str]

    @property
    def all_attempts(self) -> list[Attempt]:
        """Every attempt once, in the order of the journal."""
        once = {attempt.id: attempt for attempts in self.attempts.values() for attempt in attempts}
        return sorted(once.values(), key=lambda attempt: attempt.seq)

    def first_event(self, type_: str, node: str | None = None) -> Event | None:
        """Return the first event of a type."""
        return next((event for event in self.events if (event.type, event.node) == (type_, node)), None)

    def last_event(self, type_: str, node: str | None = None) -> Event | None:
        """Return the last event of a type."""
        return next((event for event in reversed(self.events) if (event.type, event.node) == (type_, node)), None)


async def look(engine: Engine, job_id: str) -> Sight:
    """Read a job at a moment at which nothing happens to it, by gRPC and by REST, and require both to be the same."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        since = time.time()
        by_grpc = await _by_grpc(engine, job_id)
        by_rest = await _by_rest(engine, job_id, list(by_grpc[1]))
        again: Job = await engine.client.get_job(job_id)
        seqs = [by_grpc[0].seq, by_rest[0].seq, again.seq]
        if len(set(seqs)) == 1:
            break
        assert time.monotonic() < deadline, f"something happens to job {job_id} all the time: {seqs}"
    for mine, theirs in zip(by_grpc, by_rest, strict=True):
        require_same(mine, theirs)
    # After a restart of the scheduler they come back one after the other.
    executors = frozenset(executor.id for executor in await engine.until_executors(lambda found: len(found) == 2))
    job, nodes, items, attempts, events, snapshot, results = by_grpc
    return Sight(
        since=since,
        until=time.time(),
        job=job,
        nodes=nodes,
        items=items,
        attempts=attempts,
        events=events,
        snapshot=snapshot,
        results=results,
        executors=executors,
    )


async def _by_grpc(engine: Engine, job_id: str) -> tuple[Any, ...]:
    client = engine.client
    job = await client.get_job(job_id)
    nodes = {node.id: node for node in await engine.nodes(job_id)}
    items = {node: await engine.items(job_id, node) for node in nodes}
    attempts = {node: await engine.attempts(job_id, node) for node in nodes}
    events: list[Event] = []
    snapshot: Snapshot | None = None
    async with contextlib.aclosing(client.watch_job(job_id)) as updates:
        async for update in updates:
            if isinstance(update, Snapshot):
                snapshot = update
                break
            events.append(update)
    return job, nodes, items, attempts, events, snapshot, await client.get_results(job_id)


async def _by_rest(engine: Engine, job_id: str, nodes: Sequence[str]) -> tuple[Any, ...]:
    path = f"/api/v1/jobs/{job_id}"
    listed = await _pages(engine, f"{path}/nodes", Node)
    assert [node.id for node in listed] == list(nodes)
    for node in listed:
        require_same(node, _resource(Node, (await engine.http.get(f"{path}/nodes/{node.id}")).json()))
    attempts = {node: await _pages(engine, f"{path}/nodes/{node}/attempts", Attempt) for node in nodes}
    for several in attempts.values():
        for attempt in several[:2]:
            one = _resource(Attempt, (await engine.http.get(f"/api/v1/attempts/{attempt.id}")).json())
            # By its id alone it is shown with the counts of the stage's first node.
            require_same(one, attempt, but={"items", "node"})
    events, snapshot = await _watched(engine, f"{path}/events")
    return (
        _resource(Job, (await engine.http.get(path)).json()),
        {node.id: node for node in listed},
        {node: await _pages(engine, f"{path}/nodes/{node}/items", Item) for node in nodes},
        attempts,
        events,
        snapshot,
        _resource(Results, (await engine.http.get(f"{path}/results")).json()),
    )


async def _watched(engine: Engine, path: str) -> tuple[list[Event], Snapshot]:
    events: list[Event] = []
    number, kind = "", ""
    async with engine.http.stream("GET", path) as answer:
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "id":
                number = value
            elif name == "event":
                kind = value
            elif name == "data" and kind == "snapshot":
                return events, _resource(Snapshot, json.loads(value))
            elif name == "data":
                events.append(_resource(Event, json.loads(value)))
                assert (str(events[-1].seq), events[-1].type) == (number, kind)
    raise AssertionError(f"{path} ended without a snapshot")


async def _pages(engine: Engine, path: str, kind: type[R]) -> list[R]:
    found: list[R] = []
    token = ""
    while True:
        params: dict[str, int | str] = {"page_size": 7, "page_token": token} if "/nodes/" in path else {}
        answer = await engine.http.get(path, params=params)
        assert answer.status_code == 200, (path, params, answer.text)
        page = answer.json()
        found += [_resource(kind, entry) for entry in page["items"]]
        token = page["next_page_token"]
        if not token:
            return found


def _resource(kind: type[R], shown: dict[str, Any]) -> R:
    """Return what REST shows as a resource, and require every field to be there by its name and of its type."""
    assert list(shown) == list(kind.model_fields)
    for name, value in shown.items():
        if name == "time" or name.endswith("_time"):
            assert value is None or RFC_3339.fullmatch(value), (name, value)
    # Strictly: a number that came as text would be refused.
    return kind.model_validate_json(json.dumps(shown), strict=True)


def durable(shown: Any) -> Any:
    """Return a resource, or several, as plain values without the fields that move by themselves."""
    if isinstance(shown, dict):
        return {name: durable(value) for name, value in shown.items() if name not in MOVING}
    if isinstance(shown, list):
        return [durable(value) for value in shown]
    return durable(shown.model_dump()) if hasattr(shown, "model_dump") else shown


def require_same(one: Any, other: Any, *, but: frozenset[str] | set[str] = frozenset()) -> None:
    """Require two readings to be equal in everything that does not move by itself."""
    mine, theirs = durable(one), durable(other)
    if isinstance(mine, dict):
        assert mine.keys() == theirs.keys()
        different = {
            name: (mine[name], theirs[name]) for name in mine if name not in but and mine[name] != theirs[name]
        }
        assert not different, different
    else:
        assert mine == theirs


async def sight_of_executors(engine: Engine) -> list[Executor]:
    """Return the executors, the same by gRPC and by REST but for heartbeats in between."""
    mine: list[Executor] = await engine.client.list_executors()
    theirs = await _pages(engine, "/api/v1/executors", Executor)
    assert len(mine) == len(theirs)
    for one, other in zip(mine, theirs, strict=True):
        require_same(one, other, but={"last_seen_time"})
        assert one.last_seen_time is not None
        assert other.last_seen_time is not None
        assert abs((one.last_seen_time - other.last_seen_time).total_seconds()) < 5
    return mine
