"""Words of the command line: global options may stand anywhere, and `name=value` pairs become params."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from pixloom.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["global_options_first", "parse_assignments", "parse_tags"]

_WITH_VALUE: Final = frozenset({"--server", "-o", "--output"})
_FLAGS: Final = frozenset({"--no-color"})


def global_options_first(words: Sequence[str]) -> list[str]:
    """Return the words with the global options moved in front of the command.

    So `pixloom list -o json` means the same as `pixloom -o json list`. What stands behind `--` is left alone.
    """
    first: list[str] = []
    rest: list[str] = []
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        if word == "--":
            rest += [word, *remaining]
            break
        if word in _WITH_VALUE:
            first += [word, *remaining[:1]]
            del remaining[:1]
        elif word in _FLAGS or word.startswith(("--server=", "--output=")):
            first.append(word)
        else:
            rest.append(word)
    return first + rest


def parse_assignments(pairs: Iterable[str]) -> dict[str, Any]:
    """Return params given as `name=value`; values are JSON where they can be read as such, else strings.

    Raises:
        InvalidError: If a word is no assignment or a name comes twice.
    """
    params: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise InvalidError(f"{pair!r} is no param. Write -p name=value, as in -p width=256.")
        if name in params:
            raise InvalidError(f"The param {name} is given twice. Give it once.")
        try:
            params[name] = json.loads(text)
        except ValueError:
            params[name] = text
    return params


def parse_tags(pairs: Iterable[str]) -> dict[str, str]:
    """Return tags given as `name=value`.

    Raises:
        InvalidError: If a word is no assignment.
    """
    tags = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise InvalidError(f"{pair!r} is no tag. Write --tag name=value, as in --tag team=vision.")
        tags[name] = text
    return tags
