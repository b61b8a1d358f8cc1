"""The items that a task reads."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from pixloom.artifacts.manifest import read_slice
from pixloom.errors import InternalError
from pixloom.v1 import item_pb2 as pb
from pixloom_executor.records import record_from

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pixloom.artifacts import ArtifactStore
    from pixloom.sdk.op import Item

__all__ = ["InputReader"]

_BLOCK_ITEMS: Final = 2048
"""Items that are decoded together: as many as lie in a row group of a manifest in the store."""


class InputReader:
    """Reads runs of items; of manifests in the store the last few blocks stay decoded, as many tasks read of the same.

    Args:
        store: Where manifests lie.
        kept_items: Most items kept decoded.
    """

    def __init__(self, store: ArtifactStore, *, kept_items: int = 50_000) -> None:
        self._store = store
        self._kept_items = kept_items
        self._decoded: OrderedDict[tuple[str, int], list[pb.Item]] = OrderedDict()
        self._held = 0
        # What `read_run` read of last, as many tasks in a row read of the same: where its items begin, and they.
        self._source: pb.InputSlice | None = None
        self._prefix: tuple[int, ...] = ()
        self._first = 0
        self._items: Sequence[pb.Item] = ()

    def read_run(self, source: pb.InputSlice, offset: int, count: int) -> list[Item]:
        """Return `count` items from `offset` on of what a slice names; its own offset and count do not matter.

        Raises:
            InternalError: if a manifest is damaged or too short.
            NotFoundError: if its artifact is gone.
        """
        if source is not self._source:
            self._source, self._prefix, self._items = source, tuple(source.ordinal_prefix), ()
        begin = offset - self._first
        if begin < 0 or begin + count > len(self._items):
            self._first, self._items = self._around(source.manifest, offset, count)
            begin = offset - self._first
        prefix = self._prefix
        return [record_from(item, prefix) for item in self._items[begin : begin + count]]

    def read(self, slices: Iterable[pb.InputSlice]) -> list[Item]:
        """Return the items of slices, one slice after the other.

        Raises:
            InternalError: if a manifest is damaged.
            NotFoundError: if its artifact is gone.
        """
        records: list[Item] = []
        for part in slices:
            offset, count = part.offset, part.count
            first, items = self._around(part.manifest, offset, count)
            chosen: Sequence[pb.Item] = items[offset - first : offset - first + count]
            if part.indexes:
                chosen = [chosen[index] for index in part.indexes if index < count]
            prefix = tuple(part.ordinal_prefix)
            records.extend([record_from(item, prefix) for item in chosen])
        return records

    def _around(self, manifest: pb.Manifest, offset: int, count: int) -> tuple[int, Sequence[pb.Item]]:
        """Return items of a manifest that hold a run, and the index of the first of them."""
        if manifest.WhichOneof("content") == "artifact" and count <= _BLOCK_ITEMS:
            block = offset // _BLOCK_ITEMS
            items: Sequence[pb.Item] = self._block(manifest, block)
            first = block * _BLOCK_ITEMS
            if offset + count > first + _BLOCK_ITEMS:
                items = [*items, *self._block(manifest, block + 1)]
        elif manifest.WhichOneof("content") == "inline":
            first, items = 0, pb.ItemBatch.FromString(manifest.inline).items
        else:
            # What is as long as this is read once.
            first, items = offset, read_slice(pb.InputSlice(manifest=manifest, offset=offset, count=count), self._store)
        if offset + count > first + len(items):
            raise InternalError(f"items {offset} to {offset + count} lie outside a manifest of {manifest.count}")
        return first, items

    def _block(self, manifest: pb.Manifest, number: int) -> list[pb.Item]:
        key = (manifest.artifact.sha256, number)
        items = self._decoded.get(key)
        if items is not None:
            self._decoded.move_to_end(key)
            return items
        offset = number * _BLOCK_ITEMS
        count = max(0, min(_BLOCK_ITEMS, manifest.count - offset))
        items = read_slice(pb.InputSlice(manifest=manifest, offset=offset, count=count), self._store)
        self._held += len(items)
        while self._held > self._kept_items and self._decoded:
            _, dropped = self._decoded.popitem(last=False)
            self._held -= len(dropped)
        self._decoded[key] = items
        return items
