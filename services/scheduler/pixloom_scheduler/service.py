"""Wires the scheduler together and runs it; the only place where its parts learn of one another."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import time
import uuid
from typing import TYPE_CHECKING, Any, Final

import structlog
import uuid_utils
from grpc_health.v1 import health_pb2

from pixloom.artifacts import open_store
from pixloom.errors import MachineError
from pixloom.queue import connect_queue, declare_stream
from pixloom.rpc.channel import FIXED_WINDOW
from pixloom.rpc.server import INTERNAL_PROBLEMS_BYTES, build_server, listen, publish_services
from pixloom.v1 import executor_admin_pb2_grpc, executor_pb2_grpc, job_pb2_grpc, op_pb2_grpc, workflow_pb2_grpc
from pixloom_scheduler.catalogue import OpCatalogue
from pixloom_scheduler.clock import DatabaseClock
from pixloom_scheduler.costs import CostModel
from pixloom_scheduler.dispatch import Dispatcher
from pixloom_scheduler.estimates import Estimates
from pixloom_scheduler.executors import ExecutorRegistry
from pixloom_scheduler.grants import Grants
from pixloom_scheduler.inputs import InputReader, OutputCache
from pixloom_scheduler.journal import schema
from pixloom_scheduler.journal.committer import Committer
from pixloom_scheduler.journal.definitions import Definitions
from pixloom_scheduler.journal.finished import FinishedJobs
from pixloom_scheduler.journal.inheritance import InheritanceWriter
from pixloom_scheduler.journal.loader import Loader
from pixloom_scheduler.journal.membership import Membership
from pixloom_scheduler.journal.ownership import Ownership, connect, read_deployment
from pixloom_scheduler.journal.reader import Reader
from pixloom_scheduler.messages import MessageComposer
from pixloom_scheduler.outside import Outside
from pixloom_scheduler.partitions import Partitions
from pixloom_scheduler.planning import Planning
from pixloom_scheduler.reads import JobReads
from pixloom_scheduler.rejects import RejectFinder
from pixloom_scheduler.replica import Replica
from pixloom_scheduler.reruns import Reruns
from pixloom_scheduler.resolver import Resolver
from pixloom_scheduler.rpc.catalogue import ExecutorAdmin, Ops
from pixloom_scheduler.rpc.forwarding import ForwardingInterceptor, Owners
from pixloom_scheduler.rpc.jobs import Jobs
from pixloom_scheduler.rpc.manifests import ManifestLister
from pixloom_scheduler.rpc.session import ExecutorSessions
from pixloom_scheduler.rpc.workflows import Workflows
from pixloom_scheduler.starting import Starts
from pixloom_scheduler.submission import Submissions
from pixloom_scheduler.takeovers import HeldTakeovers
from pixloom_scheduler.timers import Timers
from pixloom_scheduler.tokens import TokenMint
from pixloom_scheduler.traces import Traces
from pixloom_scheduler.waiting import WaitingReasons
from pixloom_scheduler.watches import Watches
from pixloom_scheduler.workflow_files import WorkflowFiles

if TYPE_CHECKING:
    from collections.abc import Callable

    import asyncpg

    from pixloom.settings import SchedulerSettings

__all__ = ["LEASE_S", "run_scheduler"]

LEASE_S: Final = 3.0
RELEASE_S: Final = 5.0
"""How long an end may take to flush and release; after that the leases end by themselves."""

SERVICES: Final = (
    "pixloom.v1.ExecutorService",
    "pixloom.v1.JobService",
    "pixloom.v1.WorkflowService",
    "pixloom.v1.OpService",
    "pixloom.v1.ExecutorAdminService",
)


async def run_scheduler(settings: SchedulerSettings, *, stop: asyncio.Event) -> None:
    """Run one replica until `stop` is set; then flush, release and return.

    Raises:
        UnavailableError: If the database or NATS does not answer at start.
        CommitsLostError: If the database went back in time; a restart reads everything anew.
    """
    log = structlog.get_logger("scheduler")
    dsn = settings.database_url
    engine = schema.create_engine(dsn)
    await schema.upgrade(engine)
    await schema.add_days(engine)

    async def open_connection() -> asyncpg.Connection[Any]:
        return await connect(dsn, lease_s=LEASE_S)

    address = settings.reachable_at
    replica_id = f"{os.uname().nodename}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    deployment = await read_deployment(open_connection)
    ownership = Ownership(
        connect=open_connection, replica=replica_id, address=address, lease_s=LEASE_S, deployment=deployment
    )
    connection = await connect_queue(settings.nats_url, service="scheduler", pending_size=16 * 1024 * 1024)
    js = connection.jetstream(publish_async_max_pending=4096)
    await declare_stream(js)

    clock = DatabaseClock()
    timers = Timers(clock)
    costs = CostModel({})
    executors = ExecutorRegistry()
    reader, loader, definitions = Reader(engine), Loader(engine), Definitions(engine)
    catalogue = OpCatalogue(definitions)
    await catalogue.load()
    outputs = OutputCache()
    inputs = InputReader(cache=outputs, payloads=reader)
    traces = Traces()
    rejects = RejectFinder(reader=reader, inputs=inputs, store=open_store(settings.artifacts_url))
    outside = Outside(executors=executors, timers=timers, traces=traces, resolver=Resolver(), rejects=rejects)
    committer = Committer(connect=open_connection, lease_s=LEASE_S, incarnation=deployment.incarnation)
    replica = Replica(
        journal=committer,
        loader=loader,
        clock=clock,
        effects=outside,
        costs=costs.costs,
        lease_s=LEASE_S,
        monotonic=time.monotonic,
    )

    takeovers = HeldTakeovers(clock=clock, timers=timers)

    def membership(released: Callable[[], None]) -> Membership:
        return Membership(
            connect=open_connection,
            replica=replica_id,
            address=address,
            lease_s=LEASE_S,
            released=released,
            limits=settings.limits,
        )

    partitions = Partitions(
        replica_id=replica_id,
        address=address,
        replica=replica,
        ownership=ownership,
        membership=membership,
        jobs=loader,
        takeovers=takeovers,
        monotonic=time.monotonic,
        chance=random.random,
    )

    def new_id() -> str:
        return uuid_utils.uuid7().hex

    dispatcher = Dispatcher(
        js=js,
        replica=replica,
        executors=executors,
        composer=MessageComposer(
            inputs=inputs,
            traces=traces,
            clock=clock,
            address=address,
            epoch_of=replica.epoch_of,
            read_columns=executors.read_columns,
        ),
        clock=clock,
        costs=costs.costs,
        new_id=new_id,
        limits=settings.limits,
    )
    grants = Grants(
        replica=replica,
        dispatcher=dispatcher,
        mint=TokenMint(incarnation=deployment.incarnation, key=deployment.token_key, nonce=secrets.token_bytes),
        timers=timers,
        costs=costs.costs,
    )
    sessions = ExecutorSessions(
        replica=replica,
        executors=executors,
        dispatcher=dispatcher,
        inputs=inputs,
        outputs=outputs,
        costs=costs,
        catalogue=catalogue,
        partitions=partitions,
        takeovers=takeovers,
        grants=grants,
        clock=clock,
        timers=timers,
        incarnation=str(deployment.incarnation),
    )
    outside.connect(replica=replica, dispatcher=dispatcher, sessions=sessions)
    dispatcher.connect(sessions.hand_over)
    partitions.connect(dispatcher.divide_limits)
    takeovers.connect(dispatcher=dispatcher, sessions=sessions)
    planning = Planning(catalogue)
    submissions = Submissions(
        replica=replica, definitions=definitions, reader=reader, planning=planning, clock=clock, new_id=new_id
    )
    reads = JobReads(
        replica=replica,
        reader=reader,
        waiting=WaitingReasons(dispatcher=dispatcher, executors=executors),
        estimates=Estimates(costs=costs.costs, slots=executors.slots),
        clock=clock,
    )
    owners = Owners(partitions=partitions, replica=replica, reader=reader)
    jobs = Jobs(
        replica=replica,
        submissions=submissions,
        reads=reads,
        reader=reader,
        watches=Watches(reads=reads, reader=reader, clock=clock),
        manifests=ManifestLister(reader=reader, loader=loader, replica=replica, inputs=inputs),
        starts=Starts(replica=replica, reader=reader, planning=planning),
        reruns=Reruns(
            replica=replica,
            submissions=submissions,
            reads=reads,
            reader=reader,
            loader=loader,
            writer=InheritanceWriter(engine),
            catalogue=catalogue,
            clock=clock,
            loaded=partitions.loading.loaded,
        ),
        finished=FinishedJobs(engine),
        owners=owners,
    )
    server = build_server(
        interceptors=(ForwardingInterceptor(owners),), options=FIXED_WINDOW, problems_bytes=INTERNAL_PROBLEMS_BYTES
    )
    executor_pb2_grpc.add_ExecutorServiceServicer_to_server(sessions, server)
    job_pb2_grpc.add_JobServiceServicer_to_server(jobs, server)
    workflow_pb2_grpc.add_WorkflowServiceServicer_to_server(
        Workflows(definitions=definitions, catalogue=catalogue, planning=planning, executors=executors), server
    )
    op_pb2_grpc.add_OpServiceServicer_to_server(Ops(catalogue), server)
    executor_admin_pb2_grpc.add_ExecutorAdminServiceServicer_to_server(
        ExecutorAdmin(executors=executors, sessions=sessions), server
    )
    health = await publish_services(server, SERVICES)
    listen(server, settings.scheduler_listen)
    files = WorkflowFiles(definitions=definitions, catalogue=catalogue)
    await files.load_builtin()
    await files.load(settings.workflows_dir)
    # Before the first timer is set: this machine's clock may be far from the database's.
    clock.set(await ownership.time())
    await partitions.join()

    async def on_reconnect() -> None:
        await dispatcher.reconnected()

    connection._reconnected_cb = on_reconnect  # noqa: SLF001  # nats-py takes it at connect only, before js exists
    sessions.watch_silence()
    loop_task = asyncio.create_task(replica.run(), name="replica")
    levelling = asyncio.create_task(partitions.run(), name="partitions")
    background = [
        levelling,
        asyncio.create_task(dispatcher.run(), name="dispatcher"),
        asyncio.create_task(timers.run(), name="timers"),
        asyncio.create_task(schema.keep_days(engine), name="journal days"),
        asyncio.create_task(files.keep_loading(), name="workflow files"),
    ]
    await server.start()
    await health.set("", health_pb2.HealthCheckResponse.SERVING)
    log.info("scheduler_ready", address=settings.scheduler_listen, advertised=address, partitions=len(replica.stamps))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({stopping, loop_task, *background}, return_when=asyncio.FIRST_COMPLETED)
        for task in (loop_task, *background):
            if task.done():
                task.result()
                raise MachineError(f"{task.get_name()} ended by itself")
    finally:
        stopping.cancel()
        await health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        levelling.cancel()
        # First the partitions: whoever calls meanwhile is passed on to their next owners.
        with contextlib.suppress(Exception):
            await asyncio.wait_for(_hand_over(levelling, partitions, loop_task), timeout=RELEASE_S)
        sessions.stop()
        await server.stop(grace=2.0)
        replica.stop()
        for task in background:
            task.cancel()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(loop_task, timeout=5)
        with contextlib.suppress(Exception):
            await partitions.close()
        await owners.close()
        await committer.close()
        await connection.close()
        await engine.dispose()
        log.info("scheduler_stopped")


async def _hand_over(levelling: asyncio.Task[None], partitions: Partitions, loop_task: asyncio.Task[None]) -> None:
    """Flush and release everything, unless the loop has ended, which alone can flush."""
    await asyncio.gather(levelling, return_exceptions=True)
    if not loop_task.done():
        await partitions.release_all()
