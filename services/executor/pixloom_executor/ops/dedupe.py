"""`dedupe.exact` and `dedupe.near`: of items that are the same, one goes on."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from pixloom.sdk.op import Context, Dropped, Item, Items, op
from pixloom_executor.ops.clusters import DisjointSets, near_pairs

__all__ = ["exact", "near"]

Keep = Literal["first", "largest", "sharpest"]

_KEY_FIELDS: Final = ("sha256", "key", "uri")


@op("dedupe.exact", version=1, cost_hint_s=0.05, timeout_s=600.0)
def exact(
    items: list[Item],
    *,
    ctx: Context,
    key: Annotated[
        str, Field(min_length=1, description="Attribute (or sha256, key, uri of the record) that duplicates share")
    ] = "sha256",
    keep: Annotated[
        Keep, Field(description="first in order, largest by pixels then bytes, or sharpest (after analyse.sharpness)")
    ] = "first",
) -> Items:
    """Drop items whose key is equal to that of another one.

    - **Filters:** DUPLICATE, naming the item that is kept; exactly one item of each group goes on.
    - **Order:** that of the input; of equally good items the first is kept.
    - **Items without the key** go on; a warning counts them.
    """
    groups: dict[Any, list[int]] = {}
    without = 0
    for index, item in enumerate(items):
        value = _key_of(item, key)
        if value is None:
            without += 1
        groups.setdefault(("item", index) if value is None else ("key", value), []).append(index)
    if without:
        ctx.warnings.append(f"dedupe.exact: {without} of {len(items)} items have no {key!r} and were not compared")
    chosen: dict[int, int] = {}
    for group in groups.values():
        best = _best(items, group, keep)
        chosen.update(dict.fromkeys(group, best))
    kept = [item for index, item in enumerate(items) if chosen[index] == index]
    filtered = [
        Dropped(item, "DUPLICATE", f"same {key} as {items[chosen[index]].key}")
        for index, item in enumerate(items)
        if chosen[index] != index
    ]
    return Items(kept=kept, filtered=filtered)


@op("dedupe.near", version=1, cost_hint_s=0.1, timeout_s=3600.0)
def near(
    items: list[Item],
    *,
    ctx: Context,
    hash_col: Annotated[
        str, Field(min_length=1, description="Attribute with the hash in hexadecimal digits")
    ] = "pdq256",
    max_distance: Annotated[
        int | None, Field(ge=0, le=256, description="Bits that may differ; 31 of 256 in proportion if not given")
    ] = None,
    keep: Annotated[
        Keep, Field(description="first in order, largest by pixels then bytes, or sharpest (after analyse.sharpness)")
    ] = "first",
    action: Annotated[
        Literal["drop", "mark"], Field(description="drop: near duplicates are filtered; mark: all go on, marked")
    ] = "drop",
) -> Items:
    """Find items that look the same, and keep one of each cluster.

    Two items are near when their hashes differ in at most `max_distance` bits; a cluster is everything that a chain of
    near items joins, so its ends may be further apart.

    - **Adds** to every item of a cluster: `near_cluster` (key of its first item), `near_duplicate_of` (key of the one
      kept, empty for itself), `near_distance` (bits between the two).
    - **Filters:** NEAR_DUPLICATE with `action: drop`; exactly one item of each cluster goes on.
    - **Items without the hash**, or with one of another length, go on; a warning counts them.
    - **Source:** `IndexBinaryFlat` (faiss); 31 of 256 bits is the threshold the PDQ paper (Facebook, 2019) recommends.
    """
    hashes = [_hash_of(item, hash_col) for item in items]
    length = next((len(value) for value in hashes if value is not None), 0)
    compared = [index for index, value in enumerate(hashes) if value is not None and len(value) == length]
    if len(compared) < len(items):
        ctx.warnings.append(
            f"dedupe.near: {len(items) - len(compared)} of {len(items)} items have no {hash_col!r} and were not compared"
        )
    limit = length * 8 * 31 // 256 if max_distance is None else max_distance
    values = [value for index in compared if (value := hashes[index]) is not None]
    sets = DisjointSets(len(values))
    for one, other in near_pairs(values, limit):
        sets.join(one, other)
    result = list(items)
    dropped: dict[int, Dropped] = {}
    for group in sets.groups():
        if len(group) == 1:
            continue
        members = [compared[position] for position in group]
        best = _best(items, members, keep)
        for position, index in zip(group, members, strict=True):
            distance = _distance(values[position], hashes[best] or b"")
            twin = "" if index == best else items[best].key
            result[index] = items[index].with_attributes(
                {"near_cluster": items[members[0]].key, "near_duplicate_of": twin, "near_distance": distance}
            )
            if index != best and action == "drop":
                detail = f"looks like {twin}: {distance} of {length * 8} bits of {hash_col} differ"
                dropped[index] = Dropped(result[index], "NEAR_DUPLICATE", detail)
    kept = [item for index, item in enumerate(result) if index not in dropped]
    return Items(kept=kept, filtered=[dropped[index] for index in sorted(dropped)])


def _key_of(item: Item, key: str) -> Any:
    value = item.attributes.get(key)
    if value is None and key in _KEY_FIELDS:
        value = getattr(item, key)
    if isinstance(value, list):
        return tuple(value)
    return None if value == "" else value


def _hash_of(item: Item, name: str) -> bytes | None:
    value = item.attributes.get(name)
    if not isinstance(value, str) or not value:
        return None
    try:
        return bytes.fromhex(value)
    except ValueError:
        return None


def _best(items: list[Item], group: list[int], keep: Keep) -> int:
    """Return the index of the item to keep; of equal ones the first."""

    def rank(index: int) -> tuple[float, float]:
        item = items[index]
        match keep:
            case "first":
                return 0.0, 0.0
            case "largest":
                return float(item.width * item.height), float(item.size_bytes)
            case "sharpest":
                sharpness = item.attributes.get("sharpness")
                return (float(sharpness), 0.0) if isinstance(sharpness, int | float) else (-1.0, 0.0)

    return max(group, key=lambda index: (*rank(index), -index))


def _distance(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()
