"""errors.md: every reason, and how it travels over gRPC and HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pixloom.errors
from pixloom.errors import REASONS, PixloomError
from tools.reference.markdown import code, page, table

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["errors_page"]


def _classes(cls: type[PixloomError]) -> Iterator[type[PixloomError]]:
    yield cls
    for child in cls.__subclasses__():
        if child.__module__ == pixloom.errors.__name__:
            yield from _classes(child)


def errors_page() -> str:
    """Return the page."""
    raised: dict[str, list[str]] = {}
    for cls in _classes(PixloomError):
        if "reason" in vars(cls) and cls is not PixloomError:
            raised.setdefault(cls.reason, []).append(code(cls.__name__))
    reasons = table(
        ("reason", "gRPC", "HTTP", "try again", "meaning", "class"),
        (
            (
                code(reason),
                code(wire.grpc_code),
                str(wire.http_status),
                "yes" if wire.retryable else "no",
                wire.title,
                ", ".join(raised.get(reason, ())),
            )
            for reason, wire in REASONS.items()
        ),
    )
    return page(
        "Errors",
        "REST answers with a problem document (RFC 9457) and gRPC with `google.rpc.ErrorInfo`; both carry the same"
        " reason, which never changes its meaning. Messages are for people and may change.",
        reasons,
    )
