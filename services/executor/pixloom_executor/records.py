"""Between `pixloom.v1.Item` and the record that ops see.

Text comes from file names, metadata and users' ops: what a message or a database cannot hold (lone surrogates, NUL) is
replaced here, once, so that one odd value never stops a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from pixloom.sdk.op import Item, Reject
from pixloom.v1 import item_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["clean_text", "record_from", "record_to_message", "rejected_message"]

_STATES: Final = {
    "OK": pb.ITEM_STATE_OK,
    "FILTERED": pb.ITEM_STATE_FILTERED,
    "REJECTED": pb.ITEM_STATE_REJECTED,
}
_OK: Final = pb.ITEM_STATE_OK
_DETAIL_BYTES: Final = 1024
_KEY_BYTES: Final = 4096
_JSON_OPTIONS: Final = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def record_from(message: pb.Item, prefix: tuple[int, ...] = ()) -> Item:
    """Return the record in a message, with `prefix` put in front of its ordinal."""
    attributes = message.attributes_json
    uri = message.uri
    parents = message.parents
    ordinal = tuple(message.ordinal[:])  # a slice is copied at once, iterating would not be
    if prefix:
        ordinal = prefix + ordinal
    if not uri:  # nothing is known about bytes that are not there
        return Item(
            message.key,
            ordinal,
            parents=tuple(parents) if parents else (),
            op_digest=message.op_digest,
            attributes=orjson.loads(attributes) if attributes else {},
        )
    return Item(
        message.key,
        ordinal,
        uri,
        message.sha256,
        message.size_bytes,
        message.format,
        message.width,
        message.height,
        message.pages,
        message.orientation,
        message.has_alpha,
        message.icc,
        tuple(parents) if parents else (),
        message.op_digest,
        0.0,
        orjson.loads(attributes) if attributes else {},
        message.intermediate,
    )


def record_to_message(record: Item) -> pb.Item:
    """Return the message for a record that passed.

    Raises:
        Reject: with BAD_RECORD if a field does not fit or the attributes are no JSON.
    """
    try:
        message = pb.Item()  # field by field, in half the time that keywords take
        message.ordinal.extend(record.ordinal)
        message.key = record.key
        message.state = _OK
        if record.uri or record.format or record.width:
            message.uri = record.uri
            message.sha256 = record.sha256
            message.size_bytes = record.size_bytes
            message.format = record.format
            message.width = record.width
            message.height = record.height
            message.pages = record.pages
            message.orientation = record.orientation
            message.has_alpha = record.has_alpha
            message.icc = record.icc
            message.intermediate = record.intermediate
        if record.parents:
            message.parents.extend(record.parents)
        if record.op_digest:
            message.op_digest = record.op_digest
        if record.duration_ms:
            message.duration_ms = record.duration_ms
        if record.attributes:
            message.attributes_json = attributes_to_json(record.attributes)
    except (TypeError, ValueError) as error:
        if clean_text(record.key, _KEY_BYTES) != record.key or clean_text(record.uri, _KEY_BYTES) != record.uri:
            record.key = clean_text(record.key, _KEY_BYTES)
            record.uri = clean_text(record.uri, _KEY_BYTES)
            return record_to_message(record)
        raise Reject("BAD_RECORD", f"a field of the record does not fit: {error}") from error
    if "\0" in record.key or len(record.key) > _KEY_BYTES // 4:
        message.key = clean_text(record.key, _KEY_BYTES)
    return message


def rejected_message(record: Item, *, state: str, reason: str, detail: str, node: str) -> pb.Item:
    """Return the message for a record that was filtered or rejected at a node; it always fits."""
    try:
        message = record_to_message(record)
    except Reject:
        message = pb.Item(
            ordinal=[part for part in record.ordinal if 0 <= part < 1 << 64],
            key=clean_text(str(record.key), _KEY_BYTES),
        )
    message.state = _STATES[state]
    message.reason = clean_text(reason, 128) or "UNKNOWN"
    message.detail = clean_text(detail, _DETAIL_BYTES)
    message.node = node
    return message


def attributes_to_json(attributes: Mapping[str, Any]) -> bytes:
    """Return attributes as one JSON object without NUL.

    Raises:
        Reject: with BAD_ATTRIBUTES if they are no JSON.
    """
    try:
        data = orjson.dumps(attributes, option=_JSON_OPTIONS)
    except (TypeError, ValueError) as error:
        raise Reject("BAD_ATTRIBUTES", f"the attributes are no JSON: {error}") from error
    if b"\\u0000" in data:
        data = orjson.dumps(_without_nul(orjson.loads(data)))
    return data


def clean_text(text: str, size_bytes: int) -> str:
    """Return text that fits into a message and a database, cut to a number of bytes."""
    data = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "backslashreplace")
    return data[:size_bytes].decode("utf-8", "ignore")


def _without_nul(value: Any) -> Any:
    match value:
        case str():
            return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
        case list():
            return [_without_nul(part) for part in value]
        case dict():
            return {_without_nul(name): _without_nul(part) for name, part in value.items()}
        case _:
            return value
