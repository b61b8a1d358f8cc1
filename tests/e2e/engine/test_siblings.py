"""A hundred nodes that run one op with params of their own: handed over together, each is a node by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.support.engine import Engine, running_engine
from tests.support.gate import Gate
from tests.support.otlp_receiver import OtlpReceiver, ReceivedSpan, otlp_receiver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pixloom.resources import Attempt

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("engine-siblings")]

COUNT = 100


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def receiver() -> AsyncIterator[OtlpReceiver]:
    async with otlp_receiver() as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory, receiver: OtlpReceiver) -> AsyncIterator[Engine]:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "20"}
    folder, imports = tmp_path_factory.mktemp("engine"), ["tests.support.user_ops"]
    async with running_engine(folder, environment=environment, imports=imports) as made:
        yield made


def telling(count: int = COUNT, **params: Any) -> list[dict[str, Any]]:
    """Return nodes that give their number back."""
    return [{"id": f"n{n}", "op": "tests.tell", "params": {"given": n, **params}} for n in range(count)]


async def attempts_of(engine: Engine, job_id: str, count: int = COUNT) -> dict[str, list[Attempt]]:
    """Return the attempts at each of the nodes, in their order."""
    found = {}
    for number in range(count):
        attempts = await engine.attempts(job_id, f"n{number}")
        found[f"n{number}"] = sorted(attempts, key=lambda attempt: attempt.number)
    return found


async def require_each_told_its_own(engine: Engine, job_id: str) -> dict[str, list[Attempt]]:
    """Require that every node has the value of its own params, from one attempt; return all attempts."""
    assert (await engine.finish(job_id)).state == "COMPLETED"
    told = {node.id: (node.state, node.result and node.result.value) for node in await engine.nodes(job_id)}
    assert told == {f"n{n}": ("COMPLETED", {"given": n}) for n in range(COUNT)}
    attempts = await attempts_of(engine, job_id)
    assert all(sum(attempt.outcome == "OK" for attempt in each) == 1 for each in attempts.values())
    return attempts


async def test_each_has_the_value_of_its_own_params(engine: Engine) -> None:
    job = await engine.submit(*telling())
    attempts = await require_each_told_its_own(engine, job.id)
    assert {len(each) for each in attempts.values()} == {1}
    # However many they were told of at once, a task is one of its own stage.
    assert len({each[0].task for each in attempts.values()}) == COUNT


async def test_one_that_fails_fails_alone_and_what_depends_on_it_is_skipped(engine: Engine) -> None:
    nodes = telling()
    nodes[40]["params"]["refuse"] = True
    behind = [
        {"id": f"behind{n}", "op": "tests.tell", "params": {"given": n}, "dependencies": [f"n{n}"]}
        for n in (39, 40, 41)
    ]
    job = await engine.run(*nodes, *behind)
    assert (job.state, job.error and job.error.node) == ("FAILED", "n40")
    states = {node.id: node.state for node in await engine.nodes(job.id)}
    assert {name for name, state in states.items() if state != "COMPLETED"} == {"n40", "behind40"}
    assert (states["n40"], states["behind40"]) == ("FAILED", "SKIPPED")
    failed = await engine.node(job.id, "n40")
    assert failed.error is not None
    assert (failed.error.reason, "40 is refused" in failed.error.detail) == ("REFUSED", True)


async def test_when_their_executor_is_killed_each_is_done_once_elsewhere(engine: Engine, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    job = await engine.submit(*telling(gate=gate.file))
    await gate.until_waiting(2)  # one at each executor, and others behind it
    pid = engine.stack.kill("executor-1")
    gate.open()
    attempts = await require_each_told_its_own(engine, job.id)
    outcomes = {name: [attempt.outcome for attempt in each] for name, each in attempts.items()}
    assert ["LOST", "OK"] in outcomes.values()
    assert all(each in (["OK"], ["LOST", "OK"]) for each in outcomes.values()), outcomes
    lost = {each[0].executor_id for each in attempts.values() if each[0].outcome == "LOST"}
    assert len(lost) == 1
    await engine.stack.wait_replaced("executor-1", pid)
    await engine.until_executors(lambda found: len(found) == 2)


async def test_what_a_pause_takes_back_goes_on_as_the_same_attempt(engine: Engine, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    job = await engine.submit(*telling(gate=gate.file))
    await gate.until_waiting(2)
    await engine.until_executors(lambda found: sum(executor.busy for executor in found) == 2)
    await engine.client.pause_job(job.id, now=True)
    # The gate is closed: what runs is ended, and what was handed over with it does not begin.
    await engine.until_executors(lambda found: sum(executor.busy for executor in found) == 0)
    assert {node.waiting_reason for node in await engine.nodes(job.id)} == {"paused"}
    assert not any((await attempts_of(engine, job.id)).values())
    gate.open()
    await engine.client.resume_job(job.id)
    attempts = await require_each_told_its_own(engine, job.id)
    assert {attempt.number for each in attempts.values() for attempt in each} == {1}


async def test_each_task_is_traced_below_the_dispatch_of_its_own_node(engine: Engine, receiver: OtlpReceiver) -> None:
    job = await engine.run(*telling(20))

    def named(spans: list[ReceivedSpan], name: str) -> dict[str, ReceivedSpan]:
        return {span.attributes["pixloom.node.id"]: span for span in spans if span.name == name}

    spans = await receiver.wait_for(
        job.trace_id or "",
        lambda found: (
            all(len(named(found, f"pixloom.{name}")) == 20 for name in ("op", "task", "node"))
            and {"pixloom.job", "pixloom.report"} <= {span.name for span in found}
        ),
    )
    tasks, nodes, ops = (named(spans, f"pixloom.{name}") for name in ("task", "node", "op"))
    dispatches = {span.id: span for span in spans if span.name == "pixloom.dispatch"}
    for name, task in tasks.items():
        dispatch = dispatches[task.parent_id]
        assert dispatch.attributes["pixloom.node.id"] == name
        assert dispatch.parent_id == nodes[name].id
        assert ops[name].parent_id == task.id
    (whole,) = (span for span in spans if span.name == "pixloom.job")
    reports = [span for span in spans if span.name == "pixloom.report" and span.parent_id == whole.id]
    assert reports
    assert all(span.attributes["pixloom.tasks"] > 1 for span in reports)
    # Told of together: the dispatches of several have one id with their stages behind it.
    shared = {str(span.attributes["pixloom.dispatch.id"]).partition(".")[0] for span in dispatches.values()}
    assert len(shared) < 20
