"""How values of the protos become values of the resources: times, durations, JSON and enum words."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper
    from google.protobuf.message import Message

__all__ = ["Resource", "enum_number", "enum_word", "json_object", "json_value", "seconds_of", "time_of"]


class Resource(BaseModel):
    """A resource as REST, CLI and SDK show it: immutable, and tolerant of fields that a newer server adds."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="null")


def time_of(message: Message, field: str) -> datetime | None:
    """Return a timestamp field as an aware UTC datetime, or None if it is unset."""
    if not message.HasField(field):
        return None
    value: datetime = getattr(message, field).ToDatetime(tzinfo=UTC)
    return value


def seconds_of(message: Message, field: str) -> float | None:
    """Return a duration field in seconds, or None if it is unset."""
    if not message.HasField(field):
        return None
    duration: Duration = getattr(message, field)
    return duration.seconds + duration.nanos / 1e9


def json_value(data: bytes) -> Any:
    """Return the value of a JSON field, or None if it is empty."""
    return json.loads(data) if data else None


def json_object(data: bytes) -> dict[str, Any]:
    """Return the object of a JSON field, or an empty one if the field is empty."""
    return json.loads(data) if data else {}


def enum_word(enum: _EnumTypeWrapper[Any], prefix: str, number: int) -> str:
    """Return the name of an enum value without its prefix, such as RUNNING for JOB_STATE_RUNNING.

    Raises:
        ValueError: If the number is not known to this version.
    """
    return enum.Name(number).removeprefix(prefix)


def enum_number(enum: _EnumTypeWrapper[Any], prefix: str, word: str) -> Any:
    """Return the number of an enum value named without its prefix, in upper or lower case.

    Raises:
        ValueError: If there is no such value.
    """
    return enum.Value(prefix + word.upper())
