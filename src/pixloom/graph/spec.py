"""The workflow document as a model: what SDK, command line, gateway and scheduler agree on.

The model is strict and refuses unknown fields. It says what a document may look like; whether it makes sense against
the known ops is the business of `pixloom.graph.validation`. Documents are kept as they were written, so a version is
the digest of the document, not of this model.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from pixloom.graph.limits import MAX_NODES

__all__ = [
    "NAME_PATTERN",
    "NODE_ID_PATTERN",
    "PARAM_NAME_PATTERN",
    "LimitsSpec",
    "NodeSpec",
    "ParamSpec",
    "RetrySpec",
    "WorkflowSpec",
    "workflow_json_schema",
]

NAME_PATTERN: Final = r"^[A-Za-z0-9._-]{1,128}$"
NODE_ID_PATTERN: Final = r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,127}$"
PARAM_NAME_PATTERN: Final = r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$"

_WEEK_S: Final = 7 * 86_400
_YEAR_S: Final = 365 * 86_400
_MOST: Final = 2**31 - 1

NodeId = Annotated[str, Field(pattern=NODE_ID_PATTERN)]
ParamName = Annotated[str, Field(pattern=PARAM_NAME_PATTERN)]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Sources = str | list[str]
# `typing` keeps unions by their members, and literals are equal in any order: without a mark of its own this union could
# be the one that another library made first, with its order, and the exported schema would depend on what is imported.
JsonType = Annotated[
    Literal["string", "integer", "number", "boolean", "array", "object", "null"], "the JSON types of a param"
]


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=True)


class RetrySpec(_Model):
    """When the tasks of a node are tried again."""

    max_attempts: int = Field(4, ge=1, le=100, description="Most attempts, the first one included.")
    initial_backoff_s: float = Field(1.0, ge=0, le=3600, description="Seconds before the second attempt.")
    multiplier: float = Field(2.0, ge=1, le=10, description="Factor from one delay to the next.")
    max_backoff_s: float = Field(60.0, ge=0, le=86_400, description="Longest delay in seconds.")


class LimitsSpec(_Model):
    """What an image may ask for before an op refuses to open it."""

    max_pixels: int | None = Field(None, ge=1, description="Most pixels of all frames together.")
    max_bytes: int | None = Field(None, ge=1, description="Most bytes of the file.")
    max_frames: int | None = Field(None, ge=1, le=_MOST, description="Most pages or frames.")
    memory_mb: int | None = Field(None, ge=16, le=_MOST, description="Most memory in MiB that a child process may use.")


class ParamSpec(_Model):
    """A param of the workflow: a JSON Schema for its value, and a default.

    A param without a default must be given with every run.
    """

    type: JsonType | list[JsonType] | None = Field(None, description="JSON type, or several.")
    title: str | None = Field(None, description="Short name for people.")
    description: str | None = Field(None, description="What it is for.")
    default: JsonValue = Field(None, description="Value of runs that give none.")
    examples: list[JsonValue] | None = Field(None, description="Values to show.")
    enum: list[JsonValue] | None = Field(None, min_length=1, description="The only values allowed.")
    const: JsonValue = Field(None, description="The only value allowed.")
    minimum: float | None = Field(None, description="Smallest number.")
    maximum: float | None = Field(None, description="Largest number.")
    exclusive_minimum: float | None = Field(None, alias="exclusiveMinimum", description="Numbers must be above it.")
    exclusive_maximum: float | None = Field(None, alias="exclusiveMaximum", description="Numbers must be below it.")
    multiple_of: float | None = Field(None, alias="multipleOf", gt=0, description="Numbers must be multiples of it.")
    min_length: int | None = Field(None, alias="minLength", ge=0, description="Fewest characters.")
    max_length: int | None = Field(None, alias="maxLength", ge=0, description="Most characters.")
    pattern: str | None = Field(None, description="Regular expression that strings contain a match of.")
    format: str | None = Field(None, description="Format of strings, for people and forms.")
    items: dict[str, JsonValue] | None = Field(None, description="JSON Schema of every array element.")
    min_items: int | None = Field(None, alias="minItems", ge=0, description="Fewest array elements.")
    max_items: int | None = Field(None, alias="maxItems", ge=0, description="Most array elements.")
    unique_items: bool | None = Field(None, alias="uniqueItems", description="Whether array elements differ.")
    properties: dict[str, JsonValue] | None = Field(None, description="JSON Schemas of an object's fields.")
    required: list[str] | None = Field(None, description="Fields an object must have.")
    additional_properties: bool | dict[str, JsonValue] | None = Field(
        None, alias="additionalProperties", description="Whether an object may have other fields, or their JSON Schema."
    )

    @property
    def has_default(self) -> bool:
        """Whether a run may leave the param out."""
        return "default" in self.model_fields_set

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the value, without the default."""
        return self.model_dump(by_alias=True, exclude_unset=True, exclude={"default", "examples", "title"})


class NodeSpec(_Model):
    """A step of the workflow: an op with its inputs and params."""

    id: NodeId = Field(description="Name of the node, unique within the workflow.")
    op: str = Field(min_length=1, max_length=256, description="Op, such as image.thumbnail or image.thumbnail@1.")
    inputs: dict[str, Sources] = Field(
        default_factory=dict, description="Data edges by port: `node` or `node.port`; a list concatenates in order."
    )
    params: dict[str, JsonValue] = Field(
        default_factory=dict, description="Params of the op; `${params.x}` and `${nodes.n.value.y}` are replaced."
    )
    dependencies: list[str] = Field(default_factory=list, description="Nodes that must have ended before it starts.")
    when: str | None = Field(None, description="CEL condition; the node is SKIPPED if it is false.")
    pool: str | None = Field(
        None, pattern=r"^[a-z][a-z0-9-]{0,31}$", description="Pool of executors; default: the op's."
    )
    priority: int | None = Field(None, ge=0, le=9, description="Hint: 9 first.")
    on_error: Literal["quarantine", "skip", "fail"] = Field(
        "quarantine", description="What happens to an item the op refuses: REJECTED, FILTERED, or the node fails."
    )
    max_failed_ratio: float = Field(1.0, ge=0, le=1, description="Share of rejected items above which the node fails.")
    keep: bool = Field(False, description="Whether its items are kept as if they were an output.")
    memo: bool = Field(True, description="Hint: whether results may be taken from earlier runs.")
    fuse: bool = Field(True, description="Whether it may share a stage with its neighbours.")
    shard_size: int | None = Field(None, ge=1, le=10_000, description="Items of one task; default: by cost.")
    retry: RetrySpec | None = Field(None, description="When its tasks are tried again.")
    timeout_s: float | None = Field(None, gt=0, le=_WEEK_S, description="Seconds an item, or a run without items.")
    estimated_duration_s: float | None = Field(
        None, ge=0, le=_YEAR_S, description="The author's estimate of the whole node."
    )
    limits: LimitsSpec | None = Field(None, description="What an image may ask for.")

    def sources(self, port: str) -> list[str]:
        """Return what feeds a port of `inputs`, as written."""
        given = self.inputs[port]
        return [given] if isinstance(given, str) else given


class WorkflowSpec(_Model):
    """A workflow: a named graph of nodes with params and outputs."""

    json_schema_uri: str | None = Field(None, alias="$schema", description="Address of this schema, for editors.")
    name: Name = Field(description="Name of the workflow, unique within the project.")
    description: str = Field("", description="What it does, for people.")
    tags: dict[str, str] = Field(default_factory=dict, description="Labels to find it by.")
    metadata: dict[str, JsonValue] = Field(default_factory=dict, description="Anything the author wants to keep.")
    params: dict[ParamName, ParamSpec] = Field(default_factory=dict, description="What a run may or must give.")
    nodes: list[NodeSpec] = Field(min_length=1, max_length=MAX_NODES, description="The steps, in any order.")
    outputs: dict[Name, str] = Field(
        default_factory=dict, description="Nodes by the names their results are given under."
    )
    timeout_s: float | None = Field(None, gt=0, description="Seconds the whole job may take; default: no limit.")
    max_recovery_attempts: int = Field(3, ge=0, le=100, description="How often a failed job may be recovered.")


def workflow_json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of workflow documents, served as `workflow.v1.schema.json`."""
    schema = WorkflowSpec.model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "workflow.v1.schema.json",
        **schema,
        "title": "Pixloom workflow",
    }
