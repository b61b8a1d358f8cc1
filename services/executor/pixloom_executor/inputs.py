"""The items that a task reads."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from pixloom.artifacts.manifest import read_items
from pixloom.errors import InternalError
from pixloom.v1 import item_pb2 as pb
from pixloom_executor.records import record_from

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pixloom.artifacts import ArtifactStore
    from pixloom.sdk.op import Item

__all__ = ["InputReader"]


class InputReader:
    """Reads slices of manifests; the last few manifests in the store stay decoded, as many tasks slice the same one.

    Args:
        store: Where manifests lie.
        kept_items: Most items kept decoded.
    """

    def __init__(self, store: ArtifactStore, *, kept_items: int = 50_000) -> None:
        self._store = store
        self._kept_items = kept_items
        self._decoded: OrderedDict[str, list[pb.Item]] = OrderedDict()
        self._held = 0

    def read(self, slices: Iterable[pb.InputSlice]) -> list[Item]:
        """Return the items of slices, one slice after the other.

        Raises:
            InternalError: if a manifest is damaged.
            NotFoundError: if its artifact is gone.
        """
        records: list[Item] = []
        for part in slices:
            manifest = part.manifest
            items = self._items(manifest)
            first, count = part.offset, part.count
            chosen: Sequence[pb.Item]
            if part.indexes:
                chosen = [items[first + index] for index in part.indexes if index < count]
            elif first == 0 and count == len(items):
                chosen = items
            else:
                chosen = items[first : first + count]
                if len(chosen) != count:
                    raise InternalError(f"items {first} to {first + count} lie outside a manifest of {len(items)}")
            prefix = tuple(part.ordinal_prefix)
            records.extend([record_from(item, prefix) for item in chosen])
        return records

    def _items(self, manifest: pb.Manifest) -> Sequence[pb.Item]:
        kind = manifest.WhichOneof("content")
        if kind == "inline":
            return pb.ItemBatch.FromString(manifest.inline).items
        if kind != "artifact":
            return read_items(manifest, self._store)
        sha256 = manifest.artifact.sha256
        items = self._decoded.get(sha256)
        if items is None:
            items = read_items(manifest, self._store)
            self._keep(sha256, items)
        else:
            self._decoded.move_to_end(sha256)
        return items

    def _keep(self, sha256: str, items: list[pb.Item]) -> None:
        if len(items) > self._kept_items:
            return
        self._held += len(items)
        while self._held > self._kept_items:
            _, dropped = self._decoded.popitem(last=False)
            self._held -= len(dropped)
        self._decoded[sha256] = items
