"""The ops of a lease batch, looked up and their params validated once for all its tasks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import orjson

from pixloom.errors import InvalidError
from pixloom.sdk.op import Context, OpDefinition, Shape
from pixloom.v1 import executor_pb2 as pb
from pixloom_executor.probe import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from pixloom_executor.registry import Registry

__all__ = ["Binder", "BoundCall"]

_DEFAULT_TIMEOUT_NS: Final = 60 * 10**9


@dataclass(slots=True)
class BoundCall:
    """One op of a chain, ready to be called.

    Attributes:
        number: Place in the chain, from 0.
        node: Id of the node.
        definition: The op.
        shape: How it is called.
        function: Its function; coroutines are run to their end.
        kwargs: Params and context.
        values: Values of positional parameters that a value op takes from the params.
        on_error: What happens to an item it refuses.
        timeout_ns: Time limit in nanoseconds an item or a run.
        deliver: Whether its output is delivered.
        feeds_pixels: Whether later stages open the pixels it gives.
        limits: Limits on images it opens.
        context: The place it runs in.
        digest: Digest of op, params and codecs.
    """

    number: int
    node: str
    definition: OpDefinition
    shape: Shape
    function: Callable[..., Any]
    kwargs: dict[str, Any]
    values: dict[str, Any]
    on_error: pb.OnError.ValueType
    timeout_ns: int
    deliver: bool
    feeds_pixels: bool
    limits: Limits
    context: Context
    digest: str


class Binder:
    """Binds the calls of batches against a registry."""

    def __init__(self, *, registry: Registry, loop: asyncio.Runner) -> None:
        self._registry = registry
        self._loop = loop

    @cached_property
    def _digests(self) -> dict[tuple[str, bytes], str]:
        return {}

    def bind(self, calls: Iterable[pb.OpCall], context: Callable[[str, Limits], Context]) -> list[BoundCall]:
        """Return calls that can be called.

        Args:
            calls: The calls of a batch.
            context: Makes the context of a node with its limits.

        Raises:
            InvalidError: with UNKNOWN_OP in its metadata's `reason`, or INVALID_PARAMS.
        """
        return [self._bind_one(number, call, context) for number, call in enumerate(calls)]

    def _bind_one(self, number: int, call: pb.OpCall, make: Callable[[str, Limits], Context]) -> BoundCall:
        definition = self._registry.get(call.op)
        if definition is None:
            raise InvalidError(
                f"node {call.node}: this executor does not serve {call.op}", metadata={"reason": "UNKNOWN_OP"}
            )
        signature = definition.signature
        limits = _limits(call.limits) if call.HasField("limits") else DEFAULT_LIMITS
        context = make(call.node, limits)
        values, params = _split_values(definition, call.params_json)
        kwargs = definition.bind(params)
        if signature.context is not None:
            kwargs[signature.context] = context
        return BoundCall(
            number=number,
            node=call.node,
            definition=definition,
            shape=signature.shape,
            function=self._runnable(definition),
            kwargs=kwargs,
            values=values,
            on_error=call.on_error or pb.ON_ERROR_QUARANTINE,
            timeout_ns=call.timeout.ToNanoseconds() or int(definition.timeout_s * 1e9) or _DEFAULT_TIMEOUT_NS,
            deliver=call.deliver,
            feeds_pixels=call.feeds_pixels,
            limits=limits,
            context=context,
            digest=self._digest(definition, call.params_json),
        )

    def _runnable(self, definition: OpDefinition) -> Callable[..., Any]:
        if not definition.is_async:
            return definition.function
        run, function = self._loop.run, definition.function
        return lambda *args, **kwargs: run(function(*args, **kwargs))

    def _digest(self, definition: OpDefinition, params_json: bytes) -> str:
        key = (definition.ref, params_json)
        digest = self._digests.get(key)
        if digest is None:
            if len(self._digests) > 1024:
                self._digests.clear()
            canonical = orjson.dumps(orjson.loads(params_json or b"{}"), option=orjson.OPT_SORT_KEYS)
            digest = hashlib.sha256(definition.spec.digest.encode() + canonical).hexdigest()
            self._digests[key] = digest
        return digest


def _split_values(definition: OpDefinition, params_json: bytes) -> tuple[dict[str, Any], bytes]:
    """Take the values of positional parameters out of the params of a value op."""
    if definition.signature.shape is not Shape.VALUE or not definition.signature.positional:
        return {}, params_json
    params = orjson.loads(params_json or b"{}")
    values = {name: params.pop(name) for name in definition.signature.positional if name in params}
    return values, orjson.dumps(params)


def _limits(message: pb.Limits) -> Limits:
    return Limits(
        max_pixels=message.max_pixels or DEFAULT_LIMITS.max_pixels,
        max_bytes=message.max_bytes or DEFAULT_LIMITS.max_bytes,
        max_frames=message.max_frames or DEFAULT_LIMITS.max_frames,
    )
