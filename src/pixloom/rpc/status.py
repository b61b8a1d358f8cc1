"""How errors travel over gRPC: a `google.rpc.Status` with the same reason that REST shows.

`ErrorInfo` carries reason and metadata (domain `pixloom`), `BadRequest` the places in the caller's document as JSON
pointers, `RetryInfo` when to come back. The receiving side rebuilds the error, so a client catches the class that
the server raised.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from pixloom.errors import REASONS, PixloomError, Problem, error_from_reason

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["DOMAIN", "PROBLEMS_BYTES", "abort", "from_rpc_error", "status_from_error"]

DOMAIN: Final = "pixloom"
_STATUS_KEY: Final = "grpc-status-details-bin"
# gRFC A6: tells the retrying client when to try again.
_PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"
# Trailers must stay below 8 KiB, which is where gRPC begins to refuse them unless the caller's channel allows more.
# The message is in them twice: percent-encoded (up to three times as long), and in the details, which are in base64.
_MESSAGE_BYTES: Final = 800
PROBLEMS_BYTES: Final = 3_000

# Codes without our details come from gRPC itself or from a proxy in between.
_REASON_OF_CODE: Final[dict[grpc.StatusCode, str]] = {
    grpc.StatusCode.INVALID_ARGUMENT: "INVALID_ARGUMENT",
    grpc.StatusCode.UNIMPLEMENTED: "NOT_SUPPORTED",
    grpc.StatusCode.NOT_FOUND: "NOT_FOUND",
    grpc.StatusCode.ALREADY_EXISTS: "ALREADY_EXISTS",
    grpc.StatusCode.FAILED_PRECONDITION: "STATE_CONFLICT",
    grpc.StatusCode.ABORTED: "VERSION_CONFLICT",
    grpc.StatusCode.OUT_OF_RANGE: "RANGE_NOT_SATISFIABLE",
    grpc.StatusCode.UNAUTHENTICATED: "UNAUTHENTICATED",
    grpc.StatusCode.PERMISSION_DENIED: "FORBIDDEN",
    grpc.StatusCode.UNAVAILABLE: "UNAVAILABLE",
    grpc.StatusCode.CANCELLED: "UNAVAILABLE",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "TOO_LARGE",
    grpc.StatusCode.DEADLINE_EXCEEDED: "DEADLINE_EXCEEDED",
}


def status_from_error(error: PixloomError, *, problems_bytes: int = PROBLEMS_BYTES) -> status_pb2.Status:
    """Return the status that an error travels as.

    Args:
        error: The error.
        problems_bytes: Room for its problems. If they need more, the first ones are sent, and the metadata say under
            `problems_omitted` how many are missing.
    """
    code = grpc.StatusCode[error.wire.grpc_code]
    status = status_pb2.Status(code=code.value[0], message=_clip(error.message))
    bad_request = _bad_request(error.problems, problems_bytes)
    omitted = len(error.problems) - len(bad_request.field_violations)
    metadata = {**error.metadata, "problems_omitted": str(omitted)} if omitted else error.metadata
    status.details.append(_pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)))
    if error.retry_after_s is not None:
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        status.details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    if bad_request.field_violations:
        status.details.append(_pack(bad_request))
    return status


def _bad_request(problems: Iterable[Problem], room_bytes: int) -> error_details_pb2.BadRequest:
    """Return the problems, as many of them from the first on as fit."""
    request = error_details_pb2.BadRequest()
    for problem in problems:
        request.field_violations.add(field=problem.pointer, description=_clip(problem.detail), reason=problem.reason)
        if request.ByteSize() > room_bytes:
            del request.field_violations[-1]
            break
    return request


def _clip(text: str) -> str:
    encoded = text.encode()
    if len(encoded) <= _MESSAGE_BYTES:
        return text
    return encoded[: _MESSAGE_BYTES - 3].decode(errors="ignore") + "…"


def _pack(message: Any) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed


async def abort(
    context: grpc.aio.ServicerContext[Any, Any], error: PixloomError, *, problems_bytes: int = PROBLEMS_BYTES
) -> NoReturn:
    """End an RPC with the status of an error, keeping trailers set before.

    Args:
        context: The context of the RPC.
        error: The error.
        problems_bytes: Room for its problems, as in `status_from_error`.

    Raises:
        grpc.aio.AbortError: Always.
    """
    status = status_from_error(error, problems_bytes=problems_bytes)
    trailers: list[tuple[str, str | bytes]] = list(cast("Any", context.trailing_metadata()) or ())
    trailers.append((_STATUS_KEY, status.SerializeToString()))
    if error.retry_after_s is not None:
        trailers.append((_PUSHBACK_KEY, str(math.ceil(error.retry_after_s * 1000))))
    await context.abort(grpc.StatusCode[error.wire.grpc_code], status.message, tuple(trailers))


def from_rpc_error(error: grpc.RpcError) -> PixloomError:
    """Return the error that a failed call stands for.

    Args:
        error: What the call raised, from `grpc` or `grpc.aio`.

    Returns:
        The error the server raised; for a status without our details, the nearest one by its code.
    """
    # Both kinds have code, details and trailing_metadata, but share no typed base.
    call = cast("Any", error)
    code: grpc.StatusCode = call.code() or grpc.StatusCode.UNKNOWN
    message = call.details() or f"The server ended the call with {code.name}."
    for key, value in call.trailing_metadata() or ():
        if key == _STATUS_KEY:
            rebuilt = _from_details(value, message)
            if rebuilt is not None:
                return rebuilt
    return error_from_reason(_REASON_OF_CODE.get(code, "INTERNAL"), message, metadata={"grpc_code": code.name})


def _from_details(data: bytes, message: str) -> PixloomError | None:
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    retry_after_s: float | None = None
    try:
        status = status_pb2.Status.FromString(data)
        for detail in status.details:
            if detail.Unpack(retry):
                retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
            elif not detail.Unpack(info):
                detail.Unpack(bad_request)
    except DecodeError:
        return None
    if info.domain != DOMAIN or info.reason not in REASONS:
        return None
    return error_from_reason(
        info.reason,
        status.message or message,
        problems=tuple(
            Problem(pointer=entry.field, detail=entry.description, reason=entry.reason or "INVALID")
            for entry in bad_request.field_violations
        ),
        retry_after_s=retry_after_s,
        metadata=dict(info.metadata),
    )
