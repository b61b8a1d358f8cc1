"""The two calls of JobService that are not merely passed on: items, and watching through restarts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from pixloom.v1 import job_pb2
from pixloom_gateway.upstream.methods import path_of
from pixloom_gateway.upstream.watch import watch_job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pixloom_gateway.items import ItemReader
    from pixloom_gateway.upstream.scheduler import Scheduler

__all__ = ["job_handlers"]


def job_handlers(scheduler: Scheduler, items: ItemReader) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    """Return the handlers by full method name."""

    async def list_items(request: job_pb2.ListItemsRequest, _: Any) -> job_pb2.ListItemsResponse:
        return await items.list_items(request)

    async def watch(request: job_pb2.WatchJobRequest, _: Any) -> AsyncIterator[job_pb2.WatchJobResponse]:
        async for update in watch_job(scheduler, request.id, after_seq=request.after_seq):
            yield update

    make: Any = grpc
    return {
        path_of("JobService", "ListItems"): make.unary_unary_rpc_method_handler(
            list_items,
            request_deserializer=job_pb2.ListItemsRequest.FromString,
            response_serializer=job_pb2.ListItemsResponse.SerializeToString,
        ),
        path_of("JobService", "WatchJob"): make.unary_stream_rpc_method_handler(
            watch,
            request_deserializer=job_pb2.WatchJobRequest.FromString,
            response_serializer=job_pb2.WatchJobResponse.SerializeToString,
        ),
    }
