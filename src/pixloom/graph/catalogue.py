"""What the planner and the validator know of an op.

Executors announce their ops; the scheduler keeps them as `OpSpec` and validates workflows against the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Catalogue", "OpKind", "OpSpec", "Port", "PortType"]


class OpKind(StrEnum):
    """What an op maps to what."""

    SOURCE = "source"
    ITEM = "item"
    COLLECTION = "collection"
    VALUE = "value"


class PortType(StrEnum):
    """What flows through a port."""

    IMAGE = "image"
    RECORD = "record"
    TABLE = "table"
    VALUE = "value"


@dataclass(frozen=True, slots=True)
class Port:
    """An input of an op.

    Attributes:
        name: Name by which `inputs` refer to it.
        type: What it takes.
        optional: Whether the op runs without it.
    """

    name: str
    type: PortType
    optional: bool = False


@dataclass(frozen=True, slots=True)
class OpSpec:
    """A typed, versioned function.

    Attributes:
        name: Name without version, such as `image.thumbnail`.
        version: Version, counted from 1.
        kind: What it maps to what.
        output: What it gives.
        inputs: Its ports in order; empty for sources.
        params_schema: JSON Schema (2020-12) of its params.
        summary: First line of its documentation.
        documentation: Documentation in Markdown.
        pool: Pool of executors that serve it.
        deterministic: Whether equal inputs and params always give equal outputs.
        external_effect: Whether it changes something outside, so that it never runs ahead and is never fused.
        expands: Whether it may make several items of one, so that a stage ends behind it.
        cost_hint_s: Expected seconds an item (or a run) until a cost has been measured.
        default_timeout_s: Time limit an item (or a run) if the workflow gives none.
        digest: Digest of the code and codecs that decide its output.
    """

    name: str
    version: int
    kind: OpKind
    output: PortType
    inputs: tuple[Port, ...] = ()
    params_schema: Mapping[str, Any] = field(default_factory=dict)
    summary: str = ""
    documentation: str = ""
    pool: str = "cpu"
    deterministic: bool = True
    external_effect: bool = False
    expands: bool = False
    cost_hint_s: float = 0.01
    default_timeout_s: float = 60.0
    digest: str = ""

    @property
    def ref(self) -> str:
        """Name with version, such as `image.thumbnail@1`."""
        return f"{self.name}@{self.version}"


class Catalogue:
    """The known ops by name and version."""

    def __init__(self, ops: Iterable[OpSpec] = ()) -> None:
        self._by_ref = {op.ref: op for op in ops}
        self._newest: dict[str, OpSpec] = {}
        for op in self._by_ref.values():
            known = self._newest.get(op.name)
            if known is None or known.version < op.version:
                self._newest[op.name] = op

    def __iter__(self) -> Iterator[OpSpec]:
        return iter(sorted(self._by_ref.values(), key=lambda op: (op.name, op.version)))

    def __len__(self) -> int:
        return len(self._by_ref)

    def get(self, name: str) -> OpSpec | None:
        """Return the op called `name` (`image.thumbnail` for the newest, or `image.thumbnail@1`), or None."""
        return self._by_ref.get(name) if "@" in name else self._newest.get(name)

    def names(self) -> list[str]:
        """Return the names of all ops without version, sorted."""
        return sorted(self._newest)

    def merged(self, ops: Iterable[OpSpec]) -> Catalogue:
        """Return a catalogue with `ops` added; an op already known by name and version is replaced."""
        return Catalogue({**self._by_ref, **{op.ref: op for op in ops}}.values())
