"""What nodes and jobs give."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pixloom.resources.item import Artifact
from pixloom.resources.wire import Resource, enum_word, json_value
from pixloom.v1 import job_pb2

__all__ = ["Output", "OutputKind", "Results"]


class OutputKind(StrEnum):
    """Kind of an output."""

    VALUE = "value"
    ARTIFACT = "artifact"
    COLLECTION = "collection"


class Output(Resource):
    """A result of a node.

    Attributes:
        kind: What it is.
        node: Node that made it.
        value: The JSON value; for an artifact, facts about it.
        artifact: The artifact, if it is one.
        count: Number of items, if it is a collection; `GET /jobs/{id}/nodes/{node}/items` lists them.
    """

    kind: OutputKind
    node: str
    value: Any = None
    artifact: Artifact | None = None
    count: int | None = None

    @classmethod
    def from_proto(cls, pb: job_pb2.Output) -> Output:
        """Return the resource for a message."""
        kind = OutputKind(enum_word(job_pb2.OutputKind, "OUTPUT_KIND_", pb.kind).lower())
        return cls(
            kind=kind,
            node=pb.node,
            value=json_value(pb.value_json),
            artifact=Artifact.from_proto(pb.artifact) if pb.HasField("artifact") else None,
            count=pb.count if kind is OutputKind.COLLECTION else None,
        )


class Results(Resource):
    """Outputs and node results of a job, as far as they are there.

    Attributes:
        complete: Whether the job has ended.
        state: State of the job, an upper-case word.
        outputs: The workflow's outputs by name.
        nodes: The results of all nodes by id.
    """

    complete: bool
    state: str
    outputs: dict[str, Output]
    nodes: dict[str, Output]

    @classmethod
    def from_proto(cls, pb: job_pb2.GetJobResultsResponse) -> Results:
        """Return the resource for a message."""
        return cls(
            complete=pb.complete,
            state=enum_word(job_pb2.JobState, "JOB_STATE_", pb.state),
            outputs={name: Output.from_proto(pb.outputs[name]) for name in sorted(pb.outputs)},
            nodes={name: Output.from_proto(pb.nodes[name]) for name in sorted(pb.nodes)},
        )
