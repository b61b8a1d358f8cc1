"""Whether the gateway can serve: a scheduler that answers and an executor in session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pixloom.errors import PixloomError
from pixloom.v1 import executor_admin_pb2
from pixloom_gateway.upstream import methods

if TYPE_CHECKING:
    from pixloom_gateway.addresses import Addresses
    from pixloom_gateway.upstream.scheduler import Scheduler

__all__ = ["Readiness", "ReadinessCheck"]

_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Readiness:
    """What is there and what is missing.

    Attributes:
        ready: Whether nothing is missing.
        missing: What is missing, for people.
        executors: Executors in session.
        grpc: Address of the gRPC side, host:port.
        version: Version of Pixloom.
    """

    ready: bool
    missing: tuple[str, ...]
    executors: int
    grpc: str
    version: str


class ReadinessCheck:
    """Asks the scheduler, which serves only with its schema current and its stream present."""

    def __init__(self, scheduler: Scheduler, *, addresses: Addresses, version: str) -> None:
        self._scheduler = scheduler
        self._addresses = addresses
        self._version = version

    async def check(self) -> Readiness:
        """Return what is there now."""
        missing: list[str] = []
        executors = 0
        if not await self._scheduler.is_serving(timeout_s=_TIMEOUT_S):
            missing.append("scheduler: it does not answer, or its schema or stream is not ready")
        else:
            try:
                answer = await self._scheduler.call(methods.LIST_EXECUTORS, executor_admin_pb2.ListExecutorsRequest())
                executors = len(answer.executors)
            except PixloomError as error:
                missing.append(f"scheduler: {error.message}")
            else:
                if executors == 0:
                    missing.append("executor: none is in session")
        return Readiness(
            ready=not missing,
            missing=tuple(missing),
            executors=executors,
            grpc=self._addresses.grpc,
            version=self._version,
        )
