"""One table of calls, two faces.

A *call* is a function that turns arguments into a request and says how the response is read. `Unary` and `Pages` wrap
such a function as a method: on a `SyncCaller` it blocks and returns the result, on an `AsyncCaller` it returns an
awaitable (or an asynchronous iterator). So every RPC is written once, and both clients are typed by its signature.
"""

from __future__ import annotations

import contextlib
import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

import grpc

from pixloom.errors import InvalidError
from pixloom.rpc.status import from_rpc_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from google.protobuf.message import Message

    from pixloom.resources import Page

__all__ = ["AsyncCaller", "Call", "Pages", "SyncCaller", "Unary", "sent_errors"]

R = TypeVar("R")
P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Call(Generic[R]):
    """One RPC, ready to be sent.

    Attributes:
        service: Name of the service, such as JobService.
        rpc: Name of the RPC.
        request: The request.
        response: Class of the response.
        parse: Makes the result of the response.
        wait_s: Seconds the server was asked to wait before it answers.
    """

    service: str
    rpc: str
    request: Message
    response: type[Message]
    parse: Callable[[Any], R] = field(repr=False)
    wait_s: float = 0.0

    @property
    def path(self) -> str:
        """Full name of the method, as it goes over the wire."""
        return f"/pixloom.v1.{self.service}/{self.rpc}"


@contextlib.contextmanager
def sent_errors() -> Iterator[None]:
    """Raise what the server said instead of gRPC's own error."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error


class SyncCaller(ABC):
    """Sends calls and waits for the answers."""

    @abstractmethod
    def invoke(self, call: Call[R]) -> R:
        """Send a call and return its result.

        Raises:
            PixloomError: What the server answered, or that it did not.
        """


class AsyncCaller(ABC):
    """Sends calls without blocking the event loop."""

    @abstractmethod
    async def invoke(self, call: Call[R]) -> R:
        """Send a call and return its result.

        Raises:
            PixloomError: What the server answered, or that it did not.
        """


class Unary(Generic[P, R]):
    """A call as a method of both clients."""

    def __init__(self, build: Callable[P, Call[R]]) -> None:
        self.build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, caller: None, owner: type) -> Unary[P, R]: ...
    @overload
    def __get__(self, caller: SyncCaller, owner: type) -> Callable[P, R]: ...
    @overload
    def __get__(self, caller: AsyncCaller, owner: type) -> Callable[P, Coroutine[Any, Any, R]]: ...
    def __get__(self, caller: SyncCaller | AsyncCaller | None, owner: type) -> Any:
        """Bind the call to a client."""
        if caller is None:
            return self
        bound = caller

        @functools.wraps(self.build)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return bound.invoke(_built(self.build, *args, **kwargs))

        return method


class Pages(Generic[P, R]):
    """A paged call as a method of both clients that iterates over the entries of all pages."""

    def __init__(self, build: Callable[P, Call[Page[R]]]) -> None:
        self.build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, caller: None, owner: type) -> Pages[P, R]: ...
    @overload
    def __get__(self, caller: SyncCaller, owner: type) -> Callable[P, Iterator[R]]: ...
    @overload
    def __get__(self, caller: AsyncCaller, owner: type) -> Callable[P, AsyncIterator[R]]: ...
    def __get__(self, caller: SyncCaller | AsyncCaller | None, owner: type) -> Any:
        """Bind the call to a client."""
        if caller is None:
            return self
        build = cast("Callable[..., Call[Page[R]]]", self.build)
        walk: Callable[..., Any] = (
            functools.partial(_walk, caller)
            if isinstance(caller, SyncCaller)
            else functools.partial(_walk_async, caller)
        )

        @functools.wraps(self.build)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return walk(functools.partial(_built, build, *args, **kwargs))

        return method


def _built(build: Callable[..., Call[R]], *args: Any, **kwargs: Any) -> Call[R]:
    """Return the call that arguments make.

    Raises:
        InvalidError: If a value of them fits into no message: a number out of range, a text that is no UTF-8.
    """
    try:
        return build(*args, **kwargs)
    except ValueError as error:
        raise InvalidError(f"A value of the call cannot be sent: {error}. Give another.") from error


def _walk(caller: SyncCaller, build: Callable[..., Call[Page[R]]]) -> Iterator[R]:
    page = caller.invoke(build())
    yield from page.items
    while page.next_page_token:
        page = caller.invoke(build(page_token=page.next_page_token))
        yield from page.items


async def _walk_async(caller: AsyncCaller, build: Callable[..., Call[Page[R]]]) -> AsyncIterator[R]:
    page = await caller.invoke(build())
    for entry in page.items:
        yield entry
    while page.next_page_token:
        page = await caller.invoke(build(page_token=page.next_page_token))
        for entry in page.items:
            yield entry
