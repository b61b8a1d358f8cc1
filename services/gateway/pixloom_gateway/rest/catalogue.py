"""Routes of ops and executors."""

# ruff: noqa: TC002 - FastAPI reads annotations at run time, and `{id}` is the alias in `JobId`

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path
from starlette.responses import Response

from pixloom.resources import Executor, Op, Page
from pixloom.v1 import executor_admin_pb2, op_pb2
from pixloom_gateway.rest.replies import PROBLEMS, page_of, reply
from pixloom_gateway.upstream import methods

if TYPE_CHECKING:
    from pixloom_gateway.rest.context import RouteContext

__all__ = ["catalogue_routes"]


def catalogue_routes(context: RouteContext) -> APIRouter:
    """Return the routes of ops and executors."""
    routes = APIRouter(responses=PROBLEMS)
    scheduler = context.scheduler

    @routes.get("/ops", response_model=Page[Op], tags=["ops"])
    async def list_ops() -> Response:
        """List the ops by name."""
        answer = await scheduler.call(methods.LIST_OPS, op_pb2.ListOpsRequest())
        return page_of([Op.from_proto(entry) for entry in answer.ops])

    @routes.get("/ops/{name}", response_model=Op, tags=["ops"])
    async def get_op(
        name: Annotated[str, Path(max_length=256, description="Name with or without version.")],
    ) -> Response:
        """Return an op with its params and documentation; the newest if no version is given."""
        answer = await scheduler.call(methods.GET_OP, op_pb2.GetOpRequest(name=name))
        return reply(Op.from_proto(answer.op))

    @routes.get("/executors", response_model=Page[Executor], tags=["executors"])
    async def list_executors() -> Response:
        """List the executors in session."""
        answer = await scheduler.call(methods.LIST_EXECUTORS, executor_admin_pb2.ListExecutorsRequest())
        return page_of([Executor.from_proto(entry) for entry in answer.executors])

    @routes.post("/executors/{id}:drain", response_model=Executor, tags=["executors"])
    async def drain_executor(
        executor_id: Annotated[str, Path(alias="id", max_length=256, description="Id of the executor.")],
    ) -> Response:
        """Ask an executor to finish what it runs and take nothing new."""
        answer = await scheduler.call(methods.DRAIN_EXECUTOR, executor_admin_pb2.DrainExecutorRequest(id=executor_id))
        return reply(Executor.from_proto(answer.executor))

    return routes
