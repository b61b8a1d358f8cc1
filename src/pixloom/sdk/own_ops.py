"""Modules with ops of the user's own: imported by the executors that serve them, and where they are checked first."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pixloom.errors import InvalidError
from pixloom.sdk.op import definition_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

    from pixloom.graph.catalogue import OpSpec
    from pixloom.sdk.op import OpDefinition

__all__ = ["definitions_in", "import_own_ops", "own_op_specs"]


def definitions_in(module: ModuleType) -> list[OpDefinition]:
    """Return the ops that a module defines itself, by the names of their functions."""
    return [
        definition_of(function)
        for _, function in inspect.getmembers(module, callable)
        if getattr(function, "__module__", None) == module.__name__ and hasattr(function, "__pixloom_op__")
    ]


def import_own_ops(name: str) -> list[OpDefinition]:
    """Import a module of the user's and return its ops.

    Args:
        name: Dotted name of a module, in the working directory or installed.

    Raises:
        InvalidError: If there is no such module, it cannot be imported, or it has no op in it.
    """
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing != name and not name.startswith(f"{missing}."):
            raise InvalidError(
                f"The module {name} cannot be imported, because it imports {missing}, which is not there. Install it."
            ) from error
        raise InvalidError(
            f"There is no module {name} to import ops from: {missing} is neither in {Path.cwd()} nor installed. "
            "Check the name, or go to the folder that it is in."
        ) from error
    except InvalidError as error:
        raise InvalidError(f"The module {name} cannot be imported: {error.message}") from error
    except (Exception, SystemExit) as error:
        raise InvalidError(f"The module {name} cannot be imported: {type(error).__name__}: {error}") from error
    found = definitions_in(module)
    if not found:
        raise InvalidError(f"The module {name} has no op in it. Decorate a function with `@op`.")
    return found


def own_op_specs(names: Iterable[str]) -> list[OpSpec]:
    """Return what planner and validator need to know of the ops in modules of the user's.

    The working directory is searched as by the executors of a stack that is started here.

    Raises:
        InvalidError: If a module is missing, cannot be imported or has no op in it, or two define the same op.
    """
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.insert(0, str(Path.cwd()))
    known: dict[str, OpDefinition] = {}
    for name in names:
        for definition in import_own_ops(name):
            other = known.setdefault(definition.ref, definition)
            if other is not definition:
                raise InvalidError(
                    f"{definition.ref} is defined twice, in {other.function.__module__} and {name}. "
                    "Rename one or raise its version."
                )
    return [definition.spec for definition in known.values()]
