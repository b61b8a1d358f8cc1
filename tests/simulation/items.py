"""What happens to each item of a simulated job: decided by its identity, so that every attempt finds the same.

Manifests carry item ids as text. That lets the invariants follow each item from its source to its end through the
journal's payloads, whoever executed what and how often.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from pixloom.v1 import item_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["fate", "manifest_of", "page_items", "pages", "read_ids", "slice_ids"]

FATES: Final = ("ok",) * 17 + ("filtered",) + ("rejected",) * 2


def _dice(*place: object) -> int:
    return zlib.crc32(".".join(map(str, place)).encode())


def fate(job: str, node: str, item: str) -> str:
    """Return what a node does to an item: `ok`, `filtered` or `rejected`."""
    return FATES[_dice(job, node, item) % len(FATES)]


def pages(job: str, stage: int) -> int:
    """Return the number of pages that a source has."""
    return 1 + _dice(job, stage, "pages") % 3


def page_items(job: str, stage: int, page: int) -> list[str]:
    """Return the items on a page of a source."""
    return [f"{stage}-{page}-{index}" for index in range(_dice(job, stage, page) % 9)]


def manifest_of(ids: Iterable[str]) -> item_pb2.Manifest:
    """Return a manifest that carries ids."""
    items = item_pb2.ItemBatch(items=[item_pb2.Item(key=each) for each in ids])
    return (
        item_pb2.Manifest(count=len(items.items), inline=items.SerializeToString())
        if items.items
        else item_pb2.Manifest()
    )


def read_ids(manifest: item_pb2.Manifest) -> list[str]:
    """Return the ids that a manifest carries."""
    return [item.key for item in item_pb2.ItemBatch.FromString(manifest.inline).items]


def slice_ids(part: item_pb2.InputSlice) -> list[str]:
    """Return the ids that a slice selects."""
    chosen = read_ids(part.manifest)[part.offset : part.offset + part.count]
    return [chosen[index] for index in part.indexes] if part.indexes else chosen
