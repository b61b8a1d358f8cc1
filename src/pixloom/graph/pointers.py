"""JSON pointers (RFC 6901), and problems in the order of the document."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pixloom.errors import Problem
from pixloom.graph.limits import MAX_PROBLEMS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["in_document_order", "pointer", "pointer_parts"]


def pointer(*parts: str | int) -> str:
    """Return the JSON pointer that leads through `parts`; no parts give the whole document."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def pointer_parts(text: str) -> tuple[str, ...]:
    """Return the parts of a JSON pointer, unescaped."""
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:])


def in_document_order(problems: Iterable[Problem], document: Any) -> tuple[Problem, ...]:
    """Return the problems without repetitions, in the order of the places in `document`.

    At most `MAX_PROBLEMS` are returned; if there are more, the last one says how many were left out.
    """
    unique = list(dict.fromkeys(_clipped(problem) for problem in problems))
    orders: dict[int, dict[str, int]] = {}
    unique.sort(key=lambda problem: _place(pointer_parts(problem.pointer), document, orders))
    if len(unique) <= MAX_PROBLEMS:
        return tuple(unique)
    left_out = len(unique) - MAX_PROBLEMS + 1
    more = Problem("", f"{left_out} further problems are not listed; mend these first", "TOO_MANY_PROBLEMS")
    return (*unique[: MAX_PROBLEMS - 1], more)


def _clipped(problem: Problem) -> Problem:
    # A detail may quote the document, whose names can be 64 KiB long.
    return problem if len(problem.detail) <= 2_000 else replace(problem, detail=problem.detail[:1_999] + "…")


def _place(parts: Sequence[str], document: Any, orders: dict[int, dict[str, int]]) -> tuple[int, ...]:
    """Return where a pointer leads, as places to compare; `orders` keeps the order of keys by object."""
    places: list[int] = []
    value = document
    for part in parts:
        if isinstance(value, dict) and part in value:
            if id(value) not in orders:
                orders[id(value)] = {key: place for place, key in enumerate(value)}
            places.append(orders[id(value)][part])
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            places.append(int(part))
            value = value[int(part)]
        else:
            break
    return tuple(places)
