"""What went wrong, as `application/problem+json` (RFC 9457) says it."""

from __future__ import annotations

from pydantic import Field

from pixloom.resources.wire import Resource

__all__ = ["PROBLEM_TYPE", "PlaceProblem", "Problem"]

PROBLEM_TYPE = "application/problem+json"


class PlaceProblem(Resource):
    """One thing wrong in the caller's document.

    Attributes:
        pointer: JSON pointer (RFC 6901) of the place.
        detail: What is wrong and what to do.
        reason: Machine reason, such as UNKNOWN_OP.
    """

    pointer: str
    detail: str
    reason: str | None = None


class Problem(Resource):
    """A problem document.

    Attributes:
        type: URI reference that identifies the kind of problem.
        title: Short, constant summary.
        status: HTTP status.
        detail: What was wrong, where, and what to do.
        instance: Path of the request.
        reason: Stable machine reason, a key of `pixloom.errors.REASONS`.
        errors: Places in the caller's document.
        trace_id: Trace of the request, 32 hexadecimal digits; empty when not traced.
        retryable: Whether the same request may succeed later.
    """

    type: str
    title: str
    status: int
    detail: str
    instance: str
    reason: str
    errors: list[PlaceProblem] = Field(default_factory=list)
    trace_id: str = ""
    retryable: bool = False
