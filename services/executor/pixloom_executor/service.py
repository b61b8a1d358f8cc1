"""Wires an executor together and runs it; the only place where its parts learn of one another."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
import uuid
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import structlog

from pixloom.opcodec import op_to_proto
from pixloom.queue import LANES, connect_queue
from pixloom.v1 import executor_pb2
from pixloom_executor.children.pool import ChildPool
from pixloom_executor.children.settings import ChildSettings
from pixloom_executor.leases import LeaseBook
from pixloom_executor.owners import Owners
from pixloom_executor.puller import Puller, Room
from pixloom_executor.session import Session, session_channel
from pixloom_executor.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pixloom.settings import ExecutorSettings

__all__ = ["run_executor"]

DRAIN_S: Final = 30.0
FLUSH_S: Final = 5.0


def _resolved(roots: Iterable[Path]) -> tuple[str, ...]:
    return tuple(str(root.resolve()) for root in roots)


async def run_executor(settings: ExecutorSettings, *, stop: asyncio.Event) -> None:
    """Run one executor until `stop` is set or a scheduler asks it to leave; then finish, flush and return.

    Raises:
        UnavailableError: If NATS does not answer at start.
        InvalidError: If a module with ops cannot be loaded.
    """
    log = structlog.get_logger("executor")
    executor_id = uuid.uuid4().hex
    slots = settings.executor_slots or os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="pixloom-scratch-") as scratch:
        children = ChildPool(
            slots=slots,
            settings=ChildSettings(
                artifacts_url=settings.artifacts_url,
                scratch_dir=scratch,
                source_roots=_resolved(settings.source_roots),
                imports=settings.executor_imports,
            ),
        )
        ops = [op_to_proto(spec) for spec in await children.start()]
        pullers: list[Puller] = []

        async def ask_again() -> None:
            for puller in pullers:
                puller.ask_again()

        try:
            connection = await connect_queue(settings.nats_url, service="executor", reconnected_cb=ask_again)
        except BaseException:
            await children.stop()
            raise
        book = LeaseBook()
        supervisor = Supervisor(executor_id=executor_id, children=children, book=book)

        def hello() -> executor_pb2.Hello:
            return executor_pb2.Hello(
                executor_id=executor_id,
                pools=settings.executor_pools,
                slots=slots,
                ops=ops,
                hostname=socket.gethostname(),
                pid=os.getpid(),
                version=version("pixloom"),
                leases=book.announced(),
                open_slots=supervisor.open_slots(),
                reads_columns=True,
                reads_siblings=True,
            )

        def open_session(address: str, owners: Owners) -> Session:
            channel = session_channel(address)
            return Session(address=address, channel=channel, hello=hello, book=book, listener=supervisor, owners=owners)

        owners = Owners(configured=settings.scheduler_addresses, open_session=open_session, book=book)
        room = Room(
            batches=lambda: children.batches, urgent=lambda: children.urgent_batches, is_open=supervisor.has_room
        )
        supervisor.connect(owners=owners, room=room, ops=(op.name for op in ops))
        js = connection.jetstream()
        pullers += [
            Puller(js=js, pool=pool, lane=lane, room=room, take=supervisor.take)
            for pool in settings.executor_pools
            for lane in LANES
        ]
        tasks = [asyncio.create_task(owners.run(), name="sessions")]
        tasks.append(asyncio.create_task(supervisor.watch_slots(), name="slots"))
        # Without children it would claim work and never do any: it ends, and whoever keeps it alive starts another.
        tasks.append(asyncio.create_task(children.watch(), name="children"))
        pulls = [asyncio.create_task(puller.run(), name="puller") for puller in pullers]
        ends = [asyncio.create_task(stop.wait()), asyncio.create_task(supervisor.wait_for_drain())]
        log.info("executor_ready", executor=executor_id, slots=slots, pools=list(settings.executor_pools), ops=len(ops))
        try:
            done, _ = await asyncio.wait({*ends, *tasks, *pulls}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - set(ends):
                task.result()
            supervisor.drain()
            for pull in pulls:
                pull.cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_S):
                    await asyncio.gather(supervisor.finish(), *(puller.finish() for puller in pullers))
            flushed = await supervisor.flush(FLUSH_S)
            log.info("executor_stopped", executor=executor_id, flushed=flushed)
        finally:
            for task in (*tasks, *pulls, *ends):
                task.cancel()
            await asyncio.gather(*tasks, *pulls, *ends, return_exceptions=True)
            await children.stop()
            await connection.close()
