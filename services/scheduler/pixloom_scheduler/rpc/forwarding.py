"""Calls about a job that another replica owns: passed on to the owner, once.

A job's id carries its partition, so any replica can tell who owns it. A call that was passed on says so in a header,
and whoever gets it serves it or answers UNAVAILABLE, so that no call goes round in circles. Jobs that have ended are
read from the database by whoever is asked. New jobs are never passed on: they get an id in a partition of the replica
that accepts them.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import grpc

from pixloom.errors import PixloomError, UnavailableError
from pixloom.rpc.channel import aio_channel
from pixloom.rpc.status import from_rpc_error
from pixloom.v1 import job_pb2
from pixloom_scheduler.job import partition_of
from pixloom_scheduler.journal.tables import PARTITIONS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from pixloom_scheduler.core.events import CancelRequested
    from pixloom_scheduler.journal.reader import Reader
    from pixloom_scheduler.partitions import Partitions
    from pixloom_scheduler.replica import Replica

    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["FORWARDED", "ForwardingInterceptor", "Owners"]

FORWARDED: Final = "x-pixloom-forwarded"
"""Metadata key of a call that was passed on."""

OWNER_WAIT_S: Final = 2.0
"""How long a call waits for a partition that was released to be taken."""

_LOOK_EVERY_S: Final = 0.05
_TIMEOUT_S: Final = 20.0
_GLANCE_S: Final = 1.0
"""How long the owner of a job has to add to what its row says."""

_ENDED: Final = (job_pb2.JOB_STATE_COMPLETED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED)
_SERVICE: Final = "/pixloom.v1.JobService/"
_READS: Final = frozenset({"GetJob", "GetJobResults", "ListNodes", "WatchJob"})
_READ_ANYWHERE: Final = frozenset({"ListAttempts", "ListManifests", "ListItems"})


class Owners:
    """Finds the replica that serves a job, and keeps a channel to each."""

    def __init__(self, *, partitions: Partitions, replica: Replica, reader: Reader) -> None:
        self._partitions = partitions
        self._replica = replica
        self._reader = reader
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def route(self, job_id: str, *, is_read: bool, is_forwarded: bool) -> grpc.aio.Channel | None:
        """Return a channel to the owner of a job; None if the job is served here.

        Args:
            job_id: Id of the job.
            is_read: Whether the call may be answered from the database when the job has ended.
            is_forwarded: Whether somebody passed the call on to us.

        Raises:
            UnavailableError: If nobody owns the job at the moment, or not we although the call was passed on.
        """
        partition = partition_of(job_id)
        if not 0 <= partition < PARTITIONS or "\0" in job_id:
            return None  # there is no such job, which is told here
        if self._serves(partition):
            await self._partitions.loading.loaded(job_id)
            if self._serves(partition):
                return None
        if is_read and await self._has_ended(job_id):
            return None
        if is_forwarded:
            raise UnavailableError("the owner of the job changed; try again", retry_after_s=0.1)
        loop = asyncio.get_running_loop()
        until = loop.time() + OWNER_WAIT_S
        while True:
            if self._serves(partition):
                await self._partitions.loading.loaded(job_id)
                return None
            address, _ = await self._partitions.owner_of(partition)
            if address and not self._serves(partition):
                return self.channel(address)
            if loop.time() > until:
                raise UnavailableError("nobody owns the job at the moment; try again", retry_after_s=0.5)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def until_loaded(self, job_ids: Iterable[str]) -> None:
        """Wait, but not for long, until those of some jobs are in memory that are ours and being loaded."""
        with contextlib.suppress(TimeoutError, UnavailableError):
            async with asyncio.timeout(_GLANCE_S):
                for job_id in job_ids:
                    if self._serves(partition_of(job_id)):
                        await self._partitions.loading.loaded(job_id)

    async def cancel_elsewhere(self, job_id: str, event: CancelRequested) -> bool:
        """Cancel a job at its owner; False if it is to be cancelled here.

        Raises:
            PixloomError: What the owner says, or UNAVAILABLE if there is none.
        """
        channel = await self.route(job_id, is_read=False, is_forwarded=False)
        if channel is None:
            return False
        request = job_pb2.CancelJobRequest(id=job_id, now=event.now, reason=event.detail)
        await _call(channel, f"{_SERVICE}CancelJob", request, timeout_s=_TIMEOUT_S)
        return True

    def owner_elsewhere(self, job_id: str) -> grpc.aio.Channel | None:
        """Return a channel to the owner of a job if that is known to be another replica."""
        address, _ = self._partitions.known_owner(partition_of(job_id))
        return self.channel(address) if address and not self._serves(partition_of(job_id)) else None

    def channel(self, address: str) -> grpc.aio.Channel:
        """Return a channel to a replica."""
        found = self._channels.get(address)
        if found is None:
            found = self._channels[address] = aio_channel(address)
        return found

    async def close(self) -> None:
        """Close the channels."""
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close()

    def _serves(self, partition: int) -> bool:
        return self._replica.serves(partition) and self._replica.is_inside_lease

    async def _has_ended(self, job_id: str) -> bool:
        stored = await self._reader.job(job_id)
        return stored is None or stored.record is not None


class ForwardingInterceptor(grpc.aio.ServerInterceptor):
    """Passes calls of `JobService` on to the owners of their jobs."""

    def __init__(self, owners: Owners) -> None:
        self._owners = owners
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler of a call of `JobService`."""
        handler: Any = await continuation(handler_call_details)
        details: Any = handler_call_details
        method = str(details.method)
        if handler is None or not method.startswith(_SERVICE):
            return handler  # type: ignore[no-any-return]
        if method not in self._wrapped:
            run: Any
            make: Any
            if handler.response_streaming:
                run, make = partial(self._stream, method, handler), grpc.unary_stream_rpc_method_handler
            else:
                run, make = partial(self._unary, method, handler), grpc.unary_unary_rpc_method_handler
            self._wrapped[method] = make(
                run,
                request_deserializer=handler.request_deserializer,
                response_serializer=partial(_serialised, handler.response_serializer),
            )
        return self._wrapped[method]

    async def _unary(self, method: str, handler: Any, request: Any, context: Context) -> Any:
        name = method.removeprefix(_SERVICE)
        if name == "CreateJob":
            created = await handler.unary_unary(request, context)
            return job_pb2.CreateJobResponse(job=await self._as_owned(created.job))
        if name == "ListJobs":
            listed = await handler.unary_unary(request, context)
            jobs = await asyncio.gather(*(self._as_owned(job) for job in listed.jobs))
            return job_pb2.ListJobsResponse(jobs=jobs, next_page_token=listed.next_page_token)
        channel = await self._route(name, request, context)
        if channel is None:
            return await handler.unary_unary(request, context)
        timeout_s = min(_TIMEOUT_S, context.time_remaining() or _TIMEOUT_S)
        return await _call(channel, method, request, timeout_s=timeout_s)

    async def _stream(self, method: str, handler: Any, request: Any, context: Context) -> AsyncIterator[Any]:
        channel = await self._route(method.removeprefix(_SERVICE), request, context)
        if channel is None:
            async for response in handler.unary_stream(request, context):
                yield response
            return
        call: Any = channel.unary_stream(method)(
            request.SerializeToString(), metadata=((FORWARDED, "1"),), timeout=context.time_remaining()
        )
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise _told(error) from error
        finally:
            call.cancel()

    async def _route(self, name: str, request: Any, context: Context) -> grpc.aio.Channel | None:
        job_id = request.job.id if name == "UpdateJob" else getattr(request, "id", "")
        if not job_id or name in _READ_ANYWHERE:
            return None
        is_forwarded = any(key == FORWARDED for key, _ in context.invocation_metadata() or ())
        return await self._owners.route(job_id, is_read=name in _READS, is_forwarded=is_forwarded)

    async def _as_owned(self, job: job_pb2.Job) -> job_pb2.Job:
        """Return a job that was read here as its owner shows it, if that is another replica and answers."""
        if job.state in _ENDED:
            return job
        channel = self._owners.owner_elsewhere(job.id)
        if channel is None:
            return job
        request = job_pb2.GetJobRequest(id=job.id)
        try:
            data = await _call(channel, f"{_SERVICE}GetJob", request, timeout_s=_GLANCE_S)
        except PixloomError:
            return job
        return job_pb2.GetJobResponse.FromString(data).job


async def _call(channel: grpc.aio.Channel, method: str, request: Any, *, timeout_s: float) -> bytes:
    """Pass a call on and return its answer as it came."""
    ask: Any = channel.unary_unary(method)
    try:
        answer: bytes = await ask(request.SerializeToString(), metadata=((FORWARDED, "1"),), timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        raise _told(error) from error
    return answer


def _told(error: grpc.aio.AioRpcError) -> Exception:
    """Return the owner's error, or what to tell if the owner could not be reached."""
    known = from_rpc_error(error)
    if "grpc_code" in known.metadata and error.code() is grpc.StatusCode.UNAVAILABLE:
        return UnavailableError("the owner of the job does not answer; try again", retry_after_s=0.5)
    return known


def _serialised(serialise: Callable[[Any], bytes], response: Any) -> bytes:
    return response if isinstance(response, bytes) else serialise(response)
