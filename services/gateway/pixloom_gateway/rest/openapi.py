"""The OpenAPI document, and an older form of it for the docs page.

The document follows OpenAPI 3.1. The page that comes with the installed bundle reads 3.0 only, so it is given the same
document with the few constructs of JSON Schema 2020-12 that FastAPI uses put into their 3.0 form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi.openapi.utils import get_openapi

from pixloom.resources import Problem

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["as_openapi_30", "openapi_document"]

_OWN_VALIDATION: Final = ("HTTPValidationError", "ValidationError")
_DOWN: Final = "3.0.3"


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of an application."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
    )
    components = document.setdefault("components", {}).setdefault("schemas", {})
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    components.update(schema.pop("$defs", {}))
    components[Problem.__name__] = schema
    for operations in document["paths"].values():
        for operation in operations.values():
            # Bad requests are problem documents like everything else; FastAPI would have them otherwise.
            if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                del operation["responses"]["422"]
    for name in _OWN_VALIDATION:
        components.pop(name, None)
    return document


def as_openapi_30(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document in the form of OpenAPI 3.0."""
    down: dict[str, Any] = _down(document)
    down["openapi"] = _DOWN
    return down


def _down(value: Any) -> Any:
    if isinstance(value, list):
        return [_down(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    result = {key: _down(child) for key, child in value.items()}
    if isinstance(result.get("anyOf"), list):
        kinds = [kind for kind in result["anyOf"] if kind != {"type": "null"}]
        if len(kinds) < len(result["anyOf"]):
            del result["anyOf"]
            result["nullable"] = True
            if len(kinds) == 1 and "$ref" not in kinds[0]:
                result = {**kinds[0], **result}
            elif len(kinds) == 1:
                result["allOf"] = kinds
            else:
                result["anyOf"] = kinds
    if "const" in result:
        result["enum"] = [result.pop("const")]
    return result
