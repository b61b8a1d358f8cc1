"""Ops between `pixloom.graph` and the wire: `OpSpec` to `pixloom.v1.Op` and back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from google.protobuf.duration_pb2 import Duration

from pixloom.errors import InvalidError
from pixloom.graph.catalogue import OpKind, OpSpec, Port, PortType
from pixloom.v1 import op_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["op_from_proto", "op_to_proto"]

_KINDS: Final[Mapping[OpKind, op_pb2.OpKind.ValueType]] = {
    OpKind.SOURCE: op_pb2.OP_KIND_SOURCE,
    OpKind.ITEM: op_pb2.OP_KIND_ITEM,
    OpKind.COLLECTION: op_pb2.OP_KIND_COLLECTION,
    OpKind.VALUE: op_pb2.OP_KIND_VALUE,
}
_PORT_TYPES: Final[Mapping[PortType, op_pb2.PortType.ValueType]] = {
    PortType.IMAGE: op_pb2.PORT_TYPE_IMAGE,
    PortType.RECORD: op_pb2.PORT_TYPE_RECORD,
    PortType.TABLE: op_pb2.PORT_TYPE_TABLE,
    PortType.VALUE: op_pb2.PORT_TYPE_VALUE,
}
_KIND_OF: Final = {wire: kind for kind, wire in _KINDS.items()}
_PORT_TYPE_OF: Final = {wire: kind for kind, wire in _PORT_TYPES.items()}


def op_to_proto(op: OpSpec) -> op_pb2.Op:
    """Return the message of an op; `op_from_proto` is its inverse."""
    return op_pb2.Op(
        name=op.ref,
        kind=_KINDS[op.kind],
        summary=op.summary,
        documentation=op.documentation,
        params_schema_json=json.dumps(op.params_schema, ensure_ascii=False, sort_keys=True).encode(),
        inputs=[op_pb2.Port(name=port.name, type=_PORT_TYPES[port.type], optional=port.optional) for port in op.inputs],
        output=_PORT_TYPES[op.output],
        pool=op.pool,
        deterministic=op.deterministic,
        external_effect=op.external_effect,
        expands=op.expands,
        cost_hint=_duration(op.cost_hint_s),
        digest=op.digest,
        default_timeout=_duration(op.default_timeout_s),
    )


def op_from_proto(message: op_pb2.Op) -> OpSpec:
    """Return the op of a message that an executor sent.

    Raises:
        InvalidError: The message is no op: its name has no version, an enum is unset, or the schema is no JSON object.
    """
    name, _, version = message.name.rpartition("@")
    if not name or not version.isdecimal():
        raise InvalidError(f"the op `{message.name}` has no version; announce it as `name@1`")
    if message.kind not in _KIND_OF:
        raise InvalidError(f"the op `{message.name}` has no kind")
    try:
        schema = json.loads(message.params_schema_json or b"{}")
    except ValueError as error:
        raise InvalidError(f"the params schema of the op `{message.name}` is not JSON") from error
    if not isinstance(schema, dict):
        raise InvalidError(f"the params schema of the op `{message.name}` is no JSON object")
    return OpSpec(
        name=name,
        version=int(version),
        kind=_KIND_OF[message.kind],
        output=_port_type(message.output, message.name),
        inputs=tuple(Port(port.name, _port_type(port.type, message.name), port.optional) for port in message.inputs),
        params_schema=schema,
        summary=message.summary,
        documentation=message.documentation,
        pool=message.pool or "cpu",
        deterministic=message.deterministic,
        external_effect=message.external_effect,
        expands=message.expands,
        cost_hint_s=_seconds(message.cost_hint) if message.HasField("cost_hint") else 0.01,
        default_timeout_s=_seconds(message.default_timeout) if message.HasField("default_timeout") else 60.0,
        digest=message.digest,
    )


def _port_type(wire: op_pb2.PortType.ValueType, op: str) -> PortType:
    if wire not in _PORT_TYPE_OF:
        raise InvalidError(f"the op `{op}` has a port or output without a type")
    return _PORT_TYPE_OF[wire]


def _duration(seconds: float) -> Duration:
    nanos = round(seconds * 1e9)
    return Duration(seconds=nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
