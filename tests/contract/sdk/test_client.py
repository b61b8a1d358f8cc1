"""The blocking client against gRPC's own test channel: what it sends, and what it makes of the answers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import grpc_testing
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pixloom import Client
from pixloom.errors import NotFoundError, Problem, StateConflictError, UnavailableError
from pixloom.resources import Event, JobState, Snapshot
from pixloom.rpc.status import status_from_error
from pixloom.v1 import artifact_pb2, item_pb2, job_pb2, workflow_pb2

if TYPE_CHECKING:
    from pathlib import Path

_JOBS = job_pb2.DESCRIPTOR.services_by_name["JobService"].methods_by_name
_WORKFLOWS = workflow_pb2.DESCRIPTOR.services_by_name["WorkflowService"].methods_by_name
_ARTIFACTS = artifact_pb2.DESCRIPTOR.services_by_name["ArtifactService"].methods_by_name
_RUNNING = job_pb2.Job(id="j1", name="a", workflow="a", state=job_pb2.JOB_STATE_RUNNING)
_ENDED = job_pb2.Job(id="j1", name="a", workflow="a", state=job_pb2.JOB_STATE_COMPLETED)


@pytest.fixture
def channel() -> Any:
    services = [
        *job_pb2.DESCRIPTOR.services_by_name.values(),
        *workflow_pb2.DESCRIPTOR.services_by_name.values(),
        *artifact_pb2.DESCRIPTOR.services_by_name.values(),
    ]
    return grpc_testing.channel(services, grpc_testing.strict_real_time())


@pytest.fixture
def client(channel: Any) -> Any:
    with Client(channel=channel) as client:
        yield client


@pytest.fixture
def thread() -> Any:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def _answer(
    channel: Any,
    method: Any,
    response: Any,
    *,
    code: grpc.StatusCode = grpc.StatusCode.OK,
    details: str = "",
    trailers: Any = (),
) -> Any:
    _, request, rpc = channel.take_unary_unary(method)
    rpc.send_initial_metadata(())
    rpc.terminate(response, trailers, code, details)
    return request


def test_job_is_created_with_what_was_given(channel: Any, client: Client, thread: ThreadPoolExecutor) -> None:
    created = thread.submit(client.create_job, "thumbs", params={"width": 3}, tags={"a": "b"}, priority=0)
    request = _answer(channel, _JOBS["CreateJob"], job_pb2.CreateJobResponse(job=_RUNNING))

    assert created.result(60).state is JobState.RUNNING
    assert (request.workflow, request.params_json, dict(request.tags)) == ("thumbs", b'{"width":3}', {"a": "b"})
    assert (request.HasField("priority"), request.start) == (True, True)
    assert request.request_id


def test_error_of_the_server_is_raised_as_its_class(channel: Any, client: Client, thread: ThreadPoolExecutor) -> None:
    error = NotFoundError("There is no job j1.", problems=(Problem("/id", "unknown", "UNKNOWN"),))
    trailers = (("grpc-status-details-bin", status_from_error(error).SerializeToString()),)
    found = thread.submit(client.get_job, "j1")
    _answer(channel, _JOBS["GetJob"], None, code=grpc.StatusCode.NOT_FOUND, details="no", trailers=trailers)

    with pytest.raises(NotFoundError, match=r"There is no job j1\.") as raised:
        found.result(60)
    assert raised.value.problems == (Problem("/id", "unknown", "UNKNOWN"),)


def test_iterating_asks_for_page_after_page(channel: Any, client: Client, thread: ThreadPoolExecutor) -> None:
    names = thread.submit(lambda: [workflow.name for workflow in client.iter_workflows(page_size=1)])
    first = workflow_pb2.ListWorkflowsResponse(workflows=[workflow_pb2.Workflow(name="a")], next_page_token="t")  # noqa: S106 - a page token
    last = workflow_pb2.ListWorkflowsResponse(workflows=[workflow_pb2.Workflow(name="b")])
    requests = [_answer(channel, _WORKFLOWS["ListWorkflows"], page) for page in (first, last)]

    assert names.result(60) == ["a", "b"]
    assert [(request.page_size, request.page_token) for request in requests] == [(1, ""), (1, "t")]


def test_watch_resumes_behind_the_last_event_after_a_broken_stream(
    channel: Any, client: Client, thread: ThreadPoolExecutor
) -> None:
    arrived = threading.Event()
    seen: list[Event | Snapshot] = []

    def watch() -> None:
        for update in client.watch_job("j1"):
            seen.append(update)
            arrived.set()

    watching = thread.submit(watch)
    _, first, stream = channel.take_unary_stream(_JOBS["WatchJob"])
    stream.send_initial_metadata(())
    stream.send_response(job_pb2.WatchJobResponse(event=job_pb2.JobEvent(seq=4, type="job_started")))
    assert arrived.wait(60)
    stream.terminate((), grpc.StatusCode.UNAVAILABLE, "gone")
    _, second, stream = channel.take_unary_stream(_JOBS["WatchJob"])
    stream.send_initial_metadata(())
    stream.send_response(job_pb2.WatchJobResponse(event=job_pb2.JobEvent(seq=5, type="job_ended")))
    stream.send_response(job_pb2.WatchJobResponse(snapshot=job_pb2.JobSnapshot(job=_ENDED)))
    stream.terminate((), grpc.StatusCode.OK, "")

    watching.result(60)
    assert (first.after_seq, second.after_seq) == (0, 4)
    assert [update.seq for update in seen if isinstance(update, Event)] == [4, 5]
    assert isinstance(seen[-1], Snapshot)


def test_watch_of_an_unknown_job_fails_at_once(channel: Any, client: Client, thread: ThreadPoolExecutor) -> None:
    updates = thread.submit(lambda: list(client.watch_job("j1")))
    _, _, stream = channel.take_unary_stream(_JOBS["WatchJob"])
    stream.send_initial_metadata(())
    stream.terminate((), grpc.StatusCode.NOT_FOUND, "no such job")

    with pytest.raises(NotFoundError):
        updates.result(60)


def test_watch_gives_up_when_nobody_answers(channel: Any, client: Client, thread: ThreadPoolExecutor) -> None:
    updates = thread.submit(lambda: list(client.watch_job("j1", give_up_after_s=0)))
    _, _, stream = channel.take_unary_stream(_JOBS["WatchJob"])
    stream.send_initial_metadata(())
    stream.terminate((), grpc.StatusCode.UNAVAILABLE, "gone")

    with pytest.raises(UnavailableError):
        updates.result(60)


def test_waiting_ends_with_the_final_snapshot_and_returns_the_job(
    channel: Any, client: Client, thread: ThreadPoolExecutor
) -> None:
    ended = thread.submit(client.wait_job, "j1")
    _, request, stream = channel.take_unary_stream(_JOBS["WatchJob"])
    stream.send_initial_metadata(())
    stream.send_response(job_pb2.WatchJobResponse(snapshot=job_pb2.JobSnapshot(job=_ENDED)))
    stream.terminate((), grpc.StatusCode.OK, "")
    _answer(channel, _JOBS["GetJob"], job_pb2.GetJobResponse(job=_ENDED))

    assert ended.result(60).state is JobState.COMPLETED
    assert request.after_seq == 2**63 - 1


def test_artifact_is_saved_whole(channel: Any, client: Client, thread: ThreadPoolExecutor, tmp_path: Path) -> None:
    saved = thread.submit(client.save_artifact, "0" * 64, tmp_path / "deep" / "file.bin")
    _, request, stream = channel.take_unary_stream(_ARTIFACTS["DownloadArtifact"])
    stream.send_initial_metadata(())
    for data in (b"one", b"two"):
        stream.send_response(artifact_pb2.DownloadArtifactResponse(data=data))
    stream.terminate((), grpc.StatusCode.OK, "")

    assert saved.result(60).read_bytes() == b"onetwo"
    assert request.sha256 == "0" * 64


def test_download_that_breaks_leaves_no_file(
    channel: Any, client: Client, thread: ThreadPoolExecutor, tmp_path: Path
) -> None:
    saved = thread.submit(client.save_artifact, "0" * 64, tmp_path / "file.bin")
    _, _, stream = channel.take_unary_stream(_ARTIFACTS["DownloadArtifact"])
    stream.send_initial_metadata(())
    stream.send_response(artifact_pb2.DownloadArtifactResponse(data=b"one"))
    stream.terminate((), grpc.StatusCode.UNAVAILABLE, "gone")

    with pytest.raises(UnavailableError):
        saved.result(60)
    assert list(tmp_path.iterdir()) == []


def test_file_is_uploaded_in_pieces(channel: Any, client: Client, thread: ThreadPoolExecutor, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"x" * 300_000)
    stored = thread.submit(client.upload_artifact, path)
    _, rpc = channel.take_stream_unary(_ARTIFACTS["UploadArtifact"])
    rpc.send_initial_metadata(())
    sizes = [len(rpc.take_request().data) for _ in range(2)]
    rpc.requests_closed()
    artifact = item_pb2.ArtifactRef(sha256="1" * 64, size_bytes=300_000, media_type="image/png")
    rpc.terminate(artifact_pb2.UploadArtifactResponse(artifact=artifact), (), grpc.StatusCode.OK, "")

    assert stored.result(60).sha256 == "1" * 64
    assert sizes == [262_144, 37_856]


@pytest.mark.parametrize(
    ("call", "rpc", "expected"),
    [
        (lambda c: c.start_job("j1"), "StartJob", job_pb2.StartJobRequest(id="j1")),
        (
            lambda c: c.start_job("j1", params={"a": 1}),
            "StartJob",
            job_pb2.StartJobRequest(id="j1", params_json=b'{"a":1}'),
        ),
        (lambda c: c.pause_job("j1", now=True), "PauseJob", job_pb2.PauseJobRequest(id="j1", now=True)),
        (lambda c: c.resume_job("j1"), "ResumeJob", job_pb2.ResumeJobRequest(id="j1")),
        (
            lambda c: c.cancel_job("j1", now=True, reason="x"),
            "CancelJob",
            job_pb2.CancelJobRequest(id="j1", now=True, reason="x"),
        ),
        (
            lambda c: c.recover_job("j1", from_node="n", request_id="k"),
            "RecoverJob",
            job_pb2.RecoverJobRequest(id="j1", from_node="n", request_id="k"),
        ),
        (
            lambda c: c.retry_job("j1", nodes=["n"], reasons=["R"], request_id="k"),
            "RetryJob",
            job_pb2.RetryJobRequest(id="j1", nodes=["n"], reasons=["R"], request_id="k"),
        ),
        (
            lambda c: c.rerun_job("j1", from_node="n", params={"a": 1}, request_id="k"),
            "RerunJob",
            job_pb2.RerunJobRequest(id="j1", from_node="n", params_json=b'{"a":1}', request_id="k"),
        ),
        (
            lambda c: c.update_job("j1", tags={"a": "b"}, priority=0),
            "UpdateJob",
            job_pb2.UpdateJobRequest(
                job=job_pb2.Job(id="j1", tags={"a": "b"}), update_mask=FieldMask(paths=["tags", "priority"])
            ),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_verb_sends_what_was_given_and_returns_the_job(
    channel: Any, client: Client, thread: ThreadPoolExecutor, call: Any, rpc: str, expected: Any
) -> None:
    steered = thread.submit(call, client)
    response = getattr(job_pb2, f"{rpc}Response")(job=_RUNNING)
    assert _answer(channel, _JOBS[rpc], response) == expected
    assert steered.result(60).state is JobState.RUNNING


@pytest.mark.parametrize("rpc", ["RecoverJob", "RetryJob", "RerunJob"])
def test_a_call_that_begins_something_has_an_id_of_its_own(
    channel: Any, client: Client, thread: ThreadPoolExecutor, rpc: str
) -> None:
    call = getattr(client, f"{rpc.removesuffix('Job').lower()}_job")
    ids = set()
    for _ in range(2):
        steered = thread.submit(call, "j1")
        ids.add(_answer(channel, _JOBS[rpc], getattr(job_pb2, f"{rpc}Response")(job=_RUNNING)).request_id)
        steered.result(60)
    assert len(ids - {""}) == 2


def test_delete_and_cancel_all_return_no_job(channel: Any, client: Client, thread: ThreadPoolExecutor) -> None:
    deleted = thread.submit(client.delete_job, "j1", allow_missing=True)
    request = _answer(channel, _JOBS["DeleteJob"], job_pb2.DeleteJobResponse())
    assert request == job_pb2.DeleteJobRequest(id="j1", allow_missing=True)
    assert deleted.result(60) is None

    cancelled = thread.submit(client.cancel_all_jobs, workflow="w", states=["paused"], now=True)
    request = _answer(channel, _JOBS["CancelAllJobs"], job_pb2.CancelAllJobsResponse(cancelled=7))
    assert request == job_pb2.CancelAllJobsRequest(workflow="w", states=[job_pb2.JOB_STATE_PAUSED], now=True)
    assert cancelled.result(60) == 7


def test_a_state_that_does_not_fit_is_named(channel: Any, client: Client, thread: ThreadPoolExecutor) -> None:
    error = StateConflictError(
        "job j1 is COMPLETED: it is not possible to pause it now", metadata={"state": "COMPLETED"}
    )
    trailers = (("grpc-status-details-bin", status_from_error(error).SerializeToString()),)
    paused = thread.submit(client.pause_job, "j1")
    _answer(channel, _JOBS["PauseJob"], None, code=grpc.StatusCode.FAILED_PRECONDITION, details="no", trailers=trailers)
    with pytest.raises(StateConflictError, match="COMPLETED") as raised:
        paused.result(60)
    assert raised.value.metadata["state"] == "COMPLETED"
