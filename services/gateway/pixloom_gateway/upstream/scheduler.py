"""Calls to the scheduler over one or several addresses.

Every replica takes every call, so one that answers is kept; when it does not answer, the next address is tried. New jobs
go to all of them in turn, since a job belongs to the replica that takes it. A call that may already have taken effect is sent again only if that is harmless.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

import grpc
from grpc_health.v1 import health_pb2
from opentelemetry import trace

from pixloom.errors import DeadlineError, InternalError, PixloomError, UnavailableError
from pixloom.rpc.channel import aio_channel
from pixloom.rpc.status import from_rpc_error
from pixloom.telemetry.grpc_clients import begin_call, end_call
from pixloom_gateway.upstream.methods import begins_a_job, is_repeatable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from google.protobuf.message import Message
    from opentelemetry.trace import TracerProvider

    from pixloom_gateway.upstream.methods import Method

__all__ = ["Metadata", "Scheduler", "error_of"]

Metadata = tuple[tuple[str, str | bytes], ...]
Request = TypeVar("Request", bound="Message")
Response = TypeVar("Response", bound="Message")

_CALL_TIMEOUT_S: Final = 20.0
# Waits between rounds over all addresses: together as long as another scheduler takes to take over from one that was
# killed, which is its lease of 3 s and one more.
_ROUND_DELAYS_S: Final = (0.1, 0.2, 0.3, 0.5, 0.9, 1.0, 1.0)
# Time limit of one attempt where another address may be tried: who owned the job and hangs has lost it by then.
_ATTEMPT_S: Final = 4.0
# How long a scheduler that did not answer is given no new jobs.
_SPARE_S: Final = 1.0
_HEALTH_CHECK: Final = "/grpc.health.v1.Health/Check"


class Scheduler:
    """A client of the scheduler; make it, use it and close it in one event loop."""

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        tracer_provider: TracerProvider | None = None,
        timeout_s: float = _CALL_TIMEOUT_S,
        round_delays_s: Sequence[float] = _ROUND_DELAYS_S,
        attempt_s: float = _ATTEMPT_S,
        observe: Callable[[str, str, float], None] | None = None,
    ) -> None:
        """Open channels; they connect with the first call.

        Args:
            addresses: Replicas as `host:port` or `unix:/path`, tried in this order.
            tracer_provider: Who makes the client spans; the process's own if not given.
            timeout_s: Time limit of a call that brings none of its own.
            round_delays_s: Waits before a repeatable call goes round all addresses again.
            attempt_s: Time limit of an attempt at a call that may be sent again to another address.
            observe: Told method, gRPC code and seconds of every call that ended.
        """
        # Retries are made here, where the next address is known.
        options = (("grpc.enable_retries", 0),)
        self._tracer = trace.get_tracer("pixloom.rpc", tracer_provider=tracer_provider)
        self._channels = [aio_channel(address, options=options, is_traced=False) for address in addresses]
        self._current = 0
        self._turn = 0
        self._left_at: dict[int, float] = {}
        self._timeout_s = timeout_s
        self._round_delays_s = tuple(round_delays_s)
        self._attempt_s = attempt_s
        self._observe = observe or (lambda _method, _code, _seconds: None)

    async def close(self) -> None:
        """Close the channels; calls under way end."""
        for channel in self._channels:
            await channel.close()

    async def call(
        self,
        method: Method[Request, Response],
        request: Request,
        *,
        repeatable: bool | None = None,
        wait_s: float = 0.0,
    ) -> Response:
        """Make a call.

        Args:
            method: One of `pixloom_gateway.upstream.methods`.
            request: Its request.
            repeatable: Whether it may be sent twice; by its method if not given. True for creates with a request_id.
            wait_s: Seconds the scheduler was asked to wait before it answers.

        Raises:
            PixloomError: What the scheduler raised, or UNAVAILABLE or DEADLINE_EXCEEDED if it does not answer.
        """
        again = is_repeatable(method.path) if repeatable is None else repeatable
        try:
            data, _ = await self.forward(method.path, request.SerializeToString(), repeatable=again, wait_s=wait_s)
        except grpc.aio.AioRpcError as error:
            raise error_of(error) from error
        return method.response.FromString(data)

    async def forward(
        self,
        path: str,
        data: bytes,
        *,
        metadata: Metadata = (),
        timeout_s: float | None = None,
        repeatable: bool = False,
        wait_s: float = 0.0,
    ) -> tuple[bytes, Metadata]:
        """Pass a unary call on as it is.

        Args:
            path: Its full name.
            data: Its request.
            metadata: Its metadata.
            timeout_s: Its time limit; the usual one and `wait_s` if it brings none.
            repeatable: Whether it may be sent twice.
            wait_s: Seconds the scheduler was asked to wait before it answers.

        Returns:
            The response and the trailing metadata.

        Raises:
            grpc.aio.AioRpcError: The status of the last attempt.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + (self._timeout_s + wait_s if timeout_s is None else timeout_s)
        tries = len(self._channels)
        for round_number in range(len(self._round_delays_s) + 1):
            for turn in range(tries):
                started_at = now()
                left_s = max(deadline - started_at, 0.001)
                attempt_s = min(left_s, self._attempt_s + wait_s) if repeatable and tries > 1 else left_s
                index = self._next() if begins_a_job(path) else self._current
                span, traced = begin_call(self._tracer, path, metadata)
                call = self._unary(index, path)(data, metadata=traced, timeout=attempt_s)
                try:
                    response: Any = await call
                except grpc.aio.AioRpcError as error:
                    end_call(span, error.code())
                    self._observe(path, error.code().name, now() - started_at)
                    last = round_number == len(self._round_delays_s) and turn == tries - 1
                    is_silent = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                    is_away = is_silent or _does_not_answer(error)
                    if is_away:
                        # One that is silent may hang, with its connections open: the next call goes elsewhere.
                        self._leave(index)
                    out_of_time = is_silent and now() >= deadline
                    if last or out_of_time or not repeatable or not is_away:
                        raise
                    continue
                except asyncio.CancelledError:
                    end_call(span, grpc.StatusCode.CANCELLED)
                    raise
                end_call(span, grpc.StatusCode.OK)
                self._observe(path, "OK", now() - started_at)
                return response, tuple((key, value) for key, value in (await call.trailing_metadata()) or ())
            await asyncio.sleep(self._round_delays_s[round_number])
        raise AssertionError("the last attempt of the last round returns or raises")

    async def stream(self, method: Method[Request, Response], request: Request) -> AsyncGenerator[Response]:
        """Make a call with a stream of responses, once, at the address that answered last.

        Raises:
            PixloomError: As `call`.
        """
        index = self._current
        start: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self._channels[index].unary_stream(method.path)
        span, traced = begin_call(self._tracer, method.path)
        stream = start(request.SerializeToString(), metadata=traced)
        code = grpc.StatusCode.OK
        started_at = asyncio.get_running_loop().time()
        try:
            async for data in stream:
                yield method.response.FromString(data)
        except grpc.aio.AioRpcError as error:
            code = error.code()
            if _does_not_answer(error):
                self._leave(index)
            raise error_of(error) from error
        finally:
            stream.cancel()
            end_call(span, code)
            self._observe(method.path, code.name, asyncio.get_running_loop().time() - started_at)

    async def is_serving(self, *, timeout_s: float) -> bool:
        """Return whether the health service of a replica says SERVING, trying each once."""
        request = health_pb2.HealthCheckRequest().SerializeToString()
        for _ in self._channels:
            index = self._current
            try:
                data: Any = await self._unary(index, _HEALTH_CHECK)(request, timeout=timeout_s)
            except grpc.aio.AioRpcError:
                self._leave(index)
                continue
            if health_pb2.HealthCheckResponse.FromString(data).status == health_pb2.HealthCheckResponse.SERVING:
                return True
            self._leave(index)
        return False

    def _unary(self, index: int, path: str) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
        return self._channels[index].unary_unary(path)

    def _next(self) -> int:
        """Return whose turn it is to take a new job; who did not answer a moment ago is left out."""
        now = asyncio.get_running_loop().time()
        up = [index for index in range(len(self._channels)) if now - self._left_at.get(index, -_SPARE_S) >= _SPARE_S]
        turn, self._turn = self._turn, self._turn + 1
        return up[turn % len(up)] if up else self._current

    def _leave(self, index: int) -> None:
        self._left_at[index] = asyncio.get_running_loop().time()
        # Several calls may fail at once on one address; only the first of them moves on.
        if self._current == index:
            self._current = (index + 1) % len(self._channels)


def _does_not_answer(error: grpc.aio.AioRpcError) -> bool:
    """Return whether another address may answer: an overloaded scheduler did answer."""
    return error.code() is grpc.StatusCode.UNAVAILABLE and from_rpc_error(error).reason == "UNAVAILABLE"


def error_of(error: grpc.aio.AioRpcError) -> PixloomError:
    """Return the error for a failed call, without the texts of the transport."""
    known = from_rpc_error(error)
    if "grpc_code" not in known.metadata:
        return known
    match error.code():
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return UnavailableError("The scheduler does not answer; try again in a moment.", retry_after_s=1.0)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineError("The scheduler did not answer in time; try again.", retry_after_s=1.0)
        case grpc.StatusCode.UNIMPLEMENTED | grpc.StatusCode.RESOURCE_EXHAUSTED:
            return known
        case _:
            return InternalError("The scheduler failed; its log says why.")
