"""The ops a process can run: all modules of `pixloom_executor.ops` and what users import."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from pixloom.errors import InvalidError
from pixloom.sdk.own_ops import definitions_in, import_own_ops
from pixloom_executor import ops

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pixloom.graph.catalogue import OpSpec
    from pixloom.sdk.op import OpDefinition

__all__ = ["Registry"]


class Registry:
    """Op definitions by name and version."""

    def __init__(self, definitions: Iterable[OpDefinition] = ()) -> None:
        self._by_ref: dict[str, OpDefinition] = {}
        for definition in definitions:
            self.add(definition)

    @classmethod
    def load(cls, imports: Iterable[str] = ()) -> Registry:
        """Load the built-in ops and those in the modules that users named.

        Args:
            imports: Names of modules with functions decorated by `op`.

        Raises:
            InvalidError: if a module cannot be imported, has no op in it, or names an op twice.
        """
        registry = cls()
        for module in pkgutil.iter_modules(ops.__path__, f"{ops.__name__}."):
            for definition in definitions_in(importlib.import_module(module.name)):
                registry.add(definition)
        for name in imports:
            for definition in import_own_ops(name):
                registry.add(definition)
        return registry

    def add(self, definition: OpDefinition) -> None:
        """Add an op.

        Raises:
            InvalidError: if there is another op of that name and version.
        """
        known = self._by_ref.setdefault(definition.ref, definition)
        if known is not definition:
            raise InvalidError(
                f"{definition.ref} is defined twice, in {known.function.__module__} and "
                f"{definition.function.__module__}; rename one or raise its version"
            )

    def get(self, ref: str) -> OpDefinition | None:
        """Return the op called `ref` (`image.thumbnail@1`), or None."""
        return self._by_ref.get(ref)

    def __iter__(self) -> Iterator[OpDefinition]:
        return iter(sorted(self._by_ref.values(), key=lambda definition: (definition.name, definition.version)))

    def specs(self) -> list[OpSpec]:
        """Return what planner and validator know of each op, by name and version."""
        return [definition.spec for definition in self]
