"""Reading of requests at the edge of the scheduler."""

from __future__ import annotations

import pytest

from pixloom.errors import InvalidError
from pixloom.v1 import job_pb2
from pixloom_scheduler.rpc.requests import read_json, state_names


def test_states_are_named_as_in_the_database() -> None:
    assert state_names([job_pb2.JOB_STATE_RUNNING, job_pb2.JOB_STATE_FAILED]) == ("RUNNING", "FAILED")


def test_a_state_of_another_version_is_refused() -> None:
    with pytest.raises(InvalidError, match="no state 99"):
        state_names([99])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("what", "data", "reason"),
    [
        ("spec", b"[1]", "INVALID_WORKFLOW"),
        ("params", b"[1]", "INVALID_PARAMS"),
        ("params", b"{", "INVALID_PARAMS"),
        ("metadata", b"[1]", "INVALID_ARGUMENT"),
        ("params", b" " * 5_000_000, "TOO_LARGE"),
    ],
)
def test_a_part_that_is_no_json_object_is_refused_by_what_it_is(what: str, data: bytes, reason: str) -> None:
    with pytest.raises(InvalidError, match=f"^{what}: ") as refused:
        read_json(data, what)
    assert refused.value.reason == reason
