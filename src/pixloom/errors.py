"""The errors of Pixloom: one tree, split by whose fault it is.

    PixloomError
    ├── CallerError          the request cannot succeed as it is; sending it again does not help
    │   ├── InvalidError             INVALID_ARGUMENT, INVALID_WORKFLOW, INVALID_PARAMS, NOT_SUPPORTED, TOO_LARGE
    │   ├── NotFoundError            NOT_FOUND
    │   ├── AlreadyExistsError       ALREADY_EXISTS
    │   ├── StateConflictError       STATE_CONFLICT
    │   ├── VersionConflictError     VERSION_CONFLICT
    │   ├── RangeError               RANGE_NOT_SATISFIABLE
    │   ├── UnauthenticatedError     UNAUTHENTICATED
    │   └── ForbiddenError           FORBIDDEN
    ├── PeerError            something Pixloom needs did not answer; sending the request again may help
    │   ├── UnavailableError         UNAVAILABLE
    │   ├── OverloadedError          OVERLOADED
    │   └── DeadlineError            DEADLINE_EXCEEDED
    └── OurError             a defect or a broken machine
        ├── InternalError            INTERNAL
        └── MachineError             ENVIRONMENT

Every class has a stable machine `reason`; `REASONS` maps it to a gRPC code and an HTTP status. Messages are for
people: what was wrong, where, and what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = [
    "REASONS",
    "AlreadyExistsError",
    "CallerError",
    "DeadlineError",
    "ForbiddenError",
    "InternalError",
    "InvalidError",
    "MachineError",
    "NotFoundError",
    "OurError",
    "OverloadedError",
    "PeerError",
    "PixloomError",
    "Problem",
    "RangeError",
    "StateConflictError",
    "UnauthenticatedError",
    "UnavailableError",
    "VersionConflictError",
    "Wire",
    "error_from_reason",
]


@dataclass(frozen=True, slots=True)
class Wire:
    """How a reason travels.

    Attributes:
        grpc_code: Name of the `grpc.StatusCode`.
        http_status: HTTP status of the problem document.
        retryable: Whether the same request may succeed later.
        title: Short, constant summary for people.
    """

    grpc_code: str
    http_status: int
    retryable: bool
    title: str


REASONS: Final[dict[str, Wire]] = {
    "INVALID_ARGUMENT": Wire("INVALID_ARGUMENT", 400, False, "The request is malformed"),
    "INVALID_WORKFLOW": Wire("INVALID_ARGUMENT", 422, False, "The workflow document is not valid"),
    "INVALID_PARAMS": Wire("INVALID_ARGUMENT", 422, False, "The params do not fit the workflow"),
    "NOT_SUPPORTED": Wire("UNIMPLEMENTED", 501, False, "This is not supported yet"),
    "TOO_LARGE": Wire("INVALID_ARGUMENT", 413, False, "The request is too large"),
    "NOT_FOUND": Wire("NOT_FOUND", 404, False, "There is no such resource"),
    "ALREADY_EXISTS": Wire("ALREADY_EXISTS", 409, False, "The resource exists with other content"),
    "STATE_CONFLICT": Wire("FAILED_PRECONDITION", 409, False, "The state does not allow this"),
    "VERSION_CONFLICT": Wire("ABORTED", 412, False, "Somebody else changed the resource"),
    "RANGE_NOT_SATISFIABLE": Wire("OUT_OF_RANGE", 416, False, "The range lies outside the resource"),
    "UNAUTHENTICATED": Wire("UNAUTHENTICATED", 401, False, "Credentials are missing or not valid"),
    "FORBIDDEN": Wire("PERMISSION_DENIED", 403, False, "This is not allowed"),
    "UNAVAILABLE": Wire("UNAVAILABLE", 503, True, "A part of the service does not answer"),
    "OVERLOADED": Wire("UNAVAILABLE", 503, True, "The service is overloaded"),
    "DEADLINE_EXCEEDED": Wire("DEADLINE_EXCEEDED", 504, True, "The request took too long"),
    "INTERNAL": Wire("INTERNAL", 500, False, "The service failed"),
    "ENVIRONMENT": Wire("INTERNAL", 500, False, "The machine does not allow this"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a document.

    Attributes:
        pointer: JSON pointer (RFC 6901) of the place.
        detail: What is wrong and what to do.
        reason: Machine reason, upper snake case.
    """

    pointer: str
    detail: str
    reason: str = "INVALID"


class PixloomError(Exception):
    """Root of everything Pixloom raises on purpose.

    Attributes:
        reason: Stable machine reason, a key of `REASONS`.
        problems: Places in the caller's document, if the error is about one.
        retry_after_s: Seconds after which trying again makes sense, if known.
        metadata: Facts for machines, such as the state that did not fit.
    """

    reason: str = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        problems: tuple[Problem, ...] = (),
        retry_after_s: float | None = None,
        metadata: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason
        self.problems = problems
        self.retry_after_s = retry_after_s
        self.metadata = metadata or {}

    @property
    def wire(self) -> Wire:
        """How this error travels over gRPC and HTTP."""
        return REASONS[self.reason]


class CallerError(PixloomError):
    """The request cannot succeed as it is."""


class InvalidError(CallerError):
    """The request, document or params are not valid."""

    reason = "INVALID_ARGUMENT"


class NotFoundError(CallerError):
    """There is no such resource."""

    reason = "NOT_FOUND"


class AlreadyExistsError(CallerError):
    """The resource exists with other content."""

    reason = "ALREADY_EXISTS"


class StateConflictError(CallerError):
    """The state of the resource does not allow the verb."""

    reason = "STATE_CONFLICT"


class VersionConflictError(CallerError):
    """The resource is not at the version the caller named."""

    reason = "VERSION_CONFLICT"


class RangeError(CallerError):
    """The byte range lies outside the artifact."""

    reason = "RANGE_NOT_SATISFIABLE"


class UnauthenticatedError(CallerError):
    """Credentials are missing or not valid."""

    reason = "UNAUTHENTICATED"


class ForbiddenError(CallerError):
    """The caller may not do this."""

    reason = "FORBIDDEN"


class PeerError(PixloomError):
    """Something Pixloom needs did not answer."""


class UnavailableError(PeerError):
    """A service, database or queue does not answer."""

    reason = "UNAVAILABLE"


class OverloadedError(PeerError):
    """Too much is under way; `retry_after_s` says when to come back."""

    reason = "OVERLOADED"


class DeadlineError(PeerError):
    """The request took longer than it may."""

    reason = "DEADLINE_EXCEEDED"


class OurError(PixloomError):
    """A defect or a broken machine."""


class InternalError(OurError):
    """A defect; the log has the details under the trace id."""

    reason = "INTERNAL"


class MachineError(OurError):
    """The machine is at fault: a port in use, no room on disk, a data directory of another version."""

    reason = "ENVIRONMENT"


_CLASSES: Final[dict[str, type[PixloomError]]] = {
    **dict.fromkeys(
        ("INVALID_ARGUMENT", "INVALID_WORKFLOW", "INVALID_PARAMS", "NOT_SUPPORTED", "TOO_LARGE"), InvalidError
    ),
    **{
        cls.reason: cls
        for cls in (
            NotFoundError,
            AlreadyExistsError,
            StateConflictError,
            VersionConflictError,
            RangeError,
            UnauthenticatedError,
            ForbiddenError,
            UnavailableError,
            OverloadedError,
            DeadlineError,
            InternalError,
            MachineError,
        )
    },
}


def error_from_reason(
    reason: str,
    message: str,
    *,
    problems: tuple[Problem, ...] = (),
    retry_after_s: float | None = None,
    metadata: dict[str, str] | None = None,
) -> PixloomError:
    """Return the error that a reason received over the wire stands for; an unknown one is an `InternalError`."""
    known = reason if reason in REASONS else "INTERNAL"
    return _CLASSES[known](message, reason=known, problems=problems, retry_after_s=retry_after_s, metadata=metadata)
