"""What flows between ops as plain Python values: records, pages of a source, results of collection ops.

An `Item` mirrors `pixloom.v1.Item`. It is mutable, because an op owns the record it was given: the runner hands every
op its own copy and reads the result once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pixloom.sdk.outcome import counted_by

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Dropped", "File", "Item", "Items", "Page"]


@dataclass(slots=True)
class Item:
    """One image (or other record) on its way through a job.

    Attributes:
        key: Stable name within the job, such as the path below the source folder.
        ordinal: Place in its collection, compared element by element; the runner fills it in when empty. An item op
            cannot change it, and what it makes of an item is numbered below that of the item.
        uri: Where its bytes are: `file:///…` or `cas:<sha256>`; empty without bytes or while pixels are in memory.
        sha256: SHA-256 of the bytes at `uri`; empty while they have not been read.
        size_bytes: Length of the bytes at `uri`; 0 while unknown.
        format: Format as libvips names it (jpeg, png, webp, gif, tiff, heif); empty if none.
        width: Width in pixels as stored; 0 while unknown.
        height: Height in pixels as stored; 0 while unknown.
        pages: Number of pages or frames; 0 while unknown.
        orientation: EXIF orientation 1 to 8; 0 while unknown.
        has_alpha: Whether there is an alpha channel.
        icc: Whether an ICC profile is embedded.
        parents: Digests of the sources the bytes were made from, oldest first.
        op_digest: Digest of the ops, params and codecs that made the bytes.
        duration_ms: Wall-clock time spent on it in the last attempt, in milliseconds.
        attributes: What ops found out about it: JSON scalars or flat arrays by name.
        intermediate: Whether `uri` holds lossless pixels between two ops instead of a file in `format`.
        state: `OK`, `FILTERED` or `REJECTED`.
        reason: Machine reason when not OK.
        detail: Sentence for people when not OK, at most 1 KiB.
        node: Node at which it was filtered or rejected.
    """

    key: str = ""
    ordinal: tuple[int, ...] = ()
    uri: str = ""
    sha256: str = ""
    size_bytes: int = 0
    format: str = ""
    width: int = 0
    height: int = 0
    pages: int = 0
    orientation: int = 0
    has_alpha: bool = False
    icc: bool = False
    parents: tuple[str, ...] = ()
    op_digest: str = ""
    duration_ms: float = 0.0
    attributes: dict[str, Any] = field(default_factory=dict)
    intermediate: bool = False
    state: str = "OK"
    reason: str = ""
    detail: str = ""
    node: str = ""

    def copy(self) -> Item:
        """Return a record that can be changed without changing this one."""
        return replace(self, attributes=dict(self.attributes))

    def with_attributes(self, attributes: Mapping[str, Any]) -> Item:
        """Return a copy with `attributes` merged over those it has."""
        return replace(self, attributes={**self.attributes, **attributes})


@dataclass(frozen=True, slots=True)
class Dropped:
    """An item that a collection op does not let pass.

    Attributes:
        item: The item.
        reason: Machine reason, upper snake case such as DUPLICATE; any other text becomes the beginning of the detail,
            and the reason is OTHER.
        detail: Sentence for people.
    """

    item: Item
    reason: str
    detail: str = ""

    def __post_init__(self) -> None:
        reason, detail = counted_by(self.reason, self.detail)
        object.__setattr__(self, "reason", reason)
        object.__setattr__(self, "detail", detail)


@dataclass(frozen=True, slots=True)
class Items:
    """Result of a collection op that lets items flow on.

    Attributes:
        kept: The items that pass.
        filtered: Items dropped on purpose.
        rejected: Items that could not be processed.
    """

    kept: Sequence[Item] = ()
    filtered: Sequence[Dropped] = ()
    rejected: Sequence[Dropped] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a source.

    Attributes:
        items: The items of the page; ordinals are filled in by the runner.
        next_cursor: Where the next page begins, not empty and another place than this one; None when this is the last.
    """

    items: Sequence[Item] = ()
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True)
class File:
    """Result of a collection or value op that makes a file.

    Attributes:
        content: The bytes, or the path of a file below the scratch folder.
        media_type: Media type such as image/jpeg.
        facts: What is worth knowing about it, as JSON; it becomes the value of the node.
    """

    content: bytes | Path
    media_type: str
    facts: dict[str, Any] = field(default_factory=dict)
