"""Calls about ops, executors and artifacts."""

from __future__ import annotations

from pixloom.resources import Artifact, Executor, Op
from pixloom.sdk.call import Call
from pixloom.v1 import artifact_pb2, executor_admin_pb2, op_pb2

__all__ = ["drain_executor", "get_artifact", "get_op", "list_executors", "list_ops"]


def get_op(name: str) -> Call[Op]:
    """Return one op, such as `image.thumbnail` for the newest or `image.thumbnail@1`."""
    return Call(
        "OpService",
        "GetOp",
        op_pb2.GetOpRequest(name=name),
        op_pb2.GetOpResponse,
        lambda response: Op.from_proto(response.op),
    )


def list_ops() -> Call[list[Op]]:
    """List the ops by name: built-in ones and those that executors announced."""
    return Call(
        "OpService",
        "ListOps",
        op_pb2.ListOpsRequest(),
        op_pb2.ListOpsResponse,
        lambda response: [Op.from_proto(entry) for entry in response.ops],
    )


def list_executors() -> Call[list[Executor]]:
    """List the executors in session by id."""
    return Call(
        "ExecutorAdminService",
        "ListExecutors",
        executor_admin_pb2.ListExecutorsRequest(),
        executor_admin_pb2.ListExecutorsResponse,
        lambda response: [Executor.from_proto(entry) for entry in response.executors],
    )


def drain_executor(executor_id: str) -> Call[Executor]:
    """Ask an executor to finish what it runs and take nothing new."""
    return Call(
        "ExecutorAdminService",
        "DrainExecutor",
        executor_admin_pb2.DrainExecutorRequest(id=executor_id),
        executor_admin_pb2.DrainExecutorResponse,
        lambda response: Executor.from_proto(response.executor),
    )


def get_artifact(sha256: str) -> Call[Artifact]:
    """Return what is known of an artifact."""
    return Call(
        "ArtifactService",
        "GetArtifact",
        artifact_pb2.GetArtifactRequest(sha256=sha256),
        artifact_pb2.GetArtifactResponse,
        lambda response: Artifact.from_proto(response.artifact),
    )
