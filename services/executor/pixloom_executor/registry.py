"""The ops a process can run: all modules of `pixloom_executor.ops` and what users import."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import TYPE_CHECKING

from pixloom.errors import InvalidError
from pixloom.sdk.op import OpDefinition, definition_of
from pixloom_executor import ops

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import ModuleType

    from pixloom.graph.catalogue import OpSpec

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
            registry._add_module(importlib.import_module(module.name))
        for name in imports:
            if not registry._add_module(_import_for_user(name)):
                raise InvalidError(f"module {name!r} has no op in it; decorate a function with `@op`")
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

    def _add_module(self, module: ModuleType) -> int:
        found = 0
        for _, function in inspect.getmembers(module, callable):
            if getattr(function, "__module__", None) == module.__name__ and hasattr(function, "__pixloom_op__"):
                self.add(definition_of(function))
                found += 1
        return found


def _import_for_user(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except InvalidError:
        raise
    except Exception as error:
        raise InvalidError(f"module {name!r} cannot be imported: {type(error).__name__}: {error}") from error
