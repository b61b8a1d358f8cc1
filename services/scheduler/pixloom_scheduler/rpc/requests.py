"""Reads requests at the edge: JSON parts, page tokens, filters, projects."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final

from pixloom.errors import InvalidError, Problem
from pixloom.graph.document import parse_json
from pixloom.v1 import job_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.duration_pb2 import Duration

__all__ = [
    "PROJECT",
    "page_size",
    "read_json",
    "read_page_number",
    "read_page_token",
    "read_tags",
    "read_text",
    "read_wait",
    "state_names",
    "write_page_token",
]

PROJECT: Final = "default"
"""The only project until there are keys."""

DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1000
MAX_TEXT: Final = 1024
MOST_WAIT_S: Final = 60.0
_NOT_OURS: Final = "page_token is not one that this list gave; leave it out to begin at the first page"
_MOST_DIGITS: Final = 18
_REASONS: Final = {"params": "INVALID_PARAMS"}


def read_json(data: bytes, what: str) -> dict[str, Any]:
    """Return the JSON object in a request field; empty bytes are an empty object.

    Raises:
        InvalidError: If it is not one.
    """
    if not data:
        return {}
    try:
        return parse_json(data)
    except InvalidError as error:
        # Only one of the fields is a workflow document.
        is_reason_kept = what == "spec" or error.reason == "TOO_LARGE"
        reason = error.reason if is_reason_kept else _REASONS.get(what, "INVALID_ARGUMENT")
        raise InvalidError(f"{what}: {error.message}", reason=reason, problems=error.problems) from error


def read_text(value: str, what: str, *, most: int = MAX_TEXT) -> str:
    """Return a text field if it is short and free of NUL.

    Raises:
        InvalidError: If it is not.
    """
    if len(value) > most or "\0" in value:
        detail = f"{what} must be at most {most} characters without NUL"
        raise InvalidError(detail, problems=(Problem(f"/{what}", detail),))
    return value


def read_wait(wait: Duration) -> float:
    """Return how long a call may wait for a job to end, seconds.

    Raises:
        InvalidError: If it is negative or longer than a minute.
    """
    seconds = wait.seconds + wait.nanos / 1e9
    if not 0 <= seconds <= MOST_WAIT_S:
        detail = f"wait is {seconds:g} s; it ranges from 0 to {MOST_WAIT_S:g} s; watch a job that takes longer"
        raise InvalidError(detail, problems=(Problem("/wait", detail),))
    return seconds


def read_tags(tags: dict[str, str], what: str = "tags") -> dict[str, str]:
    """Return tags if there are at most 64 short ones.

    Raises:
        InvalidError: If not.
    """
    if len(tags) > 64:
        raise InvalidError(f"{what} holds more than 64 entries")
    return {read_text(key, f"{what}/key", most=128): read_text(value, f"{what}/{key}") for key, value in tags.items()}


def page_size(asked: int) -> int:
    """Return the number of entries to return.

    Raises:
        InvalidError: If more than 1,000 are asked for.
    """
    if asked > MAX_PAGE:
        raise InvalidError(f"page_size is {asked}; at most {MAX_PAGE} is possible")
    return asked or DEFAULT_PAGE


def write_page_token(place: str) -> str:
    """Return a token for a place in a list."""
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=") if place else ""


def read_page_token(token: str) -> str:
    """Return the place that a token stands for; empty for the beginning.

    Raises:
        InvalidError: If the token was not given by a list.
    """
    try:
        place = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error) as error:
        raise InvalidError(_NOT_OURS) from error
    if len(place) > MAX_TEXT or "\0" in place:
        raise InvalidError(_NOT_OURS)
    return place


def read_page_number(token: str) -> int:
    """Return the number in a list that a token stands for; 0 for the beginning.

    Raises:
        InvalidError: If the token was not given by such a list.
    """
    place = read_page_token(token) or "0"
    if not (place.isascii() and place.isdigit() and len(place) <= _MOST_DIGITS):
        raise InvalidError(_NOT_OURS)
    return int(place)


def state_names(states: Iterable[job_pb2.JobState.ValueType]) -> tuple[str, ...]:
    """Return job states as they stand in the database.

    Raises:
        InvalidError: If one is not known here: gRPC lets any number pass.
    """
    known = job_pb2.JobState.values()
    if unknown := [state for state in states if state not in known]:
        raise InvalidError(f"there is no state {unknown[0]}; the states are numbered {min(known)} to {max(known)}")
    return tuple(job_pb2.JobState.Name(state).removeprefix("JOB_STATE_") for state in states)
