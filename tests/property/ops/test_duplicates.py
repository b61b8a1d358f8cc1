from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pixloom.sdk.context import Context
from pixloom.sdk.record import Item
from pixloom_executor.ops.clusters import DisjointSets, near_pairs
from pixloom_executor.ops.dedupe import exact, near

quick = settings(max_examples=60, deadline=None)
KEEP = st.sampled_from(["first", "largest", "sharpest"])
# Hashes of two bytes near one another, so that clusters and chains happen.
HASHES = st.lists(st.integers(0, 15).map(lambda value: f"{value * 0x1011 & 0xFFFF:04x}"), max_size=30)


def _items(values: list[str]) -> list[Item]:
    return [
        Item(key=str(index), sha256=value, width=index % 3, height=1, attributes={"h": value, "sharpness": index % 4})
        for index, value in enumerate(values)
    ]


def _clusters(values: list[str], distance: int) -> list[set[int]]:
    """Clusters by spreading from member to member, as a second opinion."""
    left = set(range(len(values)))
    clusters = []
    while left:
        cluster, edge = set(), {min(left)}
        while edge:
            cluster |= edge
            left -= edge
            edge = {
                other
                for other in left
                if any((int(values[one], 16) ^ int(values[other], 16)).bit_count() <= distance for one in edge)
            }
        clusters.append(cluster)
    return clusters


@quick
@given(
    HASHES | st.lists(st.integers(0, 0xFFFF).map("{:04x}".format), max_size=60), st.integers(0, 6), st.integers(1, 9)
)
def test_near_pairs_join_exactly_the_clusters(values: Any, distance: int, most_queries: int) -> None:
    sets = DisjointSets(len(values))
    pairs = list(near_pairs([bytes.fromhex(value) for value in values], distance, most_queries=most_queries))
    assert len(pairs) == len(values) - len(_clusters(values, distance))
    for one, other in pairs:
        sets.join(one, other)
    assert [set(group) for group in sets.groups()] == _clusters(values, distance)


@quick
@given(HASHES, st.integers(0, 6), KEEP)
def test_near_keeps_exactly_one_of_each_cluster_and_loses_nothing(values: Any, distance: int, keep: Any) -> None:
    items = _items(values)
    result = near(items, ctx=Context(), hash_col="h", max_distance=distance, keep=keep)
    kept = [int(item.key) for item in result.kept]
    dropped = [int(entry.item.key) for entry in result.filtered]
    assert sorted(kept + dropped) == list(range(len(values)))
    assert kept == sorted(kept)
    for cluster in _clusters(values, distance):
        assert len(cluster & set(kept)) == 1


@quick
@given(HASHES, st.integers(0, 6), KEEP)
def test_marking_is_an_equivalence(values: Any, distance: int, keep: Any) -> None:
    marked = near(_items(values), ctx=Context(), hash_col="h", max_distance=distance, keep=keep, action="mark").kept
    assert [item.key for item in marked] == [str(index) for index in range(len(values))]
    names = [item.attributes.get("near_cluster", item.key) for item in marked]
    groups = {name: {index for index, other in enumerate(names) if other == name} for name in names}
    assert sorted(groups.values(), key=min) == _clusters(values, distance)


@quick
@given(HASHES, st.integers(0, 6), KEEP)
def test_near_of_what_was_kept_keeps_all_with_distance_zero_as_exact_does(
    values: Any, distance: int, keep: Any
) -> None:
    once = near(_items(values), ctx=Context(), hash_col="h", max_distance=0, keep=keep)
    same = exact(_items(values), ctx=Context(), keep=keep)
    assert [item.key for item in once.kept] == [item.key for item in same.kept]
    again = exact(list(same.kept), ctx=Context(), keep=keep)
    assert list(again.kept) == list(same.kept)


@quick
@given(HASHES, KEEP)
def test_exact_keeps_the_best_of_each_group(values: Any, keep: Any) -> None:
    items = _items(values)
    kept = {item.sha256: item for item in exact(items, ctx=Context(), keep=keep).kept}
    assert set(kept) == set(values)
    for value, best in kept.items():
        group = [item for item in items if item.sha256 == value]
        match keep:
            case "first":
                assert best is group[0]
            case "largest":
                assert best.width == max(item.width for item in group)
            case "sharpest":
                assert best.attributes["sharpness"] == max(item.attributes["sharpness"] for item in group)
