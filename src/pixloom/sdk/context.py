"""What an op may ask of the place it runs in.

An op that wants it names a keyword-only parameter annotated `Context`; the runner fills it in for every call.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pixloom.sdk.image import Image

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixloom.sdk.record import Item

__all__ = ["Context", "OpenBytes", "OpenImage"]


class OpenBytes(Protocol):
    """Reads the bytes of an item."""

    def __call__(self, item: Item) -> bytes:
        """Return the bytes at the item's `uri`."""
        ...


class OpenImage(Protocol):
    """Opens the pixels of an item."""

    def __call__(self, item: Item) -> Image:
        """Return the image at the item's `uri`, header probed, not decoded yet."""
        ...


def _no_bytes(item: Item) -> bytes:
    raise FileNotFoundError(f"{item.key or 'the item'}: bytes at {item.uri!r} can only be opened inside an executor")


def _no_image(item: Item) -> Image:
    return Image.from_bytes(_no_bytes(item))


@dataclass(slots=True)
class Context:
    """The place an op runs in.

    Attributes:
        scratch_dir: Folder for temporary files, emptied when the task ends.
        source_roots: Folders below which sources may read, symlinks resolved.
        store: The artifact store (`put`, `get`); None outside an executor.
        attempt: Number of the attempt, counted from 1.
        last_attempt: Whether no further attempt will follow.
        index: Index of the item among the inputs of the task; 0 for ops that see no single item.
        first_ordinal: First ordinal that a page of a source is given.
        job_id: Id of the job; empty outside one.
        node: Id of the node.
        warnings: Things worth knowing that are no failure; ops append to it.
        open_bytes: Reads the file of an item; pixels between two ops are encoded as they would be delivered.
        open_image: Opens an item's pixels, with the node's limits checked on the header first.
    """

    scratch_dir: Path = field(default_factory=Path.cwd)
    source_roots: tuple[Path, ...] = ()
    store: Any = None
    attempt: int = 1
    last_attempt: bool = True
    index: int = 0
    first_ordinal: int = 0
    job_id: str = ""
    node: str = ""
    warnings: list[str] = field(default_factory=list)
    open_bytes: OpenBytes | Callable[[Item], bytes] = _no_bytes
    open_image: OpenImage | Callable[[Item], Image] = _no_image
