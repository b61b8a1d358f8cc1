"""Conditions in CEL (cel.dev): `when` of a node and the predicate of item filters.

A `when` sees `nodes.<id>.state`, `.ok`, `.filtered`, `.rejected` and `.value` of other nodes of the workflow, and
`params`; a node id that is no identifier is written `nodes["my-node"].ok`. An item predicate sees `item`: the fields of
the record (`ITEM_FIELDS`), every attribute that ops added under its own name, and all of them again under
`item.attributes` (the record wins where names collide), and `params` never.

Comprehension macros and `matches` are off, so that evaluation is linear in the size of the expression. Expressions are
compiled at submit; an error there shows the place with a caret.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from pixloom.errors import InvalidError
from pixloom.graph.limits import MAX_CONDITION_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cel_expr_python import cel

__all__ = [
    "ITEM_FIELDS",
    "NODE_FIELDS",
    "ConditionKind",
    "Expression",
    "compile_condition",
    "item_bindings",
]

NODE_FIELDS: Final = ("state", "ok", "filtered", "rejected", "value")
"""What a `when` may read of a node."""

ITEM_FIELDS: Final = (
    "key",
    "uri",
    "sha256",
    "size_bytes",
    "format",
    "width",
    "height",
    "pages",
    "orientation",
    "has_alpha",
    "icc",
    "parents",
    "attributes",
)
"""What a predicate may read of every item."""

_ENVIRONMENT: Final = """
name: pixloom
stdlib:
  exclude_macros: [all, exists, exists_one, map, filter]
  exclude_functions:
    - name: matches
"""


class ConditionKind(StrEnum):
    """What a condition decides on."""

    WHEN = "when"
    ITEM = "item"


@dataclass(frozen=True, slots=True)
class Access:
    """A place where an expression reads one of its variables.

    Attributes:
        variable: `nodes`, `params` or `item`.
        path: Fields read from it, as far as they are constant; empty if the variable is used as a whole.
        offset: Place of the variable in the text, in characters.
    """

    variable: str
    path: tuple[str, ...]
    offset: int


class Expression:
    """A compiled condition.

    Attributes:
        text: As written.
        kind: What it decides on.
        accesses: Where it reads its variables.
    """

    def __init__(self, text: str, kind: ConditionKind, program: cel.Expression) -> None:
        self.text = text
        self.kind = kind
        self.accesses = tuple(_accesses(text))
        self._program = program

    @property
    def node_ids(self) -> tuple[str, ...]:
        """Ids of the nodes it reads, in order of first use."""
        return tuple(
            dict.fromkeys(access.path[0] for access in self.accesses if access.variable == "nodes" and access.path)
        )

    def evaluate(self, bindings: Mapping[str, Any]) -> bool:
        """Return whether the condition holds.

        Args:
            bindings: Value of every variable: `nodes` and `params`, or `item` as `item_bindings` gives it.

        Raises:
            InvalidError: It cannot be decided, say because a field is missing or has another type.
        """
        try:
            answer = self._program.eval(data=dict(bindings))
            value = answer.plain_value()
        except (RuntimeError, TypeError, ValueError, OverflowError) as error:
            raise InvalidError(
                f"the condition `{_clipped(self.text)}` cannot be decided: {_clipped(str(error))}"
            ) from error
        if not isinstance(value, bool):
            # What goes wrong during the evaluation comes back as a value of the type ERROR.
            failed = answer.type().name() == "ERROR"
            why = _clipped(str(value)) if failed else f"it gives {answer.type().name()}, not true or false"
            raise InvalidError(f"the condition `{_clipped(self.text)}` cannot be decided: {why}")
        return value

    def caret(self, offset: int) -> str:
        """Return the line of the text around `offset` with a caret below."""
        start = self.text.rfind("\n", 0, offset) + 1
        return _caret(self.text[start:].split("\n", 1)[0], offset - start)


def compile_condition(text: str, kind: ConditionKind | str) -> Expression:
    """Return the compiled condition; the same text is compiled once.

    Args:
        text: CEL expression that gives true or false, at most `MAX_CONDITION_BYTES`.
        kind: `when` or `item`.

    Raises:
        InvalidError: It is too long, not CEL, uses unknown names, or gives something else. The message has a caret
            line.
    """
    size_bytes = len(text.encode())
    if size_bytes > MAX_CONDITION_BYTES:
        raise InvalidError(f"the condition has {size_bytes:,} bytes; at most {MAX_CONDITION_BYTES:,} are allowed")
    return _compiled(text, ConditionKind(kind))


def item_bindings(record: Mapping[str, Any], attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the bindings of an item predicate.

    Args:
        record: Fields of the record; those that are not in `ITEM_FIELDS` are left out.
        attributes: Columns that ops added.
    """
    fields = {name: record[name] for name in ITEM_FIELDS if name in record}
    return {"item": {**attributes, **fields, "attributes": dict(attributes)}}


@lru_cache(maxsize=4096)
def _compiled(text: str, kind: ConditionKind) -> Expression:
    environment = _environment(kind)
    try:
        program = environment.compile(text)
    except RuntimeError as error:
        raise InvalidError(_complaint(str(error), text, kind)) from error
    given = program.return_type().name()
    if given not in {"BOOL", "DYN"}:
        raise InvalidError(f"the condition gives {given}, not true or false: `{_clipped(text)}`")
    return Expression(text, kind, program)


@lru_cache(maxsize=2)
def _environment(kind: ConditionKind) -> cel.Env:
    from cel_expr_python import cel

    record = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
    variables = {"nodes": record, "params": record} if kind is ConditionKind.WHEN else {"item": record}
    return cel.NewEnv(config=cel.NewEnvConfigFromYaml(_ENVIRONMENT), variables=variables)


def _complaint(message: str, text: str, kind: ConditionKind) -> str:
    """Return the compiler's complaints with places and carets, followed by what is known to help."""
    found = [(int(line), int(column), what) for line, column, what in _COMPILER_ERROR.findall(message)]
    # A macro that is off is complained about at its variable as well; only the macro itself helps a person.
    found = [error for error in found if _OFF.search(error[2])] or found
    lines = text.split("\n")
    shown = [
        f"line {line}, column {column}: {_clipped(_EXPECTING.sub('', what))}\n{_caret(lines[line - 1], column - 1)}"
        for line, column, what in found[:5]
        if line <= len(lines)
    ]
    if any(_OFF.search(error[2]) for error in found):
        shown.append("`matches` and the macros all, exists, exists_one, map and filter are not available")
    elif any(what.startswith("undeclared reference") for _, _, what in found):
        names = "`nodes` and `params`" if kind is ConditionKind.WHEN else "`item`"
        shown.append(f"a condition can read {names} here")
    if "${" in text:
        shown.append("write `params.x` instead of `${params.x}` inside a condition")
    return "the condition does not compile: " + "\n".join(shown or [_clipped(message)])


def _caret(line: str, offset: int) -> str:
    """Return the line with a caret below `offset`; of a long line only what is around it."""
    start = max(0, offset - 80)
    return f"{line[start : offset + 80]}\n{' ' * (offset - start)}^"


def _clipped(message: str) -> str:
    return message if len(message) <= 300 else message[:299] + "…"


_COMPILER_ERROR: Final = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*?)(?: \(in container ''\))?$", re.MULTILINE)
_OFF: Final = re.compile(r"undeclared reference to '(?:all|exists|exists_one|map|filter|matches)'")
_EXPECTING: Final = re.compile(r" expecting \{.*\}")
_LEXEMES: Final = re.compile(
    r"""(?P<text>[rRbB]{0,2}(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
    |(?P<comment>//[^\n]*)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<space>\s+)|(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)


def _accesses(text: str) -> Iterator[Access]:
    """Yield where the variables are read; the text has been compiled, so it is known to be CEL."""
    tokens = [(m.lastgroup or "", m.group(), m.start()) for m in _LEXEMES.finditer(text)]
    tokens = [token for token in tokens if token[0] not in {"space", "comment"}]
    previous = ""
    for place, (group, word, offset) in enumerate(tokens):
        if group == "name" and word in {"nodes", "params", "item"} and previous != ".":
            yield Access(word, tuple(_path(tokens, place + 1)), offset)
        previous = word


def _path(tokens: list[tuple[str, str, int]], place: int) -> Iterator[str]:
    while place + 1 < len(tokens):
        following = tokens[place + 1]
        if tokens[place][1] == "." and following[0] == "name":
            # `.size()` and the like are calls, not fields.
            if place + 2 < len(tokens) and tokens[place + 2][1] == "(":
                return
            yield following[1]
            place += 2
        elif tokens[place][1] == "[" and following[0] == "text" and place + 2 < len(tokens):
            if tokens[place + 2][1] != "]":
                return
            yield following[1].strip("\"'")
            place += 3
        else:
            return
