"""The ops that workflows may use."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from pixloom.resources.wire import Resource, enum_word, json_object, seconds_of
from pixloom.v1 import op_pb2

__all__ = ["Op", "Port"]


class Port(Resource):
    """An input of an op.

    Attributes:
        name: Name by which `inputs` refer to it.
        type: image, record, table or value.
        optional: Whether the op runs without it.
    """

    name: str
    type: str
    optional: bool = False

    @classmethod
    def from_proto(cls, pb: op_pb2.Port) -> Port:
        """Return the resource for a message."""
        return cls(name=pb.name, type=_port_type(pb.type), optional=pb.optional)


class Op(Resource):
    """A typed, versioned function.

    Attributes:
        name: Name with version, such as image.thumbnail@1.
        kind: source, item, collection or value.
        summary: First line of its documentation.
        documentation: Documentation in Markdown.
        params_schema: JSON Schema (2020-12) of its params.
        inputs: Inputs in order; empty for sources.
        output: What it gives: image, record, table or value.
        pool: Pool of executors that serve it.
        deterministic: Whether equal inputs and params always give equal outputs.
        external_effect: Whether it changes something outside Pixloom.
        expands: Whether it may make several items of one, so that a stage ends behind it.
        cost_hint_s: Expected seconds an item or a run, until they have been measured.
        default_timeout_s: Time limit an item or a run if the workflow gives none.
        digest: Digest of the codecs and code that decide its output.
    """

    name: str
    kind: str
    summary: str = ""
    documentation: str = ""
    params_schema: dict[str, Any] = Field(default_factory=dict)
    inputs: list[Port] = Field(default_factory=list)
    output: str
    pool: str = "cpu"
    deterministic: bool = True
    external_effect: bool = False
    expands: bool = False
    cost_hint_s: float | None = None
    default_timeout_s: float | None = None
    digest: str = ""

    @classmethod
    def from_proto(cls, pb: op_pb2.Op) -> Op:
        """Return the resource for a message."""
        return cls(
            name=pb.name,
            kind=enum_word(op_pb2.OpKind, "OP_KIND_", pb.kind).lower(),
            summary=pb.summary,
            documentation=pb.documentation,
            params_schema=json_object(pb.params_schema_json),
            inputs=[Port.from_proto(port) for port in pb.inputs],
            output=_port_type(pb.output),
            pool=pb.pool,
            deterministic=pb.deterministic,
            external_effect=pb.external_effect,
            expands=pb.expands,
            cost_hint_s=seconds_of(pb, "cost_hint"),
            default_timeout_s=seconds_of(pb, "default_timeout"),
            digest=pb.digest,
        )


def _port_type(number: int) -> str:
    return enum_word(op_pb2.PortType, "PORT_TYPE_", number).lower()
