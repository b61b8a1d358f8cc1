"""Workflows, what is wrong with them, and what a run of them would do."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - pydantic reads annotations at run time
from typing import TYPE_CHECKING, Any

from pydantic import Field

from pixloom.resources.problem import PlaceProblem
from pixloom.resources.wire import Resource, json_value, seconds_of, time_of

if TYPE_CHECKING:
    from pixloom.v1 import workflow_pb2

__all__ = ["Plan", "Stage", "Validation", "Workflow"]


class Workflow(Resource):
    """A named DAG definition at one version.

    Attributes:
        name: Name, unique within the project.
        version: Counted from 1.
        sha256: SHA-256 of the canonical JSON of the document; also its ETag.
        description: Description of the document.
        tags: Tags of the document.
        project: Project it belongs to.
        create_time: When version 1 was created.
        update_time: When this version was created.
        notes: What was mapped when an older dialect was converted.
        spec: The document; None in lists.
    """

    name: str
    version: int
    sha256: str
    description: str = ""
    tags: dict[str, str] = Field(default_factory=dict)
    project: str = ""
    create_time: datetime | None = None
    update_time: datetime | None = None
    notes: list[str] = Field(default_factory=list)
    spec: Any = None

    @classmethod
    def from_proto(cls, pb: workflow_pb2.Workflow, *, with_spec: bool = True) -> Workflow:
        """Return the resource for a message; without the document if it is to be passed on as bytes."""
        return cls(
            name=pb.name,
            version=pb.version,
            sha256=pb.sha256,
            description=pb.description,
            tags=dict(sorted(pb.tags.items())),
            project=pb.project,
            create_time=time_of(pb, "create_time"),
            update_time=time_of(pb, "update_time"),
            notes=list(pb.notes),
            spec=json_value(pb.spec_json) if with_spec else None,
        )


class Validation(Resource):
    """What is wrong with a document.

    Attributes:
        valid: Whether nothing is.
        problems: Everything that is wrong, in document order.
        sha256: SHA-256 of the canonical JSON; None if not valid.
        notes: What was mapped when an older dialect was converted.
    """

    valid: bool
    problems: list[PlaceProblem]
    sha256: str | None = None
    notes: list[str] = Field(default_factory=list)

    @classmethod
    def from_proto(cls, pb: workflow_pb2.ValidateWorkflowResponse) -> Validation:
        """Return the resource for a message."""
        problems = [
            PlaceProblem(pointer=problem.pointer, detail=problem.detail, reason=problem.reason or None)
            for problem in pb.problems
        ]
        return cls(valid=not problems, problems=problems, sha256=pb.sha256 or None, notes=list(pb.notes))


class Stage(Resource):
    """What a stage of a plan would do.

    Attributes:
        index: Place in the plan, from 0.
        nodes: Nodes fused into it, in order of execution.
        pool: Pool it runs in.
        inputs: Indexes of the stages it reads from.
        shard_size: Items in each shard; 0 when it runs as a whole.
        items: Expected number of items; None when it cannot be known before the run.
        tasks: Expected number of tasks; None when it cannot be known before the run.
        cost_s: Expected seconds an item.
        boundary: Why the stage begins where it does.
        reused: Items whose results would be reused.
        estimated: Whether `items` and `tasks` are estimates.
    """

    index: int
    nodes: list[str]
    pool: str
    inputs: list[int] = Field(default_factory=list)
    shard_size: int = 0
    items: int | None = None
    tasks: int | None = None
    cost_s: float | None = None
    boundary: str | None = None
    reused: int = 0
    estimated: bool = False

    @classmethod
    def from_proto(cls, pb: workflow_pb2.StagePlan) -> Stage:
        """Return the resource for a message."""
        return cls(
            index=pb.index,
            nodes=list(pb.nodes),
            pool=pb.pool,
            inputs=list(pb.inputs),
            shard_size=pb.shard_size,
            items=pb.items if pb.HasField("items") else None,
            tasks=pb.tasks if pb.HasField("tasks") else None,
            cost_s=seconds_of(pb, "cost"),
            boundary=pb.boundary or None,
            reused=pb.reused,
            estimated=pb.estimated,
        )


class Plan(Resource):
    """What a run would do.

    Attributes:
        stages: The stages in topological order.
        estimated_duration_s: Expected seconds on the executors that are there now; None when it cannot be known.
    """

    stages: list[Stage]
    estimated_duration_s: float | None = None

    @classmethod
    def from_proto(cls, pb: workflow_pb2.PlanWorkflowResponse) -> Plan:
        """Return the resource for a message."""
        return cls(
            stages=[Stage.from_proto(stage) for stage in pb.stages],
            estimated_duration_s=seconds_of(pb, "estimated_duration"),
        )
