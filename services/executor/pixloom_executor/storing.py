"""From pixels to bytes in the store: files for delivery, lossless intermediates between stages."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from pixloom.artifacts.manifest import encode_items
from pixloom.sdk.encoding import MEDIA_TYPES
from pixloom_executor import intermediates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pixloom.artifacts import ArtifactStore
    from pixloom.sdk.op import Image, Item
    from pixloom.v1 import item_pb2

__all__ = ["RecordingStore", "store_delivered", "store_intermediate"]


class RecordingStore:
    """Puts artifacts and remembers their digests until they are asked for, so that others can make them durable."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store
        self._digests: set[str] = set()

    def put(self, data: bytes, media_type: str) -> item_pb2.ArtifactRef:
        """Store bytes; see `ArtifactStore.put`."""
        ref = self._store.put(data, media_type)
        self._digests.add(ref.sha256)
        return ref

    def get(self, sha256: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return bytes; see `ArtifactStore.get`."""
        return self._store.get(sha256, offset, length)

    def put_items(self, items: Sequence[item_pb2.Item]) -> item_pb2.Manifest:
        """Return the manifest of items, put here if they are too many to travel inside it."""
        return encode_items(items, cast("ArtifactStore", self))

    def take_digests(self) -> set[str]:
        """Return the digests put since the last call."""
        taken, self._digests = self._digests, set()
        return taken


def store_delivered(image: Image, record: Item, store: RecordingStore) -> Item:
    """Encode an image for delivery, put it and return the record of the file.

    Raises:
        Reject: with ENCODE_ERROR if its format cannot hold it.
    """
    encoded = image.encoded()
    ref = store.put(encoded.data, MEDIA_TYPES[encoded.format])
    return replace(
        record,
        uri=f"cas:{ref.sha256}",
        sha256=ref.sha256,
        size_bytes=ref.size_bytes,
        format=encoded.format,
        width=encoded.width or record.width,
        height=encoded.height or record.height,
        orientation=1,
        has_alpha=record.has_alpha if encoded.has_alpha is None else encoded.has_alpha,
        intermediate=False,
    )


def store_intermediate(image: Image, record: Item, store: RecordingStore) -> Item:
    """Put an image's pixels losslessly and return the record that names them."""
    data = intermediates.encode_intermediate(image.vips, image.encoding)
    ref = store.put(data, intermediates.MEDIA_TYPE)
    return replace(record, uri=f"cas:{ref.sha256}", sha256=ref.sha256, size_bytes=ref.size_bytes, intermediate=True)
