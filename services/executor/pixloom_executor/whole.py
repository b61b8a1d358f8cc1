"""Ops that run once for a task: sources, collection ops, value ops and item ops without input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from pixloom.artifacts.media import JSON
from pixloom.errors import InvalidError
from pixloom.sdk.op import Dropped, File, Item, Items, Page, Shape
from pixloom_executor.records import record_to_message, rejected_message

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pixloom.v1 import executor_pb2 as pb
    from pixloom.v1 import item_pb2
    from pixloom_executor.binding import BoundCall
    from pixloom_executor.inputs import InputReader
    from pixloom_executor.marker import Marker
    from pixloom_executor.storing import RecordingStore

__all__ = ["WholeOutcome", "WholeRun"]

VALUE_BYTES: Final = 64 * 1024
_JSON_OPTIONS: Final = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


@dataclass(slots=True)
class WholeOutcome:
    """What a run gave.

    Attributes:
        items: Items that flow on; None if it gave a value.
        rejects: Items dropped.
        value_json: The value; empty if it gave items or the value is too large.
        artifact: A file, or a value too large to travel.
        next_cursor: Where the next page of a source begins.
        end: Whether a source has no next page.
        spent: Nanoseconds in each call.
    """

    items: list[item_pb2.Item] | None = None
    rejects: list[item_pb2.Item] | None = None
    value_json: bytes = b""
    artifact: item_pb2.ArtifactRef | None = None
    next_cursor: str = ""
    end: bool = False
    spent: list[int] | None = None


class WholeRun:
    """Runs the calls of one batch as a whole."""

    def __init__(
        self, *, calls: Sequence[BoundCall], inputs: InputReader, store: RecordingStore, marker: Marker
    ) -> None:
        self._calls = calls
        self._inputs = inputs
        self._store = store
        self._marker = marker

    def run(self, task: pb.Task) -> WholeOutcome:
        """Run a task.

        Raises:
            Exception: whatever the op raises.
        """
        outcome = WholeOutcome(spent=[])
        try:
            result: Any = None
            for number, call in enumerate(self._calls):
                arguments = self._arguments(call, task) if number == 0 else _following(call, result)
                started = self._marker.enter(-1, number, call.timeout_ns)
                result = self._call(call, task, arguments)
                ended = self._marker.enter(-1, number, call.timeout_ns)
                assert outcome.spent is not None  # noqa: S101 - set above
                outcome.spent.append(ended - started)
            self._take(self._calls[-1], task, result, outcome)
        except MemoryError:
            raise  # this process ends, and the marker still says where
        except BaseException:
            self._marker.leave()
            raise
        self._marker.leave()
        return outcome

    def _call(self, call: BoundCall, task: pb.Task, arguments: list[Any]) -> Any:
        if call.shape is Shape.SOURCE:
            extra = {"cursor": task.cursor or None} if call.definition.signature.cursor else {}
            return call.function(**call.kwargs, **extra)
        return call.function(*arguments, **call.kwargs)

    def _arguments(self, call: BoundCall, task: pb.Task) -> list[Any]:
        ports = call.definition.signature.ports
        if call.shape is Shape.SOURCE:
            return []
        if call.shape in (Shape.IMAGE, Shape.RECORD):
            if not ports[0].optional:
                raise InvalidError(f"node {call.node}: {call.definition.ref} needs items on its port {ports[0].name}")
            return [None]
        by_port = self._by_port(task, [port.name for port in ports])
        if call.shape is Shape.COLLECTION:
            return [
                None if port.optional and port.name not in by_port else by_port.get(port.name, []) for port in ports
            ]
        values = {name: [_plain(item) for item in items] for name, items in by_port.items()}
        names = [port.name for port in ports]
        for part in task.inputs:
            if part.value_json:
                values[part.port if part.port in names else names[0]] = self._whole_value(orjson.loads(part.value_json))
        values.update(call.values)
        return [values.get(name) for name in call.definition.signature.positional]

    def _whole_value(self, value: Any) -> Any:
        """Return a value, read from the store if it was too large to travel; the facts about a file stay what they are."""
        match value:
            case {"$artifact": {"sha256": str(sha256), "media_type": media_type}} if (
                len(value) == 1 and media_type == JSON
            ):
                return orjson.loads(self._store.get(sha256))
            case _:
                return value

    def _by_port(self, task: pb.Task, names: list[str]) -> dict[str, list[Item]]:
        slices: dict[str, list[item_pb2.InputSlice]] = {}
        for part in task.inputs:
            if part.value_json:
                continue
            # `images` and `items` both name the only port of an op.
            name = part.port if part.port in names or not names else names[0]
            slices.setdefault(name, []).append(part)
        # Shards end in any order; a collection is read in the order of its ordinals.
        return {name: sorted(self._inputs.read(parts), key=lambda item: item.ordinal) for name, parts in slices.items()}

    def _take(self, call: BoundCall, task: pb.Task, result: Any, outcome: WholeOutcome) -> None:
        if isinstance(result, Page):
            if result.next_cursor is not None and result.next_cursor in ("", task.cursor):
                # The pages would begin anew, for ever.
                raise InvalidError(
                    f"node {call.node}: {call.definition.ref} says behind the cursor {task.cursor!r} that the next page "
                    f"begins at {result.next_cursor!r}, which gets nowhere; the last page has None there"
                )
            for place, item in enumerate(result.items):
                if not item.ordinal:
                    item.ordinal = (task.first_ordinal + place,)
            outcome.items = [record_to_message(item) for item in result.items]
            outcome.next_cursor = result.next_cursor or ""
            outcome.end = result.next_cursor is None
            return
        if isinstance(result, list) and result and all(isinstance(part, Item) for part in result):
            result = Items(kept=result)
        if isinstance(result, list) and not result and call.definition.output.value == "record":
            result = Items()
        if isinstance(result, Items):
            outcome.items = self._ordered(result.kept)
            outcome.rejects = [
                *self._dropped(result.filtered, "FILTERED", call.node),
                *self._dropped(result.rejected, "REJECTED", call.node),
            ]
            outcome.rejects.sort(key=_ordinal)
            return
        if isinstance(result, File):
            data = result.content if isinstance(result.content, bytes) else result.content.read_bytes()
            outcome.artifact = self._store.put(data, result.media_type)
            outcome.value_json = _to_json(result.facts)
            if len(outcome.value_json) > VALUE_BYTES:
                raise ValueError(f"the facts about a file have {len(outcome.value_json):,} bytes; 65,536 are allowed")
            return
        value = _to_json(_plain(result))
        if len(value) <= VALUE_BYTES:
            outcome.value_json = value
        else:
            outcome.artifact = self._store.put(value, JSON)

    def _ordered(self, items: Iterable[Item]) -> list[item_pb2.Item]:
        messages = []
        for place, item in enumerate(items):
            if not item.ordinal:
                item.ordinal = (place,)
            messages.append(record_to_message(item))
        messages.sort(key=_ordinal)
        return messages

    def _dropped(self, dropped: Sequence[Dropped], state: str, node: str) -> list[item_pb2.Item]:
        return [
            rejected_message(drop.item, state=state, reason=drop.reason, detail=drop.detail, node=node)
            for drop in dropped
        ]


def _following(call: BoundCall, result: Any) -> list[Any]:
    """Return the arguments of a call that follows another one in a run."""
    if call.shape is not Shape.VALUE:
        raise InvalidError(f"node {call.node}: {call.definition.ref} cannot follow another op in a run")
    names = call.definition.signature.positional
    return [_plain(result), *(call.values.get(name) for name in names[1:])][: len(names)]


def _ordinal(item: item_pb2.Item) -> tuple[int, ...]:
    return tuple(item.ordinal)


def _plain(value: Any) -> Any:
    """Return a result as JSON: of an item its record."""
    match value:
        case Item():
            return {
                "key": value.key,
                "ordinal": list(value.ordinal),
                "uri": value.uri,
                "sha256": value.sha256,
                "size_bytes": value.size_bytes,
                "format": value.format,
                "width": value.width,
                "height": value.height,
                "attributes": value.attributes,
            }
        case File():
            return value.facts
        case Mapping():
            return dict(value)
        case _:
            return value


def _to_json(value: Any) -> bytes:
    data = orjson.dumps(value, option=_JSON_OPTIONS)
    return data.replace(b"\\u0000", b"\\ufffd") if b"\\u0000" in data else data
