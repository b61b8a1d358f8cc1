"""Manifests: where an ordered run of items is to be read.

A short run travels inside the manifest, a long one is a Parquet artifact, and the items of a task that could never be
executed are those of its inputs with a state of their own (`Carried`), so that no item is lost with its task.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from pixloom.artifacts.media import PARQUET
from pixloom.artifacts.parquet import decode_table, encode_items_table
from pixloom.errors import InternalError
from pixloom.v1 import item_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pixloom.artifacts.store import ArtifactStore

__all__ = [
    "INLINE_BYTES",
    "aencode_items",
    "aread_items",
    "aread_slice",
    "encode_items",
    "read_items",
    "read_slice",
]

# Item records up to this size travel in the report and its journal row.
INLINE_BYTES: Final = 4096


def encode_items(items: Sequence[pb.Item], store: ArtifactStore) -> pb.Manifest:
    """Return a manifest of the items, in their order.

    Args:
        items: The items, by ascending ordinal.
        store: Where a long run is put; it must be synced before the manifest is reported.

    Returns:
        A manifest with its items inline if they take at most `INLINE_BYTES`, as an artifact otherwise.
    """
    if not items:
        return pb.Manifest()
    size = 0
    for item in items:
        size += item.ByteSize() + 2
        if size > 2 * INLINE_BYTES:
            break
    else:
        inline = pb.ItemBatch(items=items).SerializeToString(deterministic=True)
        if len(inline) <= INLINE_BYTES:
            return pb.Manifest(count=len(items), inline=inline)
    return pb.Manifest(count=len(items), artifact=store.put(encode_items_table(items), PARQUET))


def read_items(manifest: pb.Manifest, store: ArtifactStore) -> list[pb.Item]:
    """Return all items of a manifest, in order; the caller owns them.

    Raises:
        InternalError: If what lies there does not hold as many items as the manifest says.
        NotFoundError: If its artifact is gone.
    """
    return _read(manifest, store, offset=0, count=manifest.count)


def read_slice(part: pb.InputSlice, store: ArtifactStore) -> list[pb.Item]:
    """Return the items that a task reads, ordinals prefixed as the slice says; the caller owns them.

    Raises:
        InternalError: If the slice lies outside its manifest, or the manifest is damaged.
        NotFoundError: If its artifact is gone.
    """
    items = _read(part.manifest, store, offset=part.offset, count=part.count)
    if part.indexes:
        if max(part.indexes) >= len(items):
            raise InternalError(f"A slice of {len(items)} items has the index {max(part.indexes)}.")
        items = [items[index] for index in part.indexes]
    if part.ordinal_prefix:
        prefix = list(part.ordinal_prefix)
        for item in items:
            item.ordinal[:] = prefix + list(item.ordinal)
    return items


async def aencode_items(items: Sequence[pb.Item], store: ArtifactStore) -> pb.Manifest:
    """Do what `encode_items` does in a thread."""
    return await asyncio.to_thread(encode_items, items, store)


async def aread_items(manifest: pb.Manifest, store: ArtifactStore) -> list[pb.Item]:
    """Do what `read_items` does in a thread."""
    return await asyncio.to_thread(read_items, manifest, store)


async def aread_slice(part: pb.InputSlice, store: ArtifactStore) -> list[pb.Item]:
    """Do what `read_slice` does in a thread."""
    return await asyncio.to_thread(read_slice, part, store)


def _read(manifest: pb.Manifest, store: ArtifactStore, *, offset: int, count: int) -> list[pb.Item]:
    if offset + count > manifest.count:
        raise InternalError(f"Items {offset} to {offset + count} lie outside a manifest of {manifest.count}.")
    match manifest.WhichOneof("content"):
        case "inline":
            found = _parse(manifest.inline)
            items = found[offset : offset + count]
            total = len(found)
        case "artifact":
            items = decode_table(store.get(manifest.artifact.sha256), offset=offset, count=count)
            total = offset + len(items)
        case "carried":
            found = _read_carried(manifest.carried, store)
            items = found[offset : offset + count]
            total = len(found)
        case _:
            items, total = [], 0
    if len(items) != count:
        raise InternalError(f"A manifest of {manifest.count} items holds {total}: it is damaged.")
    return items


def _parse(data: bytes) -> list[pb.Item]:
    try:
        return list(pb.ItemBatch.FromString(data).items)
    except DecodeError as error:
        raise InternalError(f"The {len(data)} bytes in a manifest are no items: it is damaged.") from error


def _read_carried(carried: pb.Carried, store: ArtifactStore) -> list[pb.Item]:
    items = [item for part in carried.inputs for item in read_slice(part, store)]
    for item in items:
        item.state = carried.state
        item.reason = carried.reason
        item.detail = carried.detail
        item.node = carried.node
    return items
