"""`OpService` and `ExecutorAdminService`: what can be run, and by whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pixloom.errors import NotFoundError
from pixloom.opcodec import op_to_proto
from pixloom.v1 import executor_admin_pb2, executor_admin_pb2_grpc, op_pb2, op_pb2_grpc
from pixloom_scheduler.views import timestamp

if TYPE_CHECKING:
    import grpc

    from pixloom_scheduler.catalogue import OpCatalogue
    from pixloom_scheduler.executors import ExecutorRegistry, ExecutorSession
    from pixloom_scheduler.rpc.session import ExecutorSessions

    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["ExecutorAdmin", "Ops"]


class Ops(op_pb2_grpc.OpServiceServicer):
    """Serves the op catalogue."""

    def __init__(self, catalogue: OpCatalogue) -> None:
        self._catalogue = catalogue

    async def GetOp(self, request: op_pb2.GetOpRequest, context: Context) -> op_pb2.GetOpResponse:
        """Return one op."""
        del context
        spec = self._catalogue.current.get(request.name)
        if spec is None:
            raise NotFoundError(f"there is no op {request.name[:100]}; `pixloom ops list` shows those there are")
        return op_pb2.GetOpResponse(op=op_to_proto(spec))

    async def ListOps(self, request: op_pb2.ListOpsRequest, context: Context) -> op_pb2.ListOpsResponse:
        """List the ops by name."""
        del request, context
        return op_pb2.ListOpsResponse(ops=[op_to_proto(spec) for spec in self._catalogue.current])


def _view(session: ExecutorSession) -> executor_admin_pb2.Executor:
    hello = session.hello
    return executor_admin_pb2.Executor(
        id=session.id,
        pools=hello.pools,
        ops=[op.name for op in hello.ops],
        slots=hello.slots,
        busy=session.busy,
        draining=session.draining,
        hostname=hello.hostname,
        pid=hello.pid,
        version=hello.version,
        start_time=timestamp(session.start),
        last_seen_time=timestamp(session.last_seen),
    )


class ExecutorAdmin(executor_admin_pb2_grpc.ExecutorAdminServiceServicer):
    """Serves the executors in session."""

    def __init__(self, *, executors: ExecutorRegistry, sessions: ExecutorSessions) -> None:
        self._executors = executors
        self._sessions = sessions

    async def ListExecutors(
        self, request: executor_admin_pb2.ListExecutorsRequest, context: Context
    ) -> executor_admin_pb2.ListExecutorsResponse:
        """List executors by id."""
        del request, context
        return executor_admin_pb2.ListExecutorsResponse(executors=[_view(session) for session in self._executors])

    async def DrainExecutor(
        self, request: executor_admin_pb2.DrainExecutorRequest, context: Context
    ) -> executor_admin_pb2.DrainExecutorResponse:
        """Ask an executor to finish and leave."""
        del context
        return executor_admin_pb2.DrainExecutorResponse(executor=_view(self._sessions.drain(request.id)))
