from __future__ import annotations

from typing import Any

import pytest

from pixloom.errors import NotFoundError, UnavailableError
from pixloom.resources import Event, Snapshot
from pixloom.sdk.watching import Resumption
from pixloom.v1 import job_pb2


def _event(seq: int) -> job_pb2.WatchJobResponse:
    return job_pb2.WatchJobResponse(event=job_pb2.JobEvent(seq=seq, type="node_ended"))


def _snapshot(state: job_pb2.JobState.ValueType) -> job_pb2.WatchJobResponse:
    return job_pb2.WatchJobResponse(snapshot=job_pb2.JobSnapshot(job=job_pb2.Job(id="j", state=state)))


@pytest.fixture
def resumption() -> Any:
    return Resumption("j", after_seq=0, give_up_after_s=1.0)


def test_next_stream_begins_behind_the_last_event(resumption: Resumption) -> None:
    resumption.accept(_event(3))
    resumption.accept(_event(7))

    assert resumption.request() == job_pb2.WatchJobRequest(id="j", after_seq=7)


def test_events_seen_before_are_dropped(resumption: Resumption) -> None:
    assert isinstance(resumption.accept(_event(3)), Event)
    assert resumption.accept(_event(3)) is None
    assert resumption.accept(_event(2)) is None


def test_final_snapshot_ends_the_watch(resumption: Resumption) -> None:
    assert isinstance(resumption.accept(_snapshot(job_pb2.JOB_STATE_RUNNING)), Snapshot)
    assert not resumption.is_over
    resumption.accept(_snapshot(job_pb2.JOB_STATE_FAILED))
    assert resumption.is_over


def test_delays_double_and_then_the_error_is_passed_on(resumption: Resumption) -> None:
    error = UnavailableError("gone")

    assert [resumption.delay_after(error) for _ in range(4)] == [0.1, 0.2, 0.4, 0.8]
    with pytest.raises(UnavailableError, match="gone"):
        resumption.delay_after(error)


def test_an_answer_starts_the_delays_anew(resumption: Resumption) -> None:
    resumption.delay_after(UnavailableError("gone"))
    resumption.accept(_event(1))

    assert resumption.delay_after(UnavailableError("gone")) == 0.1


def test_error_that_will_stay_is_passed_on_at_once(resumption: Resumption) -> None:
    with pytest.raises(NotFoundError):
        resumption.delay_after(NotFoundError("no such job"))


def test_streams_that_end_again_and_again_are_an_error(resumption: Resumption) -> None:
    for _ in range(4):
        resumption.delay_after(None)

    with pytest.raises(UnavailableError, match="again and again"):
        resumption.delay_after(None)
