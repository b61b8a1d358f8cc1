"""YAML into plain JSON values, with the places of duplicate keys."""

from __future__ import annotations

from typing import Any

import yaml

from pixloom.errors import InvalidError, Problem

__all__ = ["load_yaml"]

_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq"))


class _Loader(yaml.SafeLoader):
    """Reads what JSON can say; collects duplicate keys instead of letting the last one win."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.problems: list[Problem] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        """Return the mapping; the signature is the one of the loader it extends."""
        seen: set[str] = set()
        for key, _ in node.value:
            text = key.value if isinstance(key, yaml.ScalarNode) else None
            if text is None or key.tag == "tag:yaml.org,2002:merge":
                continue
            if text in seen:
                detail = f"{_place(key.start_mark)}: the key `{text}` is given more than once; keep one"
                self.problems.append(Problem("", detail, "DUPLICATE_KEY"))
            seen.add(text)
        return super().construct_mapping(node, deep=deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002
        """Return the value of a node, refusing tags that JSON has no value for."""
        if node.tag not in _PLAIN_TAGS:
            detail = f"{_place(node.start_mark)}: the tag {node.tag.rpartition(':')[2]} is not allowed here"
            raise InvalidError(detail, reason="INVALID_WORKFLOW", problems=(Problem("", detail, "SYNTAX"),))
        return super().construct_object(node, deep=deep)


# Dates stay the strings they were written as: JSON has none.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load_yaml(text: str) -> Any:
    """Return the one document in `text`.

    Raises:
        InvalidError: It is not YAML, has duplicate keys or uses tags.
    """
    try:
        loader = _Loader(text)
        try:
            value = loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        detail = f"{_place(mark)}: this is not YAML: {what}" if mark else f"this is not YAML: {what}"
        raise InvalidError(detail, reason="INVALID_WORKFLOW", problems=(Problem("", detail, "SYNTAX"),)) from error
    except (RecursionError, ValueError) as error:
        detail = "the document is nested too deep or holds a value that cannot be read"
        raise InvalidError(detail, reason="INVALID_WORKFLOW", problems=(Problem("", detail, "SYNTAX"),)) from error
    if loader.problems:
        first = loader.problems[0].detail
        raise InvalidError(first, reason="INVALID_WORKFLOW", problems=tuple(loader.problems))
    return value


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"
