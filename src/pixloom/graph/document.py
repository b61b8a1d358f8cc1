"""Reading workflow documents: bytes to plain JSON values, refusing what two parsers could read differently.

Duplicate keys, NaN and infinities, numbers beyond 64 bits, invalid UTF-8, NUL and lone surrogates are refused, each
with its own reason and place, and so is a document beyond the limits of `pixloom.graph.limits`.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

from pixloom.errors import InvalidError, Problem
from pixloom.graph.limits import MAX_DOCUMENT_BYTES, MAX_NESTING, MAX_STRING_BYTES, MAX_YAML_VALUES
from pixloom.graph.pointers import in_document_order, pointer

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check_values", "parse_json", "parse_yaml"]

_MIN_INTEGER: Final = -(2**63)
_MAX_INTEGER: Final = 2**63 - 1


class _Repeated(dict[str, Any]):
    """An object in which keys were given more than once."""

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        seen: set[str] = set()
        self.keys_repeated = [key for key, _ in pairs if key in seen or seen.add(key)]  # type: ignore[func-returns-value]


class _NoNumber:
    """A literal that is no number of JSON, such as NaN."""

    def __init__(self, literal: str) -> None:
        self.literal = literal


def parse_json(data: bytes) -> dict[str, Any]:
    """Return the JSON object in `data`.

    Raises:
        InvalidError: It is too large (reason TOO_LARGE) or not a document (INVALID_WORKFLOW); `problems` has every
            place with the reasons SYNTAX, INVALID_UTF8, DUPLICATE_KEY, NOT_A_NUMBER, NUMBER_OUT_OF_RANGE,
            INVALID_TEXT, STRING_TOO_LONG, TOO_DEEP or NOT_AN_OBJECT.
    """
    text = _decode(data)
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_NoNumber, parse_int=_integer, parse_float=_float
        )
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _refusal(Problem("", f"{place}: this is not JSON: {error.msg}", "SYNTAX")) from error
    except RecursionError as error:
        raise _refusal(Problem("", _too_deep(), "TOO_DEEP")) from error
    return _checked(value)


def parse_yaml(text: str | bytes) -> dict[str, Any]:
    """Return the YAML mapping in `text`, under the same limits as JSON.

    Only the values JSON has are read: dates stay strings, tags for other types are refused.

    Raises:
        InvalidError: As for `parse_json`; syntax errors and duplicate keys name line and column.
    """
    from pixloom.graph.yaml_document import load_yaml

    value = load_yaml(_decode(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")))
    return _checked(value, max_values=MAX_YAML_VALUES)


def check_values(value: Any, *, max_values: int | None = None) -> list[Problem]:
    """Return what is wrong with the values of a document, apart from their meaning.

    Args:
        value: The document.
        max_values: Most values, counted again where a value is shared; None means no limit.
    """
    problems: list[Problem] = []
    stack: list[tuple[Any, tuple[str | int, ...]]] = [(value, ())]
    seen = 0
    while stack:
        current, path = stack.pop()
        seen += 1
        if max_values is not None and seen > max_values:
            problems.append(Problem("", f"the document has more than {max_values:,} values", "TOO_LARGE"))
            break
        if isinstance(current, str):
            _check_text(current, path, problems)
        elif isinstance(current, dict):
            if len(path) >= MAX_NESTING:
                problems.append(Problem(pointer(*path), _too_deep(), "TOO_DEEP"))
                continue
            if isinstance(current, _Repeated):
                problems.extend(
                    Problem(pointer(*path, key), f"the key `{key}` is given more than once; keep one", "DUPLICATE_KEY")
                    for key in current.keys_repeated
                )
            for key, child in current.items():
                if not isinstance(key, str):
                    detail = f"the key `{key}` is no string; put it in quotes"
                    problems.append(Problem(pointer(*path, str(key)), detail, "KEY_NOT_TEXT"))
                    continue
                _check_text(key, (*path, key), problems)
                stack.append((child, (*path, key)))
        elif isinstance(current, (list, tuple)):
            if len(path) >= MAX_NESTING:
                problems.append(Problem(pointer(*path), _too_deep(), "TOO_DEEP"))
                continue
            stack.extend((child, (*path, index)) for index, child in enumerate(current))
        elif current is not None:
            _check_scalar(current, path, problems)
    return problems


def _check_scalar(value: Any, path: tuple[str | int, ...], problems: list[Problem]) -> None:
    match value:
        case bool():
            return
        case int():
            if not _MIN_INTEGER <= value <= _MAX_INTEGER:
                detail = "this integer does not fit into 64 bits; give it as a string"
                problems.append(Problem(pointer(*path), detail, "NUMBER_OUT_OF_RANGE"))
        case float():
            if not math.isfinite(value):
                problems.append(Problem(pointer(*path), f"`{value}` is no JSON number", "NOT_A_NUMBER"))
        case _NoNumber():
            reason = "NOT_A_NUMBER" if value.literal in {"NaN", "Infinity", "-Infinity"} else "NUMBER_OUT_OF_RANGE"
            shown = value.literal if len(value.literal) <= 40 else value.literal[:40] + "…"
            what = "is no JSON number" if reason == "NOT_A_NUMBER" else "is out of the range of numbers"
            problems.append(Problem(pointer(*path), f"`{shown}` {what}", reason))
        case _:
            detail = f"a value of type {type(value).__name__} has no place in JSON"
            problems.append(Problem(pointer(*path), detail, "NOT_JSON"))


def _check_text(text: str, path: tuple[str | int, ...], problems: list[Problem]) -> None:
    if text.isascii():
        size_bytes = len(text)
    else:
        try:
            size_bytes = len(text.encode())
        except UnicodeEncodeError:
            detail = "the string holds half of a surrogate pair, which is no text"
            problems.append(Problem(_printable(path), detail, "INVALID_TEXT"))
            return
    if size_bytes > MAX_STRING_BYTES:
        detail = f"the string has {size_bytes:,} bytes; at most {MAX_STRING_BYTES:,} are allowed"
        problems.append(Problem(_printable(path), detail, "STRING_TOO_LONG"))
    if "\0" in text:
        problems.append(Problem(_printable(path), "the string holds a NUL character; remove it", "INVALID_TEXT"))


def _printable(path: tuple[str | int, ...]) -> str:
    """Return the pointer of a path whose last key may itself be what is wrong."""
    shown = [part[:64].replace("\0", "�") if isinstance(part, str) else part for part in path]
    return pointer(*shown).encode("utf-8", "replace").decode()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain = dict(pairs)
    return plain if len(plain) == len(pairs) else _Repeated(pairs)


def _integer(literal: str) -> Any:
    return int(literal) if len(literal) <= 20 else _NoNumber(literal)


def _float(literal: str) -> Any:
    value = float(literal)
    return value if math.isfinite(value) else _NoNumber(literal)


def _decode(data: bytes) -> str:
    if len(data) > MAX_DOCUMENT_BYTES:
        detail = f"the document has {len(data):,} bytes; at most {MAX_DOCUMENT_BYTES:,} are allowed"
        raise InvalidError(detail, reason="TOO_LARGE", problems=(Problem("", detail, "TOO_LARGE"),))
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        detail = f"line {line}, byte {error.start}: the document is not UTF-8"
        raise _refusal(Problem("", detail, "INVALID_UTF8")) from error


def _checked(value: Any, *, max_values: int | None = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _refusal(Problem("", "this must be one JSON object, in braces", "NOT_AN_OBJECT"))
    if problems := check_values(value, max_values=max_values):
        raise _refusal(*in_document_order(problems, value))
    return value


def _too_deep() -> str:
    return f"objects and arrays lie more than {MAX_NESTING} deep inside one another"


def _refusal(*problems: Problem) -> InvalidError:
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    place = f"{first.pointer}: " if first.pointer else ""
    reason = "TOO_LARGE" if first.reason == "TOO_LARGE" else "INVALID_WORKFLOW"
    return InvalidError(f"{place}{first.detail}{more}", reason=reason, problems=problems)
