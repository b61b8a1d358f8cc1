"""Request bodies: read as bytes, checked as documents are, then against a model."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pixloom.errors import InvalidError
from pixloom.graph.document import parse_json
from pixloom.graph.limits import MAX_DOCUMENT_BYTES
from pixloom_gateway.rest.problems import validation_error

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = [
    "CancelAllBody",
    "CancelBody",
    "JobBody",
    "JobPatch",
    "PauseBody",
    "PlanBody",
    "RecoverBody",
    "RerunBody",
    "RetryBody",
    "TriggerBody",
    "document_body",
    "json_bytes",
    "read_body",
    "read_document",
]

Model = TypeVar("Model", bound=BaseModel)
# Bodies beyond this are checked in a thread, so that they hold nobody up.
_THREAD_BYTES: Final = 64 * 1024


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)


class JobBody(_Body):
    """What to run: a stored workflow or a document."""

    workflow: str | None = Field(default=None, description="Name of a stored workflow.")
    version: int = Field(default=0, ge=0, le=2**32 - 1, description="Its version; the newest if not given.")
    spec: dict[str, Any] | None = Field(default=None, description="A document, instead of a stored workflow.")
    params: dict[str, Any] | None = Field(default=None, description="Params of the run.")
    tags: dict[str, str] = Field(default_factory=dict, description="Tags, added to those of the document.")
    metadata: dict[str, Any] | None = Field(default=None, description="Merged into the metadata of the document.")
    priority: int | None = Field(default=None, ge=0, le=9, description="0 to 9, 9 first; 5 if not given.")
    external_id: str = Field(default="", max_length=256, description="Your own id for it.")
    name: str = Field(default="", max_length=256, description="Name of the job; the workflow's if not given.")
    start: bool = Field(default=True, description="Whether to start it at once.")


class PlanBody(_Body):
    """What to plan: a stored workflow or a document."""

    workflow: str | None = Field(default=None, description="Name of a stored workflow.")
    version: int = Field(default=0, ge=0, le=2**32 - 1, description="Its version; the newest if not given.")
    spec: dict[str, Any] | None = Field(default=None, description="A document, instead of a stored workflow.")
    params: dict[str, Any] | None = Field(default=None, description="Params of the run.")


class JobPatch(_Body):
    """What to change; what is left out stays."""

    tags: dict[str, str] | None = Field(default=None, description="All tags from now on.")
    priority: int | None = Field(default=None, ge=0, le=9, description="0 to 9, 9 first.")


class PauseBody(_Body):
    """How to pause."""

    now: bool = Field(default=False, description="Also take running tasks back.")


class CancelBody(_Body):
    """How to cancel."""

    now: bool = Field(default=False, description="Also end running tasks.")
    reason: str = Field(default="", max_length=1024, description="Why, for people.")


class RecoverBody(_Body):
    """Where to begin."""

    from_node: str = Field(default="", alias="from", max_length=1024, description="Node; what failed if not given.")


class RetryBody(_Body):
    """What to try again; everything that failed if nothing is given."""

    nodes: list[str] = Field(default_factory=list, max_length=20_000, description="Only these nodes.")
    reasons: list[str] = Field(
        default_factory=list, max_length=1000, description="Only items rejected for these reasons."
    )


class RerunBody(_Body):
    """What to run again and with what."""

    from_node: str = Field(default="", alias="from", max_length=1024, description="Node; everything if not given.")
    params: dict[str, Any] | None = Field(default=None, description="Params, merged over the old ones.")


class TriggerBody(_Body):
    """Params of the run."""

    params: dict[str, Any] | None = Field(default=None, description="Merged over those given before.")


class CancelFilter(_Body):
    """Which jobs; all that have not ended if nothing is given."""

    workflow: str = Field(default="", max_length=128, description="Only jobs of this workflow.")
    tags: dict[str, str] = Field(default_factory=dict, description="Only jobs with all of these tags.")
    states: list[str] = Field(
        default_factory=list, description="Only jobs in these states, of those that have not ended."
    )


class CancelAllBody(_Body):
    """Which jobs to cancel."""

    filter: CancelFilter = Field(default_factory=CancelFilter)
    now: bool = Field(default=False, description="Also end running tasks.")


async def read_document(request: Request) -> bytes:
    """Return a body that is a workflow document, as it came: whoever stores it checks it.

    Raises:
        InvalidError: If it is empty or larger than a document may be.
    """
    data = await request.body()
    if not data:
        raise InvalidError("The body is empty: send the workflow document as JSON.")
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InvalidError(
            f"The document has {len(data):,} bytes; at most {MAX_DOCUMENT_BYTES:,} are allowed.", reason="TOO_LARGE"
        )
    return data


async def read_body(request: Request, model: type[Model]) -> Model:
    """Return a JSON body as a model; an empty body is an empty object.

    Raises:
        InvalidError: If it is no JSON object, has a key twice or a text with NUL, or does not fit the model.
    """
    data = await request.body()
    if len(data) > _THREAD_BYTES:
        return await asyncio.to_thread(_parse, data, model)
    return _parse(data, model)


def json_bytes(value: dict[str, Any] | None) -> bytes:
    """Return an object as JSON for a message; nothing for None."""
    return b"" if value is None else orjson.dumps(value)


def document_body(
    model: type[BaseModel] | None = None, *, required: bool = True, example: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return what OpenAPI says about a body that is read by hand; `example` is one that is valid."""
    schema: dict[str, Any] = {"type": "object", "description": "A workflow document."}
    if model is not None:
        schema = model.model_json_schema()
        schema = _inlined(schema, schema.pop("$defs", {}))
    content: dict[str, Any] = {"schema": schema}
    if example is not None:
        content["example"] = example
    return {"requestBody": {"required": required, "content": {"application/json": content}}}


def _inlined(value: Any, definitions: dict[str, Any]) -> Any:
    """Return a schema with its definitions put where they are named: these bodies are no components."""
    if isinstance(value, list):
        return [_inlined(entry, definitions) for entry in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        named = definitions[value["$ref"].rpartition("/")[2]]
        return _inlined({**named, **{key: child for key, child in value.items() if key != "$ref"}}, definitions)
    return {key: _inlined(child, definitions) for key, child in value.items()}


def _parse(data: bytes, model: type[Model]) -> Model:
    try:
        value = parse_json(data) if data.strip() else {}
    except InvalidError as error:
        if error.reason == "TOO_LARGE" or _is_about_spec(error):
            raise
        raise InvalidError(error.message, problems=error.problems) from error
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        for entry in found:
            if entry["type"] == "extra_forbidden":
                entry["msg"] = _unknown_field(model, entry["loc"])
        raise validation_error(found) from error


def _unknown_field(model: type[BaseModel], place: tuple[int | str, ...]) -> str:
    """Return what to say of a field that a body does not have, with those it has."""
    for part in place[:-1]:
        outer = model.model_fields.get(str(part))
        if outer is not None and isinstance(outer.annotation, type) and issubclass(outer.annotation, BaseModel):
            model = outer.annotation
    known = ", ".join(f"`{field.alias or name}`" for name, field in model.model_fields.items())
    return f"there is no such field; there are {known}"


def _is_about_spec(error: InvalidError) -> bool:
    return bool(error.problems) and all(place.pointer.startswith("/spec") for place in error.problems)
