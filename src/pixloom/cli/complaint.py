"""Errors as people see them: what, where, and what to do, on the standard error stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pixloom.cli.streams import say

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pixloom.errors import PixloomError

__all__ = ["Place", "show_error", "show_problems"]


class Place(Protocol):
    """One thing wrong with a document."""

    @property
    def pointer(self) -> str:
        """JSON pointer of the place."""

    @property
    def detail(self) -> str:
        """What is wrong and what to do."""


def show_error(error: PixloomError) -> None:
    """Print an error with all its places."""
    if len(error.problems) > 1:
        # The message repeats the first place and counts the others: the list says it better.
        title = error.wire.title
        say(f"Error: {title}: {len(error.problems)} problems.")
        show_problems(error.problems)
        return
    say(f"Error: {error.message}")


def show_problems(problems: Iterable[Place], *, name: str = "") -> None:
    """Print one line for each problem.

    Args:
        problems: What is wrong.
        name: Name of the file, put in front of each place.
    """
    for problem in problems:
        place = ": ".join(part for part in (name, problem.pointer) if part)
        say(f"  {place or 'document'}: {problem.detail}")
