"""One item through a chain of fused ops.

The bytes are opened when the first op wants pixels, and decoded when it touches them. From then on pixels stay in
memory from op to op. Whatever an op may see is the same as if every op were a stage of its own: while pixels differ
from any file the record names no bytes, also when they come from an intermediate that the stage before has stored.

An op decides neither the place of the item it is given nor that of items it makes of it: an item keeps its ordinal, and
what was made of it is numbered below. So what is rejected is found again in what the task has read.

A stage ends behind an op that may make several items of one. What it makes of an item passes as a whole, or the item
itself is rejected. Jobs whose plan was made when such an op could be followed by others, or by the word of an executor
that does not say which ops expand, still run their stages as they were cut: each item made takes its own way.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from pixloom.errors import OurError, PeerError
from pixloom.sdk.encoding import rejection_from
from pixloom.sdk.op import Filtered, Image, Item, Reject, Retry, Shape
from pixloom.v1 import executor_pb2 as pb
from pixloom_executor.records import record_to_message, rejected_message
from pixloom_executor.storing import store_delivered, store_intermediate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pixloom.v1 import item_pb2
    from pixloom_executor.binding import BoundCall
    from pixloom_executor.marker import Marker
    from pixloom_executor.opening import Opener
    from pixloom_executor.storing import RecordingStore

__all__ = ["ItemChain", "ItemOutcome", "NodeFailed", "Verdict"]


class NodeFailed(Exception):  # noqa: N818 - it ends the task as the workflow wants it
    """An item was refused at a node whose `on_error` is `fail`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Verdict:
    """An item that is rejected without being run, because running it took the process down.

    Attributes:
        call: Place in the chain of the op it was in.
        reason: CRASHED, TIMEOUT or OUT_OF_MEMORY.
        detail: Sentence for people.
    """

    call: int
    reason: str
    detail: str


@dataclass(slots=True)
class ItemOutcome:
    """What became of one input item.

    Attributes:
        outputs: Items behind the last op.
        rejects: Items filtered or rejected.
        kept: Call and item for each delivery in the middle of the chain.
        passed: Call of each time an item passed one.
        spent: Call and nanoseconds of each time one was called.
        retry: Set if the item is to be tried again: nothing else counts then.
    """

    outputs: list[item_pb2.Item] = field(default_factory=list)
    rejects: list[item_pb2.Item] = field(default_factory=list)
    kept: list[tuple[int, item_pb2.Item]] = field(default_factory=list)
    passed: list[int] = field(default_factory=list)
    spent: list[tuple[int, int]] = field(default_factory=list)
    retry: Retry | None = None


@dataclass(slots=True)
class _Flow:
    """An item between two ops.

    Attributes:
        record: Its record.
        image: Its pixels, if they have been opened.
        stored: `uri`, `sha256` and `size_bytes` of the intermediate it was read from, hidden from ops.
        changed: Whether the pixels differ from what the record was read from.
    """

    record: Item
    image: Image | None = None
    stored: tuple[str, str, int] | None = None
    changed: bool = False


class ItemChain:
    """The chain of one batch; runs items one after another."""

    def __init__(self, *, calls: Sequence[BoundCall], opener: Opener, store: RecordingStore, marker: Marker) -> None:
        self._calls = calls
        self._opener = opener
        self._store = store
        self._marker = marker
        self._current: _Flow | None = None
        self._digests: dict[tuple[str, int], str] = {}
        self._last_attempt = False
        for call in calls:
            call.context.open_bytes = self._open_bytes
            call.context.open_image = self._open_image_for(call)

    def run(self, index: int, record: Item, *, last_attempt: bool) -> ItemOutcome:
        """Run an input item through the chain.

        Raises:
            NodeFailed: if it is refused where `on_error` is `fail`.
        """
        outcome = ItemOutcome()
        self._last_attempt = last_attempt
        for call in self._calls:
            call.context.index = index
        flow = _Flow(record)
        if record.intermediate:
            flow.stored = (record.uri, record.sha256, record.size_bytes)
            _name_no_bytes(record)
        try:
            self._run_from(0, flow, index, outcome)
        except Retry as retry:
            outcome.retry = retry
        except MemoryError:
            raise  # this process ends, and the marker still names the item
        except BaseException:
            self._marker.leave()
            raise
        self._current = None
        self._marker.leave()
        return outcome

    def reject(self, record: Item, verdict: Verdict) -> ItemOutcome:
        """Return the outcome of an item that is rejected without being run.

        Raises:
            NodeFailed: if `on_error` of the op it was in is `fail`.
        """
        outcome = ItemOutcome(passed=list(range(verdict.call)))
        self._refuse(self._calls[verdict.call], record, Reject(verdict.reason, verdict.detail), outcome)
        return outcome

    def _run_from(self, number: int, flow: _Flow, index: int, outcome: ItemOutcome) -> None:
        calls, enter = self._calls, self._marker.enter
        started = enter(index, number, calls[number].timeout_ns)
        while True:
            call = calls[number]
            self._current = flow
            ordinal = flow.record.ordinal
            try:
                followers = self._step(call, flow)
                flow.record.ordinal = ordinal
                if call.deliver and number + 1 < len(calls):
                    passing = [flow] if followers is None else followers
                    kept = [record_to_message(self._delivered(branch)) for branch in passing]
                    outcome.kept.extend((number, item) for item in kept)
            except Exception as error:  # noqa: BLE001 - whatever a user's op raises is about this item alone
                flow.record.ordinal = ordinal
                self._refuse(call, flow.record, error, outcome)
                outcome.spent.append((number, enter(index, number, call.timeout_ns) - started))
                return
            number += 1
            ended = enter(index, min(number, len(calls) - 1), calls[min(number, len(calls) - 1)].timeout_ns)
            outcome.spent.append((call.number, ended - started))
            flow.record.duration_ms += (ended - started) / 1e6
            if number == len(calls):
                self._finish(call, flow, followers, outcome)
                return
            if followers is not None:
                outcome.passed.extend([call.number] * len(followers))
                for branch in followers:
                    self._run_from(number, branch, index, outcome)
                return
            started = ended
            outcome.passed.append(call.number)

    def _step(self, call: BoundCall, flow: _Flow) -> list[_Flow] | None:
        """Call an op on a flow; return its followers if the op made several items, else None."""
        if call.shape is Shape.RECORD:
            return self._step_record(call, flow)
        if call.shape is not Shape.IMAGE:
            raise TypeError(f"{call.definition.ref} is no item op")
        image = self._image(flow, call)
        image.record = flow.record
        try:
            result = call.function(image, **call.kwargs)
            facts: dict[str, Any] | None = None
            if isinstance(result, tuple):
                result, facts = result
            elif isinstance(result, dict):
                result, facts = None, result
            if result is not None:
                self._take_image(call, flow, image, result)
        except Exception as error:
            raise _for_image(error, image) from error
        if facts:
            flow.record.attributes.update(facts)
        return None

    def _take_image(self, call: BoundCall, flow: _Flow, image: Image, result: Any) -> None:
        if not isinstance(result, Image):
            raise TypeError(f"{call.definition.ref} returned {type(result).__name__} where an image was expected")
        flow.record = result.record
        if result.identity is not image.identity:
            result.materialise()
            flow.changed = True
            flow.stored = None
            flow.record.op_digest = self._chained(flow.record.op_digest, call)
        flow.image = result

    def _step_record(self, call: BoundCall, flow: _Flow) -> list[_Flow] | None:
        record = flow.record
        uri, sha256 = record.uri, record.sha256
        # The record is the op's to change; what is made of the item goes by what it was.
        before = replace(record) if call.definition.signature.expands else None
        result = call.function(record, **call.kwargs)
        if result is None:
            return None
        if isinstance(result, dict):
            record.attributes.update(result)
            return None
        if isinstance(result, Item):
            flow.record = result
            if (result.uri, result.sha256) != (uri, sha256) and result.uri:
                # The op names other bytes: they are opened anew.
                flow.image, flow.stored, flow.changed = None, None, False
            return None
        if isinstance(result, (list, tuple)):
            if before is None:
                raise Reject("OP_ERROR", _undeclared(call, result))
            if all(isinstance(part, Item) for part in result):
                return [_branch(flow, before, part, place) for place, part in enumerate(result)]
        raise TypeError(f"{call.definition.ref} returned {type(result).__name__} where an item was expected")

    def _image(self, flow: _Flow, call: BoundCall) -> Image:
        if flow.image is None:
            record = flow.record
            if flow.stored is None:
                flow.image = self._opener.open_image(record, call.limits)
            else:
                uri, sha256, size_bytes = flow.stored
                kept = replace(record, uri=uri, sha256=sha256, size_bytes=size_bytes, intermediate=True)
                flow.image = self._opener.open_image(kept, call.limits)
        return flow.image

    def _finish(self, call: BoundCall, flow: _Flow, followers: list[_Flow] | None, outcome: ItemOutcome) -> None:
        """Store what is left behind the last op: all that was made of an item, or nothing of it."""
        leaves_file = call.deliver and not call.feeds_pixels
        passing = [flow] if followers is None else followers
        kept: list[tuple[int, item_pb2.Item]] = []
        outputs: list[item_pb2.Item] = []
        try:
            if followers and not leaves_file:
                self._store_shared(flow, followers)
            for branch in passing:
                if call.deliver and call.feeds_pixels:
                    kept.append((call.number, record_to_message(self._delivered(branch))))
                record = self._delivered(branch) if leaves_file else self._between_stages(branch)
                outputs.append(record_to_message(record))
        except Reject as error:
            self._refuse(call, flow.record, error, outcome)
            return
        outcome.kept += kept
        outcome.outputs += outputs
        outcome.passed.extend([call.number] * len(passing))

    def _store_shared(self, flow: _Flow, followers: list[_Flow]) -> None:
        """Store pixels that were changed once for all items that have them, however many were made."""
        if not flow.changed or flow.image is None or all(branch.image is not flow.image for branch in followers):
            return
        record = store_intermediate(flow.image, flow.record, self._store)
        for branch in followers:
            if branch.image is flow.image:
                branch.stored, branch.changed = (record.uri, record.sha256, record.size_bytes), False

    def _delivered(self, flow: _Flow) -> Item:
        if not flow.changed and flow.stored is None:
            return flow.record
        image = self._image(flow, self._calls[0])
        return store_delivered(image, flow.record, self._store)

    def _between_stages(self, flow: _Flow) -> Item:
        if flow.changed and flow.image is not None:
            return store_intermediate(flow.image, flow.record, self._store)
        if flow.stored is not None:
            uri, sha256, size_bytes = flow.stored
            return replace(flow.record, uri=uri, sha256=sha256, size_bytes=size_bytes, intermediate=True)
        return flow.record

    def _refuse(self, call: BoundCall, record: Item, error: Exception, outcome: ItemOutcome) -> None:
        """Note what an error means for the item; errors that are not about the item are raised."""
        match error:
            case PeerError() | OurError() | MemoryError():
                raise error
            case Retry() if not self._last_attempt:
                raise error
            case Filtered():
                state, reason, detail = "FILTERED", error.reason, error.detail
            case Reject() | Retry():
                state, reason, detail = "REJECTED", error.reason, error.detail
            case OSError():
                state, reason, detail = "REJECTED", "READ_ERROR", f"{type(error).__name__}: {error}"
            case _:
                state, reason, detail = "REJECTED", "OP_ERROR", f"{type(error).__name__}: {error}"
        if state == "REJECTED":
            if call.on_error == pb.ON_ERROR_FAIL:
                raise NodeFailed(reason, f"node {call.node}: item {record.key}: {detail}")
            if call.on_error == pb.ON_ERROR_SKIP:
                state = "FILTERED"
        outcome.rejects.append(rejected_message(record, state=state, reason=reason, detail=detail, node=call.node))

    def _chained(self, digest: str, call: BoundCall) -> str:
        key = (digest, call.number)
        chained = self._digests.get(key)
        if chained is None:
            if len(self._digests) >= _DIGESTS_KEPT:
                self._digests.clear()
            chained = hashlib.sha256(f"{digest}{call.digest}".encode()).hexdigest()
            self._digests[key] = chained
        return chained

    def _open_image_for(self, call: BoundCall) -> Any:
        def open_image(record: Item) -> Image:
            flow = self._current
            if flow is not None and _is_same(record, flow.record):
                return self._image(flow, call)
            return self._opener.open_image(record.copy(), call.limits)

        return open_image

    def _open_bytes(self, record: Item) -> bytes:
        flow = self._current
        if flow is not None and _is_same(record, flow.record) and not record.uri:
            return self._image(flow, self._calls[0]).encoded().data
        return self._opener.open_bytes(record)


_DIGESTS_KEPT: Final = 4096


def _branch(flow: _Flow, before: Item, record: Item, place: int) -> _Flow:
    """Return the flow of an item that an op made of another, which was `before` and still has the pixels of `flow`."""
    ordinal = (*before.ordinal, place)
    if not record.uri:
        # It names no bytes of its own, so it has those of the item it was made of, and all that is said of them.
        made = replace(before, key=record.key, ordinal=ordinal, attributes=dict(record.attributes))
    else:
        made = replace(record, ordinal=ordinal, attributes=dict(record.attributes))
        if (made.uri, made.sha256) != (before.uri, before.sha256):
            return _Flow(made)
    return _Flow(made, flow.image, flow.stored, flow.changed)


def _undeclared(call: BoundCall, result: Sequence[Any]) -> str:
    return (
        f"{call.definition.ref} returned a {type(result).__name__} of {len(result)}, and its return annotation says that "
        "it makes no list; write `-> list[Item]`"
    )


def _is_same(one: Item, other: Item) -> bool:
    return one is other or (one.ordinal == other.ordinal and one.uri == other.uri)


def _name_no_bytes(record: Item) -> None:
    record.uri = record.sha256 = ""
    record.size_bytes = 0
    record.intermediate = False


def _for_image(error: Exception, image: Image) -> Exception:
    """Return what an error of an op on pixels means: one of libvips on a file's bytes is about the file."""
    if type(error).__module__.startswith("pyvips") and image.source_bytes is not None:
        return rejection_from(error)
    return error
