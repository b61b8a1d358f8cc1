"""Executors in session."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - pydantic reads annotations at run time
from typing import TYPE_CHECKING

from pydantic import Field

from pixloom.resources.wire import Resource, time_of

if TYPE_CHECKING:
    from pixloom.v1 import executor_admin_pb2

__all__ = ["Executor"]


class Executor(Resource):
    """One executor as its scheduler sees it.

    Attributes:
        id: Id, new at each start.
        pools: Pools it serves.
        ops: Names with versions of the ops it serves.
        slots: Tasks it can run at once.
        busy: Slots in use.
        draining: Whether it takes nothing new.
        hostname: Host it runs on.
        pid: Process id on that host.
        version: Version of Pixloom it runs.
        start_time: When its session began.
        last_seen_time: When it was last heard of.
    """

    id: str
    pools: list[str] = Field(default_factory=list)
    ops: list[str] = Field(default_factory=list)
    slots: int = 0
    busy: int = 0
    draining: bool = False
    hostname: str = ""
    pid: int = 0
    version: str = ""
    start_time: datetime | None = None
    last_seen_time: datetime | None = None

    @classmethod
    def from_proto(cls, pb: executor_admin_pb2.Executor) -> Executor:
        """Return the resource for a message."""
        return cls(
            id=pb.id,
            pools=list(pb.pools),
            ops=list(pb.ops),
            slots=pb.slots,
            busy=pb.busy,
            draining=pb.draining,
            hostname=pb.hostname,
            pid=pb.pid,
            version=pb.version,
            start_time=time_of(pb, "start_time"),
            last_seen_time=time_of(pb, "last_seen_time"),
        )
