from __future__ import annotations

import pytest

from pixloom.graph.plan import RetryPolicy, StageKind
from pixloom_scheduler.core.model import JobRun
from pixloom_scheduler.core.policy import MAX_SHARD_ITEMS, backoff_s, shard_size
from tests.support.core_world import plan_of

SHAPE = [(StageKind.SOURCE, []), (StageKind.MAPPED, [0])]


def size(items, cost_s, shard=0):
    job = JobRun.of("j", 0, plan_of(SHAPE, shard_size=shard))
    return shard_size(job, job.stages[1], {"debug.noop@1": cost_s}, items)


@pytest.mark.parametrize(
    ("items", "cost_s", "expected"),
    [
        (100_000, 0.01, 200),  # two seconds of work
        (160, 0.01, 10),  # a small collection is spread over 16 shards of a tenth of a second
        (20, 0.01, 10),  # but not into shards that are not worth their dispatch
        (100_000, 5.0, 1),  # slow items go one by one
        (100_000, 1e-6, MAX_SHARD_ITEMS),
        (0, 0.01, 10),
    ],
)
def test_shards_hold_up_to_two_seconds_and_are_spread_when_there_are_few(items, cost_s, expected):
    assert size(items, cost_s) == expected


def test_the_workflow_decides_if_it_gives_a_shard_size():
    assert size(160, 0.01, shard=7) == 7


def test_backoff_doubles_up_to_its_cap_with_at_most_a_tenth_of_jitter():
    policy = RetryPolicy(max_attempts=10)
    delays = [backoff_s(policy, failures, place="a") for failures in range(1, 9)]
    for delay, plain in zip(delays, [1, 2, 4, 8, 16, 32, 60, 60], strict=True):
        assert plain <= delay <= plain * 1.1
    assert delays == [backoff_s(policy, failures, place="a") for failures in range(1, 9)]
