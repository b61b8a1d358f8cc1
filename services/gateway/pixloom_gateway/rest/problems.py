"""Errors as `application/problem+json`: one shape for everything that can go wrong with a request."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, cast

import structlog
from fastapi.exceptions import RequestValidationError
from opentelemetry import trace
from starlette.exceptions import HTTPException
from starlette.responses import Response

from pixloom.errors import InternalError, InvalidError, OurError, PixloomError
from pixloom.errors import Problem as Place
from pixloom.resources import PROBLEM_TYPE, PlaceProblem, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi import FastAPI
    from starlette.requests import Request

__all__ = ["install_problem_handlers", "problem_of", "problem_response", "validation_error"]

_LOG: Final = structlog.get_logger("pixloom.gateway")
_TYPE_PREFIX: Final = "urn:pixloom:problem:"
_RETRY_AFTER_S: Final = 1.0


def problem_of(error: PixloomError, *, instance: str, status: int | None = None) -> Problem:
    """Return the problem document for an error.

    Args:
        error: The error.
        instance: Path of the request.
        status: HTTP status if it is not the reason's usual one.
    """
    wire = error.wire
    return Problem(
        type=_TYPE_PREFIX + error.reason.lower().replace("_", "-"),
        title=wire.title,
        status=status or wire.http_status,
        detail=error.message,
        instance=instance,
        reason=error.reason,
        errors=[
            PlaceProblem(pointer=place.pointer, detail=place.detail, reason=place.reason) for place in error.problems
        ],
        trace_id=_trace_id(),
        retryable=wire.retryable,
    )


def problem_response(
    error: PixloomError, *, instance: str, status: int | None = None, headers: dict[str, str] | None = None
) -> Response:
    """Return the answer for an error, with Retry-After where coming back makes sense."""
    problem = problem_of(error, instance=instance, status=status)
    all_headers = {"Cache-Control": "no-store", **(headers or {})}
    if error.retry_after_s is not None or problem.status == 503:
        after_s = error.retry_after_s if error.retry_after_s is not None else _RETRY_AFTER_S
        all_headers["Retry-After"] = str(max(1, math.ceil(after_s)))
    if error.reason == "RANGE_NOT_SATISFIABLE" and "size_bytes" in error.metadata:
        all_headers["Content-Range"] = f"bytes */{error.metadata['size_bytes']}"
    return Response(
        problem.model_dump_json().encode(), status_code=problem.status, headers=all_headers, media_type=PROBLEM_TYPE
    )


def validation_error(errors: Sequence[Any], *, prefix: tuple[str | int, ...] = ()) -> InvalidError:
    """Return the error for what pydantic found, each place as a JSON pointer."""
    places = tuple(
        Place(pointer=_pointer((*prefix, *entry["loc"])), detail=entry["msg"], reason=str(entry["type"]).upper())
        for entry in errors
    )
    lines = "; ".join(f"{place.pointer or 'the body'}: {place.detail}" for place in places[:5])
    return InvalidError(f"The request is not valid: {lines}", problems=places)


def install_problem_handlers(app: FastAPI) -> None:
    """Make the application answer every error with a problem document."""

    async def known(request: Request, error: Exception) -> Response:
        known_error = cast("PixloomError", error)
        if isinstance(known_error, OurError):
            _LOG.error("request_failed", path=request.url.path, reason=known_error.reason, detail=known_error.message)
        return problem_response(known_error, instance=request.url.path)

    async def invalid(request: Request, error: Exception) -> Response:
        found = validation_error(cast("RequestValidationError", error).errors())
        return problem_response(found, instance=request.url.path)

    async def http(request: Request, error: Exception) -> Response:
        raised = cast("HTTPException", error)
        made = _error_of_status(raised.status_code, request)
        return problem_response(
            made, instance=request.url.path, status=raised.status_code, headers=dict(raised.headers or {})
        )

    async def unexpected(request: Request, error: Exception) -> Response:
        del error  # whoever runs the application logs it; the caller gets the trace id only
        return problem_response(defect(), instance=request.url.path)

    app.add_exception_handler(PixloomError, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)


def defect() -> InternalError:
    """Return what a caller may know of an unexpected error: where to find it."""
    trace_id = _trace_id()
    return InternalError(f"The service failed; its log says why{f' under trace {trace_id}' if trace_id else ''}.")


def _error_of_status(status: int, request: Request) -> PixloomError:
    match status:
        case 404:
            message = f"There is nothing at {request.url.path}; /api/docs lists what there is."
            return PixloomError(message, reason="NOT_FOUND")
        case 405:
            message = f"{request.url.path} does not take {request.method}; /api/docs lists what it takes."
            return PixloomError(message, reason="NOT_SUPPORTED")
        case _ if status >= 500:
            return defect()
        case _:
            return PixloomError("The request is malformed.", reason="INVALID_ARGUMENT")


def _pointer(location: tuple[str | int, ...]) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)


def _trace_id() -> str:
    span = trace.get_current_span().get_span_context()
    return trace.format_trace_id(span.trace_id) if span.is_valid else ""
