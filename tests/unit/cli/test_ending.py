"""What is printed when a job has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixloom.cli.ending import print_tally
from pixloom.resources import Job, Node
from pixloom.v1 import job_pb2

if TYPE_CHECKING:
    import pytest


def _nodes() -> list[Node]:
    photos = job_pb2.Node(id="photos", state=job_pb2.NODE_STATE_COMPLETED, items=job_pb2.ItemCounts(ok=7))
    valid = job_pb2.Node(id="valid", state=job_pb2.NODE_STATE_FAILED, dependencies=["photos"])
    return [Node.from_proto(photos), Node.from_proto(valid)]


def test_items_of_a_failed_job_are_not_called_ok(capsys: pytest.CaptureFixture[str]) -> None:
    job = Job.from_proto(job_pb2.Job(id="1", state=job_pb2.JOB_STATE_FAILED))

    print_tally(job, _nodes())

    assert capsys.readouterr().err == "7 items: 0 ok, 0 filtered, 0 rejected, 7 not finished\n"


def test_items_that_reached_the_end_before_a_cancel_are_ok(capsys: pytest.CaptureFixture[str]) -> None:
    job = Job.from_proto(job_pb2.Job(id="1", state=job_pb2.JOB_STATE_CANCELLED, items=job_pb2.ItemCounts(ok=3)))

    print_tally(job, _nodes())

    assert capsys.readouterr().err == "7 items: 3 ok, 0 filtered, 0 rejected, 4 not finished\n"
