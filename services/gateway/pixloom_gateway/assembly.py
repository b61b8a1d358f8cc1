"""Putting the gateway together from its parts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pixloom.rpc.server import build_server, publish_services
from pixloom.v1 import artifact_pb2, artifact_pb2_grpc
from pixloom_gateway.addresses import Addresses
from pixloom_gateway.gateway import Gateway
from pixloom_gateway.items import ItemReader
from pixloom_gateway.metrics import GatewayMetrics
from pixloom_gateway.middleware.limits import DEFAULT_LIMITS, RequestLimits
from pixloom_gateway.readiness import ReadinessCheck
from pixloom_gateway.rest.application import build_application
from pixloom_gateway.rest.context import RouteContext
from pixloom_gateway.rpc.artifacts import Artifacts
from pixloom_gateway.rpc.forwarding import add_forwarded_services
from pixloom_gateway.rpc.jobs import job_handlers
from pixloom_gateway.uploads import MAX_UPLOAD_BYTES, Uploads
from pixloom_gateway.upstream.methods import FORWARDED_SERVICES
from pixloom_gateway.upstream.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.trace import TracerProvider

    from pixloom.artifacts.store import ArtifactStore

__all__ = ["assemble"]


async def assemble(
    *,
    scheduler_addresses: Sequence[str],
    store: ArtifactStore,
    http_listen: str,
    grpc_listen: str,
    version: str,
    new_id: Callable[[], str],
    tracer_provider: TracerProvider | None = None,
    heartbeat_s: float = 15.0,
    limits: RequestLimits = DEFAULT_LIMITS,
    max_upload_bytes: int = MAX_UPLOAD_BYTES,
) -> Gateway:
    """Return a gateway that is ready to be started.

    Args:
        scheduler_addresses: Replicas of the scheduler.
        store: The object store.
        http_listen: Loopback address of REST.
        grpc_listen: Loopback address of gRPC.
        version: Version of Pixloom.
        new_id: Makes ids of calls that bring none.
        tracer_provider: Who makes spans; the process's own if not given.
        heartbeat_s: Silence after which event streams send a comment.
        limits: Limits of requests other than uploads.
        max_upload_bytes: Most bytes of an upload.
    """
    metrics = GatewayMetrics()
    closing = asyncio.Event()
    scheduler = Scheduler(scheduler_addresses, tracer_provider=tracer_provider, observe=metrics.call_ended)
    items = ItemReader(scheduler, store)
    uploads = Uploads(store, max_bytes=max_upload_bytes)
    rpc_server = build_server(tracer_provider=tracer_provider)
    services = add_forwarded_services(rpc_server, scheduler, FORWARDED_SERVICES, own=job_handlers(scheduler, items))
    artifact_pb2_grpc.add_ArtifactServiceServicer_to_server(Artifacts(store, uploads), rpc_server)
    services.append(artifact_pb2.DESCRIPTOR.services_by_name["ArtifactService"].full_name)
    health = await publish_services(rpc_server, services)
    context = RouteContext(
        scheduler=scheduler,
        store=store,
        items=items,
        uploads=uploads,
        new_id=new_id,
        closing=closing,
        heartbeat_s=heartbeat_s,
    )
    addresses = Addresses(http=http_listen, grpc=grpc_listen)
    readiness = ReadinessCheck(scheduler, addresses=addresses, version=version)
    application = build_application(
        context,
        readiness=readiness,
        metrics=metrics,
        version=version,
        tracer_provider=tracer_provider,
        limits=limits,
    )
    return Gateway(
        application=application,
        rpc_server=rpc_server,
        rpc_services=services,
        health=health,
        scheduler=scheduler,
        closing=closing,
        addresses=addresses,
    )
