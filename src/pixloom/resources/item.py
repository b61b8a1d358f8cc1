"""Items and the artifacts that hold their bytes."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from pixloom.resources.wire import Resource, enum_word, json_object
from pixloom.v1 import item_pb2

__all__ = ["Artifact", "Item", "ItemCounts", "ItemState"]


class ItemState(StrEnum):
    """What became of an item at a node."""

    OK = "OK"
    FILTERED = "FILTERED"
    REJECTED = "REJECTED"


class ItemCounts(Resource):
    """Counts of items by state."""

    ok: int = 0
    filtered: int = 0
    rejected: int = 0


class Artifact(Resource):
    """Immutable bytes in the object store.

    Attributes:
        sha256: SHA-256 of the bytes, 64 hexadecimal digits; `GET /artifacts/{sha256}` returns them.
        size_bytes: Their length.
        media_type: Their media type.
    """

    sha256: str
    size_bytes: int
    media_type: str

    @classmethod
    def from_proto(cls, pb: item_pb2.ArtifactRef) -> Artifact:
        """Return the resource for a message."""
        return cls(sha256=pb.sha256, size_bytes=pb.size_bytes, media_type=pb.media_type)


class Item(Resource):
    """One image (or other record) at a node.

    Attributes:
        ordinal: Place in its collection, compared element by element.
        key: Stable name within the job, such as the path below the source folder.
        uri: Where its bytes are: `file:///…`, `cas:<sha256>`, `https://…`; None without bytes.
        sha256: SHA-256 of the bytes; None while they have not been read.
        size_bytes: Length of the bytes; None while unknown.
        format: Image format by magic bytes (jpeg, png, …); None if none.
        width: Width in pixels as stored; None while unknown.
        height: Height in pixels as stored; None while unknown.
        pages: Number of pages or frames; None while unknown.
        orientation: EXIF orientation 1 to 8; None while unknown.
        has_alpha: Whether the image has an alpha channel.
        icc: Whether an ICC profile is embedded.
        state: What became of it at `node`.
        reason: Machine reason of FILTERED or REJECTED.
        detail: Sentence for people about the reason.
        node: Node at which it was filtered or rejected; None for OK.
        parents: SHA-256 digests of what its bytes were made from, oldest first.
        op_digest: Digest of the ops, params and codecs that made its bytes.
        duration_ms: Wall-clock milliseconds spent on it in the last attempt.
        attributes: What ops found out about it.
        intermediate: Whether `uri` holds lossless pixels between ops rather than a file in `format`.
    """

    ordinal: list[int]
    key: str
    uri: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    format: str | None = None
    width: int | None = None
    height: int | None = None
    pages: int | None = None
    orientation: int | None = None
    has_alpha: bool = False
    icc: bool = False
    state: ItemState
    reason: str | None = None
    detail: str | None = None
    node: str | None = None
    parents: list[str] = Field(default_factory=list)
    op_digest: str | None = None
    duration_ms: float = 0.0
    attributes: dict[str, Any] = Field(default_factory=dict)
    intermediate: bool = False

    @classmethod
    def from_proto(cls, pb: item_pb2.Item) -> Item:
        """Return the resource for a message."""
        return cls(
            ordinal=list(pb.ordinal),
            key=pb.key,
            uri=pb.uri or None,
            sha256=pb.sha256 or None,
            size_bytes=pb.size_bytes or None,
            format=pb.format or None,
            width=pb.width or None,
            height=pb.height or None,
            pages=pb.pages or None,
            orientation=pb.orientation or None,
            has_alpha=pb.has_alpha,
            icc=pb.icc,
            state=ItemState(enum_word(item_pb2.ItemState, "ITEM_STATE_", pb.state)),
            reason=pb.reason or None,
            detail=pb.detail or None,
            node=pb.node or None,
            parents=list(pb.parents),
            op_digest=pb.op_digest or None,
            duration_ms=pb.duration_ms,
            attributes=json_object(pb.attributes_json),
            intermediate=pb.intermediate,
        )
