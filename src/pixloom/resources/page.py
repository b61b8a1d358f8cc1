"""One page of a list."""

from __future__ import annotations

from typing import Generic, TypeVar

from pixloom.resources.wire import Resource

__all__ = ["Page"]

Entry = TypeVar("Entry")


class Page(Resource, Generic[Entry]):
    """A page of a list and the token of the next one.

    Attributes:
        items: The entries.
        next_page_token: Token of the next page; empty at the end.
    """

    items: list[Entry]
    next_page_token: str = ""
