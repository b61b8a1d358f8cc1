"""settings.md: what each process reads from its environment, from the descriptions of the fields."""

from __future__ import annotations

import json
import os
import types
import typing
from pathlib import Path
from typing import Any

from pixloom.settings import ALL_SETTINGS, ENV_PREFIX, FILE_NAME
from tools.reference.markdown import code, page, table

if typing.TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from pixloom.settings import ProcessSettings

__all__ = ["settings_page"]


def _type_of(annotation: Any) -> str:
    """Return an annotation as people write it."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _type_of(typing.get_args(annotation)[0])
    if origin is typing.Literal:
        return "one of " + ", ".join(str(value) for value in typing.get_args(annotation))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_of(part) for part in typing.get_args(annotation) if part is not type(None))
    if origin is dict:
        return "list of name=number"
    if origin is tuple:
        return f"list of {_type_of(typing.get_args(annotation)[0])}"
    words = {str: "text", int: "integer", float: "number", bool: "true or false", Path: "path"}
    return words.get(annotation) or str(annotation)


def _default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is dict:
        return "none"
    if field.default_factory is not None:
        return "see there"
    default = field.default
    if isinstance(default, tuple):
        separator = os.pathsep if "PATH" in (field.description or "") else ","
        return code(separator.join(str(value) for value in default)) or "none"
    if default is None:
        return "none"
    return code(
        default if isinstance(default, str) else str(default) if isinstance(default, Path) else json.dumps(default)
    )


def _section(cls: type[ProcessSettings]) -> list[str]:
    rows = [
        (code(ENV_PREFIX + name.upper()), _type_of(field.annotation), _default_of(field), field.description or "")
        for name, field in sorted(cls.model_fields.items())
    ]
    return [f"## {cls.__name__}", cls.__doc__ or "", table(("variable", "type", "default", "meaning"), rows)]


def settings_page() -> str:
    """Return the page."""
    return page(
        "Settings",
        f"Every process reads its environment first, then `{FILE_NAME}` in its working directory, then takes the"
        f" default. A key in the file is the name of the variable without `{ENV_PREFIX}`, in lower case.",
        *(part for cls in ALL_SETTINGS for part in _section(cls)),
    )
