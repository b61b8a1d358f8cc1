"""The calls that the gateway makes itself, each with its types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from google.protobuf.message import DecodeError

from pixloom.v1 import executor_admin_pb2, job_pb2, op_pb2, workflow_pb2

if TYPE_CHECKING:
    from google.protobuf.message import Message

__all__ = ["FORWARDED_SERVICES", "Method", "begins_a_job", "is_repeatable", "path_of", "read_creation"]

Request = TypeVar("Request", bound="Message")
Response = TypeVar("Response", bound="Message")


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Response]):
    """A call of the scheduler.

    Attributes:
        path: Its full name as gRPC writes it.
        response: Class of its response.
    """

    path: str
    request: type[Request]
    response: type[Response]


def path_of(service: str, method: str) -> str:
    """Return the full name of a method of `pixloom.v1`."""
    return f"/pixloom.v1.{service}/{method}"


# These are repeatable by their request_id only, which is in the request.
_NOT_REPEATABLE: Final = frozenset(
    {
        path_of("WorkflowService", "CreateWorkflow"),
        path_of("JobService", "CreateJob"),
        path_of("JobService", "RerunJob"),
        path_of("JobService", "RecoverJob"),
        path_of("JobService", "RetryJob"),
    }
)

FORWARDED_SERVICES: Final = tuple(
    file.DESCRIPTOR.services_by_name[name]
    for file, name in (
        (workflow_pb2, "WorkflowService"),
        (job_pb2, "JobService"),
        (op_pb2, "OpService"),
        (executor_admin_pb2, "ExecutorAdminService"),
    )
)


def is_repeatable(path: str) -> bool:
    """Return whether a call that may have arrived can be sent again without harm."""
    return path not in _NOT_REPEATABLE


def read_creation(path: str, data: bytes) -> tuple[bool, float]:
    """Read from a request what matters on its way, if the call is repeatable by its request_id only.

    Returns:
        Whether it can be told from another one of the same content, and for how many seconds the scheduler is asked to
        wait before it answers.
    """
    method = _BY_REQUEST_ID.get(path)
    if method is None:
        return False, 0.0
    try:
        request = method.FromString(data)
    except DecodeError:
        return False, 0.0
    wait = request.wait if path == CREATE_JOB.path else None
    return bool(request.request_id), wait.seconds + wait.nanos / 1e9 if wait is not None else 0.0


def begins_a_job(path: str) -> bool:
    """Return whether a call makes a job, which belongs to the scheduler that takes it."""
    return path == CREATE_JOB.path


_BY_REQUEST_ID: Final[dict[str, Any]] = {
    path_of("WorkflowService", "CreateWorkflow"): workflow_pb2.CreateWorkflowRequest,
    path_of("JobService", "CreateJob"): job_pb2.CreateJobRequest,
    path_of("JobService", "RerunJob"): job_pb2.RerunJobRequest,
    path_of("JobService", "RecoverJob"): job_pb2.RecoverJobRequest,
    path_of("JobService", "RetryJob"): job_pb2.RetryJobRequest,
}

CREATE_WORKFLOW: Final = Method(
    path_of("WorkflowService", "CreateWorkflow"),
    workflow_pb2.CreateWorkflowRequest,
    workflow_pb2.CreateWorkflowResponse,
)
GET_WORKFLOW: Final = Method(
    path_of("WorkflowService", "GetWorkflow"), workflow_pb2.GetWorkflowRequest, workflow_pb2.GetWorkflowResponse
)
LIST_WORKFLOWS: Final = Method(
    path_of("WorkflowService", "ListWorkflows"), workflow_pb2.ListWorkflowsRequest, workflow_pb2.ListWorkflowsResponse
)
UPDATE_WORKFLOW: Final = Method(
    path_of("WorkflowService", "UpdateWorkflow"),
    workflow_pb2.UpdateWorkflowRequest,
    workflow_pb2.UpdateWorkflowResponse,
)
DELETE_WORKFLOW: Final = Method(
    path_of("WorkflowService", "DeleteWorkflow"),
    workflow_pb2.DeleteWorkflowRequest,
    workflow_pb2.DeleteWorkflowResponse,
)
VALIDATE_WORKFLOW: Final = Method(
    path_of("WorkflowService", "ValidateWorkflow"),
    workflow_pb2.ValidateWorkflowRequest,
    workflow_pb2.ValidateWorkflowResponse,
)
PLAN_WORKFLOW: Final = Method(
    path_of("WorkflowService", "PlanWorkflow"), workflow_pb2.PlanWorkflowRequest, workflow_pb2.PlanWorkflowResponse
)
LIST_WORKFLOW_VERSIONS: Final = Method(
    path_of("WorkflowService", "ListWorkflowVersions"),
    workflow_pb2.ListWorkflowVersionsRequest,
    workflow_pb2.ListWorkflowVersionsResponse,
)
CREATE_JOB: Final = Method(path_of("JobService", "CreateJob"), job_pb2.CreateJobRequest, job_pb2.CreateJobResponse)
GET_JOB: Final = Method(path_of("JobService", "GetJob"), job_pb2.GetJobRequest, job_pb2.GetJobResponse)
LIST_JOBS: Final = Method(path_of("JobService", "ListJobs"), job_pb2.ListJobsRequest, job_pb2.ListJobsResponse)
UPDATE_JOB: Final = Method(path_of("JobService", "UpdateJob"), job_pb2.UpdateJobRequest, job_pb2.UpdateJobResponse)
DELETE_JOB: Final = Method(path_of("JobService", "DeleteJob"), job_pb2.DeleteJobRequest, job_pb2.DeleteJobResponse)
START_JOB: Final = Method(path_of("JobService", "StartJob"), job_pb2.StartJobRequest, job_pb2.StartJobResponse)
PAUSE_JOB: Final = Method(path_of("JobService", "PauseJob"), job_pb2.PauseJobRequest, job_pb2.PauseJobResponse)
RESUME_JOB: Final = Method(path_of("JobService", "ResumeJob"), job_pb2.ResumeJobRequest, job_pb2.ResumeJobResponse)
CANCEL_JOB: Final = Method(path_of("JobService", "CancelJob"), job_pb2.CancelJobRequest, job_pb2.CancelJobResponse)
RECOVER_JOB: Final = Method(path_of("JobService", "RecoverJob"), job_pb2.RecoverJobRequest, job_pb2.RecoverJobResponse)
RETRY_JOB: Final = Method(path_of("JobService", "RetryJob"), job_pb2.RetryJobRequest, job_pb2.RetryJobResponse)
RERUN_JOB: Final = Method(path_of("JobService", "RerunJob"), job_pb2.RerunJobRequest, job_pb2.RerunJobResponse)
CANCEL_ALL_JOBS: Final = Method(
    path_of("JobService", "CancelAllJobs"), job_pb2.CancelAllJobsRequest, job_pb2.CancelAllJobsResponse
)
WATCH_JOB: Final = Method(path_of("JobService", "WatchJob"), job_pb2.WatchJobRequest, job_pb2.WatchJobResponse)
GET_JOB_RESULTS: Final = Method(
    path_of("JobService", "GetJobResults"), job_pb2.GetJobResultsRequest, job_pb2.GetJobResultsResponse
)
LIST_NODES: Final = Method(path_of("JobService", "ListNodes"), job_pb2.ListNodesRequest, job_pb2.ListNodesResponse)
LIST_ATTEMPTS: Final = Method(
    path_of("JobService", "ListAttempts"), job_pb2.ListAttemptsRequest, job_pb2.ListAttemptsResponse
)
LIST_MANIFESTS: Final = Method(
    path_of("JobService", "ListManifests"), job_pb2.ListManifestsRequest, job_pb2.ListManifestsResponse
)
LIST_OPS: Final = Method(path_of("OpService", "ListOps"), op_pb2.ListOpsRequest, op_pb2.ListOpsResponse)
GET_OP: Final = Method(path_of("OpService", "GetOp"), op_pb2.GetOpRequest, op_pb2.GetOpResponse)
LIST_EXECUTORS: Final = Method(
    path_of("ExecutorAdminService", "ListExecutors"),
    executor_admin_pb2.ListExecutorsRequest,
    executor_admin_pb2.ListExecutorsResponse,
)
DRAIN_EXECUTOR: Final = Method(
    path_of("ExecutorAdminService", "DrainExecutor"),
    executor_admin_pb2.DrainExecutorRequest,
    executor_admin_pb2.DrainExecutorResponse,
)
