"""Routes that show what is inside a job: results, nodes, items and attempts."""

# ruff: noqa: FAST003, TC001, TC002 - FastAPI reads annotations at run time, and `{id}` is the alias in `JobId`

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from pixloom.errors import InvalidError, NotFoundError, Problem
from pixloom.resources import Attempt, Item, ItemState, Node, Page, Results
from pixloom.v1 import item_pb2, job_pb2
from pixloom_gateway.rest.jobs import JobId
from pixloom_gateway.rest.replies import PROBLEMS, page_of, reply
from pixloom_gateway.rest.workflows import PageSize
from pixloom_gateway.upstream import methods

if TYPE_CHECKING:
    from pixloom_gateway.rest.context import RouteContext

__all__ = ["result_routes", "results_of"]

NodeId = Annotated[str, Path(alias="node", max_length=256, description="Id of the node.")]
_ATTEMPT_PARTS = 5


def result_routes(context: RouteContext) -> APIRouter:
    """Return the routes below `/jobs/{id}` that read, and `/attempts/{id}`."""
    routes = APIRouter(tags=["job results"], responses=PROBLEMS)
    scheduler = context.scheduler

    @routes.get("/jobs/{id}/results", response_model=Results)
    async def get_results(job_id: JobId) -> Response:
        """Return outputs and node results; `complete` is false while the job runs."""
        return reply(await results_of(context, job_id))

    @routes.get("/jobs/{id}/nodes", response_model=Page[Node])
    async def list_nodes(job_id: JobId) -> Response:
        """List the nodes in the order of the document; every waiting one says why it waits."""
        answer = await scheduler.call(methods.LIST_NODES, job_pb2.ListNodesRequest(id=job_id))
        return page_of([Node.from_proto(entry) for entry in answer.nodes])

    @routes.get("/jobs/{id}/nodes/{node}", response_model=Node)
    async def get_node(job_id: JobId, node: NodeId) -> Response:
        """Return a node."""
        answer = await scheduler.call(methods.LIST_NODES, job_pb2.ListNodesRequest(id=job_id))
        for entry in answer.nodes:
            if entry.id == node:
                return reply(Node.from_proto(entry))
        raise NotFoundError(f"Job {job_id} has no node {node}; GET /api/v1/jobs/{job_id}/nodes lists them.")

    @routes.get("/jobs/{id}/nodes/{node}/items", response_model=Page[Item])
    async def list_items(
        *,
        job_id: JobId,
        node: NodeId,
        state: Annotated[list[str] | None, Query(description="Only these states; repeated or with commas.")] = None,
        reason: Annotated[str, Query(description="Only this reason.")] = "",
        page_size: PageSize = 100,
        page_token: str = "",
    ) -> Response:
        """List the items that were at a node, with what became of them there, in the order in which tasks ended."""
        answer = await context.items.list_items(
            job_pb2.ListItemsRequest(
                id=job_id,
                node=node,
                states=_states(state or []),
                reason=reason,
                page_size=page_size,
                page_token=page_token,
            )
        )
        return page_of([Item.from_proto(entry) for entry in answer.items], answer.next_page_token)

    @routes.get("/jobs/{id}/nodes/{node}/attempts", response_model=Page[Attempt])
    async def list_attempts(job_id: JobId, node: NodeId, page_size: PageSize = 100, page_token: str = "") -> Response:
        """List the attempts of a node in journal order."""
        answer = await scheduler.call(
            methods.LIST_ATTEMPTS,
            job_pb2.ListAttemptsRequest(id=job_id, node=node, page_size=page_size, page_token=page_token),
        )
        return page_of([Attempt.from_proto(entry) for entry in answer.attempts], answer.next_page_token)

    @routes.get("/attempts/{id}", response_model=Attempt)
    async def get_attempt(
        attempt_id: Annotated[str, Path(alias="id", max_length=256, description="Id of the attempt.")],
    ) -> Response:
        """Return an attempt."""
        # An id is job, generation, stage, shard and number joined by dots.
        parts = attempt_id.rsplit(".", _ATTEMPT_PARTS - 1)
        if len(parts) != _ATTEMPT_PARTS or not all(part.isascii() and part.isdigit() for part in parts[1:]):
            raise NotFoundError(f"There is no attempt {attempt_id}: ids are job.generation.stage.shard.number.")
        request = job_pb2.ListAttemptsRequest(id=parts[0], attempt=attempt_id)
        answer = await scheduler.call(methods.LIST_ATTEMPTS, request)
        if not answer.attempts:
            raise NotFoundError(f"There is no attempt {attempt_id}.")
        return reply(Attempt.from_proto(answer.attempts[0]))

    return routes


async def results_of(context: RouteContext, job_id: str) -> Results:
    """Return the results of a job."""
    answer = await context.scheduler.call(methods.GET_JOB_RESULTS, job_pb2.GetJobResultsRequest(id=job_id))
    return Results.from_proto(answer)


def _states(given: list[str]) -> list[item_pb2.ItemState.ValueType]:
    words = [word.strip().upper() for entry in given for word in entry.split(",") if word.strip()]
    unknown = [word for word in words if word not in ItemState.__members__]
    if unknown:
        known = ", ".join(ItemState)
        raise InvalidError(
            f"There is no state {unknown[0][:50]!r}; the states of items are {known}.",
            problems=(Problem("/query/state", f"one of {known}"),),
        )
    return [item_pb2.ItemState.Value(f"ITEM_STATE_{word}") for word in words]
