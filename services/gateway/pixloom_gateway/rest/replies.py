"""Answers: resources as JSON, made once and not checked a second time by the framework."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson
from starlette.responses import Response

from pixloom.errors import REASONS
from pixloom.resources import PROBLEM_TYPE, Page, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel

__all__ = ["JSON", "PROBLEMS", "page_of", "problems", "quoted", "reply", "reply_json"]

JSON: Final = "application/json"

# What every route may answer besides.
PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    "default": {
        "description": "What went wrong",
        "content": {PROBLEM_TYPE: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}},
    }
}


def problems(**described: str) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says about problems of a route besides those of every route: sentences by reason."""
    answers = dict(PROBLEMS)
    for reason, sentence in described.items():
        wire = REASONS[reason]
        example = {
            "type": "about:blank",
            "title": wire.title,
            "status": wire.http_status,
            "detail": sentence,
            "instance": "/api/v1/jobs",
            "reason": reason,
            "errors": [],
            "retryable": wire.retryable,
        }
        content = {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}, "example": example}
        answers[wire.http_status] = {"description": wire.title, "content": {PROBLEM_TYPE: content}}
    return answers


def reply(resource: BaseModel, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a resource as JSON."""
    return Response(resource.model_dump_json().encode(), status_code=status, headers=headers, media_type=JSON)


def reply_json(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a plain value as JSON."""
    return Response(orjson.dumps(value), status_code=status, headers=headers, media_type=JSON)


def page_of(items: Sequence[BaseModel], next_page_token: str = "") -> Response:
    """Return a page of resources as JSON."""
    return reply(Page[Any](items=list(items), next_page_token=next_page_token))


def quoted(digest: str) -> str:
    """Return a digest as an ETag."""
    return f'"{digest}"'
