"""How stages that do the same are chosen, put into one message and handed over."""

from __future__ import annotations

import asyncio
import itertools
import os
import uuid
from typing import Any

import orjson
import pytest

from pixloom.v1 import executor_pb2, op_pb2
from pixloom_scheduler.clock import DatabaseClock
from pixloom_scheduler.dispatch import Dispatcher
from pixloom_scheduler.executors import ExecutorRegistry, ExecutorSession
from pixloom_scheduler.grants import Grants
from pixloom_scheduler.inputs import InputReader, OutputCache
from pixloom_scheduler.messages import MOST_PARAMS_BYTES, MessageComposer
from pixloom_scheduler.rpc.session import ExecutorSessions
from pixloom_scheduler.siblings import MOST_AT_ONCE, MOST_SIBLINGS
from pixloom_scheduler.tokens import TokenMint
from pixloom_scheduler.traces import Traces
from tests.support.live_jobs import offer
from tests.unit.scheduler.test_give_backs import Quiet
from tests.unit.scheduler.test_grants import Owner
from tests.unit.scheduler.test_siblings import job_of

OP = "debug.noop@1"
QUICK = {OP: 0.00001}


class SpeakingOwner(Owner):
    """An owner inside its lease whose memory is durable."""

    is_committing = False
    is_inside_lease = True


class Stage:
    """A scheduler's dispatcher, grants and sessions around one job, and one executor in session."""

    def __init__(
        self, live: Any, *, costs: Any = QUICK, limits: dict[str, int] | None = None, reads_siblings: bool = True
    ) -> None:
        self.live = live
        owner: Any = SpeakingOwner(live)
        self.owner = owner
        self.executors = ExecutorRegistry()
        clock, quiet, ids = DatabaseClock(), Quiet(), itertools.count(1)
        parts: Any = dict.fromkeys(("outputs", "catalogue", "partitions", "takeovers", "timers"), quiet)
        payloads: Any = None
        js: Any = None
        inputs = InputReader(cache=OutputCache(), payloads=payloads)
        self.composer = MessageComposer(
            inputs=inputs,
            traces=Traces(),
            clock=clock,
            address="a:1",
            epoch_of=lambda _: 1,
            read_columns=self.executors.read_columns,
        )
        self.dispatcher = Dispatcher(
            js=js,
            replica=owner,
            executors=self.executors,
            composer=self.composer,
            clock=clock,
            costs=dict(costs),
            new_id=lambda: f"d{next(ids)}",
            limits=limits,
        )
        mint = TokenMint(incarnation=uuid.uuid4(), key=b"k" * 32, nonce=os.urandom)
        grants = Grants(replica=owner, dispatcher=self.dispatcher, mint=mint, timers=parts["timers"], costs=dict(costs))
        self.sessions = ExecutorSessions(
            replica=owner,
            executors=self.executors,
            dispatcher=self.dispatcher,
            inputs=inputs,
            costs=parts["timers"],
            grants=grants,
            clock=clock,
            incarnation="",
            **parts,
        )
        self.dispatcher.connect(self.sessions.hand_over)
        hello = executor_pb2.Hello(
            executor_id="x",
            pools=["cpu"],
            slots=8,
            ops=[op_pb2.Op(name=OP)],
            reads_columns=True,
            reads_siblings=reads_siblings,
        )
        # Heard of for as long as a test may be stopped for.
        heard = clock.now() + 3600.0
        self.session = ExecutorSession(hello, asyncio.Queue(), start=heard, last_seen=heard)
        self.executors.add(self.session)
        self.dispatcher.note_all(live)

    async def assigned(self) -> list[executor_pb2.LeaseBatch]:
        """Dispatch what can be, and return the batches that the executor was handed."""
        self.dispatcher.fill()
        while self.dispatcher._working:
            await asyncio.wait(self.dispatcher._working)
        batches = []
        while not self.session.outbox.empty():
            message = self.session.outbox.get_nowait()
            assert message is not None
            batches.append(message.assignment.batch)
        return batches


def stages_of(batch: executor_pb2.LeaseBatch) -> list[int]:
    return [sibling.stage for sibling in batch.siblings] or [batch.stage]


async def test_stages_that_do_the_same_go_in_one_message_each_with_its_node_and_its_params_where_they_differ() -> None:
    live = job_of(4)
    for plan, params in zip(live.run.plan.nodes, ({}, {"a": 1}, {}, {"a": 2}), strict=True):
        plan.params.update(params)
    (batch,) = await Stage(live).assigned()
    assert [(sibling.stage, sibling.node) for sibling in batch.siblings] == [(3, "n3"), (2, "n2"), (1, "n1"), (0, "n0")]
    assert (batch.stage, len(batch.tasks), len(batch.ordinary.shards)) == (3, 0, 0)
    (call,) = batch.calls
    told = [orjson.loads(sibling.params_json or call.params_json) for sibling in batch.siblings]
    assert told == [{"a": 2}, {}, {"a": 1}, {}]
    assert not batch.siblings[0].params_json
    assert sorted(lease.stage for lease in live.run.leases.values()) == [0, 1, 2, 3]


async def test_params_that_are_equal_and_not_the_same_stay_apart() -> None:
    live = job_of(3)
    for plan, value in zip(live.run.plan.nodes, (True, 1.0, 1), strict=True):
        plan.params["value"] = value
    (batch,) = await Stage(live).assigned()
    written = [sibling.params_json or batch.calls[0].params_json for sibling in batch.siblings]
    assert written == [b'{"value":1}', b'{"value":1.0}', b'{"value":true}']


async def test_params_that_were_worked_out_when_a_node_was_released_are_those_it_runs_with() -> None:
    live = job_of(2)
    live.run.nodes[0].params = {"a": "found"}
    (batch,) = await Stage(live).assigned()
    assert orjson.loads(batch.siblings[1].params_json) == {"a": "found"}


async def test_an_executor_that_does_not_read_them_gets_each_alone() -> None:
    live = job_of(3)
    batches = await Stage(live, reads_siblings=False).assigned()
    assert [(batch.stage, len(batch.siblings), len(batch.tasks)) for batch in batches] == [
        (2, 0, 1),
        (1, 0, 1),
        (0, 0, 1),
    ]


async def test_what_a_limit_counts_goes_alone() -> None:
    batches = await Stage(job_of(3), limits={"op.debug.noop": 3}).assigned()
    assert [len(batch.siblings) for batch in batches] == [0, 0, 0]


@pytest.mark.parametrize(("cost_s", "sizes"), [(0.004, [1, 1, 1, 1, 1]), (0.002, [2, 2, 1]), (0.001, [5])])
async def test_no_more_go_together_than_a_few_milliseconds_of_work(cost_s: float, sizes: list[int]) -> None:
    batches = await Stage(job_of(5), costs={OP: cost_s}).assigned()
    assert [len(stages_of(batch)) for batch in batches] == sizes


async def test_of_many_a_message_takes_so_many_and_all_of_them_go() -> None:
    stage = Stage(job_of(3 * MOST_SIBLINGS))
    batches = await stage.assigned()
    assert [len(batch.siblings) for batch in batches] == [MOST_SIBLINGS] * 3
    assert sorted(each for batch in batches for each in stages_of(batch)) == list(range(3 * MOST_SIBLINGS))


async def test_thousands_do_not_keep_the_loop_from_others() -> None:
    live = job_of(5 * MOST_AT_ONCE)
    stage = Stage(live)
    leases = [0]

    def look() -> None:
        leases.append(len(live.run.leases))
        if leases[-1] > leases[-2]:
            asyncio.get_running_loop().call_soon(look)
        else:
            over.set_result(None)

    over = asyncio.get_running_loop().create_future()
    stage.dispatcher.fill()
    look()
    await over
    assert leases == [0, *(turn * MOST_AT_ONCE for turn in range(1, 6)), 5 * MOST_AT_ONCE]


async def test_large_params_are_spread_over_messages_and_none_is_left_behind() -> None:
    live = job_of(6)
    for number, plan in enumerate(live.run.plan.nodes):
        plan.params["text"] = f"{number}" * (MOST_PARAMS_BYTES // 2)
    batches = await Stage(live).assigned()
    assert len(batches) > 1
    assert sorted(each for batch in batches for each in stages_of(batch)) == list(range(6))
    assert all(batch.ByteSize() < 3 * MOST_PARAMS_BYTES for batch in batches)


async def test_nobody_in_session_takes_them_they_keep_their_turn() -> None:
    live = job_of(3)
    stage = Stage(live)
    stage.session.draining = True
    assert not stage.dispatcher._hand_siblings(stage.session, live, 2, most=64)
    assert live.run.leases == {}
    assert all(stage.dispatcher.knows(live, index) for index in range(3))


async def test_one_that_was_taken_meanwhile_is_left_out_of_the_message() -> None:
    live = job_of(3)
    stage = Stage(live)
    batch = stage.composer.compose_siblings(live, [2, 1, 0], dispatch_id="d")
    offer(live, 2)
    assert stage.sessions.hand_over(stage.session, live, batch) == 2
    message = stage.session.outbox.get_nowait()
    assert message is not None
    sent = message.assignment.batch
    assert (sent.stage, stages_of(sent)) == (1, [1, 0])
    assert sorted(lease.stage for lease in live.run.leases.values()) == [0, 1]


async def test_params_that_no_message_can_hold_end_their_job_and_not_the_dispatcher() -> None:
    live = job_of(3)
    live.run.plan.nodes[1].params["what"] = object()
    stage = Stage(live)
    await stage.assigned()
    ((_, event),) = stage.owner.reported
    assert event.failure[0] == "INTERNAL"
