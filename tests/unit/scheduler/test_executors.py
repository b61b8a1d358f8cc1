"""Who has room for work that is handed over."""

from __future__ import annotations

import asyncio

import pytest

from pixloom.v1 import executor_pb2, op_pb2
from pixloom_scheduler.executors import (
    BATCH_OVERHEAD_S,
    HEARD_WITHIN_S,
    LOOKED_AT,
    ROOM_S,
    ExecutorRegistry,
    ExecutorSession,
    HeldLease,
)

OPS = ["debug.noop@1"]
NOW = 100.0


def session(name: str, *, slots: int = 1, ops: list[str] = OPS) -> ExecutorSession:
    hello = executor_pb2.Hello(executor_id=name, pools=["cpu"], slots=slots, ops=[op_pb2.Op(name=op) for op in ops])
    return ExecutorSession(hello, asyncio.Queue(), start=0.0, last_seen=NOW)


def registry(*sessions: ExecutorSession) -> ExecutorRegistry:
    made = ExecutorRegistry()
    for each in sessions:
        made.add(each)
    return made


def lease(tasks: int, task_s: float, *, handed_over: bool = True) -> HeldLease:
    return HeldLease("j", 1, tasks, task_s, handed_over)


def test_who_has_the_least_to_do_for_each_slot_is_chosen() -> None:
    small, large = session("small"), session("large", slots=4)
    small.holdings.hold(b"a", lease(1, 0.01))
    large.holdings.hold(b"b", lease(2, 0.01))
    assert registry(small, large).with_room("cpu", OPS, now=NOW) is large
    large.holdings.hold(b"c", lease(1, 0.5, handed_over=False))
    assert registry(small, large).with_room("cpu", OPS, now=NOW) is small


def test_nothing_is_handed_over_behind_much_that_was_until_results_come() -> None:
    one = session("one")
    one.holdings.hold(b"a", lease(10, ROOM_S / 5))
    assert registry(one).with_room("cpu", OPS, now=NOW) is None
    assert registry(one).is_brisk("cpu", OPS, now=NOW)
    one.holdings.done(b"a", 6)
    assert registry(one).with_room("cpu", OPS, now=NOW) is one
    one.holdings.let_go(b"a")
    assert (one.holdings.load_s, one.holdings.handed_s) == (pytest.approx(0), pytest.approx(0))


def test_a_long_task_that_was_handed_over_leaves_the_other_slots_to_others() -> None:
    one = session("one", slots=2)
    one.holdings.hold(b"a", lease(1, 60.0))
    assert one.has_room
    one.holdings.hold(b"b", lease(1, 60.0))
    assert not one.has_room
    one.holdings.let_go(b"b")
    # It says meanwhile that one of its slots is held up: that is the one with the long task.
    one.open_slots = 1
    assert one.has_room
    one.holdings.hold(b"c", lease(4, ROOM_S / 4))
    assert not one.has_room
    one.holdings.done(b"c", 1)
    assert one.has_room
    one.holdings.let_go(b"a")
    one.holdings.let_go(b"c")
    assert (one.holdings.load_s, one.holdings.handed_s) == (pytest.approx(0), pytest.approx(0))


def test_a_task_that_takes_longer_than_was_expected_leaves_the_other_slots_to_others() -> None:
    one = session("one", slots=4)
    one.open_slots = 1
    for token in (b"a", b"b", b"c"):
        one.holdings.hold(token, lease(1, ROOM_S / 2))
    assert one.holdings.handed_s > ROOM_S
    assert one.has_room


def test_what_was_claimed_is_load_but_takes_no_room() -> None:
    one = session("one")
    one.holdings.hold(b"a", lease(100, 1.0, handed_over=False))
    assert one.holdings.load_s == pytest.approx(100 + BATCH_OVERHEAD_S)
    assert registry(one).with_room("cpu", OPS, now=NOW) is one


def test_work_on_its_way_takes_room() -> None:
    one = session("one")
    one.holdings.expect(2 * ROOM_S)
    assert not one.has_room
    one.holdings.expect(-2 * ROOM_S)
    assert one.has_room


def test_who_is_held_up_drains_or_lacks_ops_gets_nothing() -> None:
    held_up, draining, other = session("a"), session("b"), session("c", ops=["debug.sleep@1"])
    held_up.open_slots = 0
    draining.draining = True
    made = registry(held_up, draining, other)
    assert made.with_room("cpu", OPS, now=NOW) is None
    assert not made.is_brisk("cpu", OPS, now=NOW)
    assert made.offers("cpu", OPS)
    assert made.with_room("gpu", OPS, now=NOW) is None


def test_among_many_everybody_gets_something() -> None:
    many = [session(f"{number:03}") for number in range(4 * LOOKED_AT)]
    made = registry(*many)
    for _ in range(8 * LOOKED_AT):
        chosen = made.with_room("cpu", OPS, now=NOW)
        assert chosen is not None
        chosen.holdings.expect(ROOM_S / 4)
    assert min(each.holdings.load_s for each in many) > 0


def test_who_was_not_heard_of_for_long_gets_nothing() -> None:
    silent, heard = session("a"), session("b")
    silent.last_seen = NOW - HEARD_WITHIN_S
    heard.holdings.hold(b"a", lease(1, ROOM_S / 2))
    made = registry(silent, heard)
    assert made.with_room("cpu", OPS, now=NOW) is heard
    assert made.is_brisk("cpu", OPS, now=NOW)
    heard.last_seen = NOW - HEARD_WITHIN_S
    assert made.with_room("cpu", OPS, now=NOW) is None
    assert not made.is_brisk("cpu", OPS, now=NOW)


def test_a_later_stream_of_an_executor_goes_on_with_what_it_holds() -> None:
    before, after = session("a"), session("a")
    before.holdings.hold(b"a", lease(1, ROOM_S))
    before.holdings.expect(ROOM_S)
    after.holdings = before.holdings
    assert not after.has_room
    # Work that was on its way to the earlier stream is not: nothing of it may weigh on the later one for ever.
    before.holdings.expect(-ROOM_S)
    before.holdings.let_go(b"a")
    assert after.has_room
    assert after.holdings.handed_s == pytest.approx(0)
