from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pixloom.sdk.context import Context
from pixloom.sdk.record import Item
from pixloom_executor.ops.clusters import DisjointSets, near_pairs
from pixloom_executor.ops.dedupe import exact, near


def _item(key: str, sha256: str = "", **attributes: object) -> Item:
    return Item(key=key, sha256=sha256, attributes=attributes)


def _keys(items: Any) -> list[str]:
    return [item.key for item in items]


def test_exact_keeps_the_first_of_each_group_in_order() -> None:
    result = exact([_item("a", "1"), _item("b", "2"), _item("c", "1"), _item("d", "1")], ctx=Context())
    assert _keys(result.kept) == ["a", "b"]
    assert [(dropped.item.key, dropped.reason, dropped.detail) for dropped in result.filtered] == [
        ("c", "DUPLICATE", "same sha256 as a"),
        ("d", "DUPLICATE", "same sha256 as a"),
    ]


def test_exact_by_attribute() -> None:
    result = exact([_item("a", content_md5="x"), _item("b", content_md5="x")], ctx=Context(), key="content_md5")
    assert _keys(result.kept) == ["a"]


def test_items_without_the_key_go_on_with_a_warning() -> None:
    ctx = Context()
    result = exact([_item("a"), _item("b"), _item("c", "1")], ctx=ctx)
    assert _keys(result.kept) == ["a", "b", "c"]
    assert "2 of 3" in ctx.warnings[0]


def test_keep_largest_and_sharpest() -> None:
    small, large = _item("small", "1", sharpness=900.0), _item("large", "1", sharpness=30.0)
    large.width, large.height = 20, 20
    small.width, small.height = 10, 10
    assert _keys(exact([small, large], ctx=Context(), keep="largest").kept) == ["large"]
    assert _keys(exact([large, small], ctx=Context(), keep="sharpest").kept) == ["small"]


def test_near_drops_what_is_within_the_distance() -> None:
    items = [_item("a", h="00ff"), _item("b", h="00fe"), _item("c", h="ff00")]
    result = near(items, ctx=Context(), hash_col="h", max_distance=1)
    assert _keys(result.kept) == ["a", "c"]
    (dropped,) = result.filtered
    assert (dropped.item.key, dropped.reason) == ("b", "NEAR_DUPLICATE")
    assert dropped.detail == "looks like a: 1 of 16 bits of h differ"
    assert dropped.item.attributes["near_duplicate_of"] == "a"


def test_near_marks_instead() -> None:
    items = [_item("a", h="00ff"), _item("b", h="00fe"), _item("c", h="ff00")]
    result = near(items, ctx=Context(), hash_col="h", max_distance=1, action="mark")
    assert _keys(result.kept) == ["a", "b", "c"]
    assert not result.filtered
    assert result.kept[0].attributes == {"h": "00ff", "near_cluster": "a", "near_duplicate_of": "", "near_distance": 0}
    assert result.kept[1].attributes == {"h": "00fe", "near_cluster": "a", "near_duplicate_of": "a", "near_distance": 1}
    assert result.kept[2].attributes == {"h": "ff00"}
    assert items[0].attributes == {"h": "00ff"}


def test_a_chain_is_one_cluster() -> None:
    items = [_item("a", h="00"), _item("b", h="01"), _item("c", h="03"), _item("d", h="07")]
    result = near(items, ctx=Context(), hash_col="h", max_distance=1)
    assert _keys(result.kept) == ["a"]
    assert [dropped.item.attributes["near_distance"] for dropped in result.filtered] == [1, 2, 3]


def test_distance_limit_is_inclusive() -> None:
    items = [_item("a", h="0000"), _item("b", h="0007")]
    assert len(near(items, ctx=Context(), hash_col="h", max_distance=3).kept) == 1
    assert len(near(items, ctx=Context(), hash_col="h", max_distance=2).kept) == 2
    assert len(near(items, ctx=Context(), hash_col="h", max_distance=0).kept) == 2


@pytest.mark.parametrize(("digits", "limit"), [(64, 31), (16, 7)])
def test_default_distance_is_in_proportion_to_the_hash(digits: int, limit: int) -> None:
    def at(bits: int) -> list[Item]:
        return [_item("a", h="0" * digits), _item("b", h=f"{(1 << bits) - 1:0{digits}x}")]

    assert len(near(at(limit), ctx=Context(), hash_col="h").kept) == 1
    assert len(near(at(limit + 1), ctx=Context(), hash_col="h").kept) == 2


def test_items_without_a_hash_go_on_with_a_warning() -> None:
    ctx = Context()
    items = [_item("a", h="00"), _item("b"), _item("c", h="0000"), _item("d", h="no"), _item("e", h="00")]
    result = near(items, ctx=ctx, hash_col="h", max_distance=1)
    assert _keys(result.kept) == ["a", "b", "c", "d"]
    assert "3 of 5" in ctx.warnings[0]


@pytest.mark.parametrize("function", [exact, near])
def test_nothing_in_nothing_out(function: Any) -> None:
    assert list(function([], ctx=Context()).kept) == []


def test_near_pairs_over_several_blocks_find_every_planted_twin() -> None:
    generator = np.random.default_rng(3)
    hashes = [generator.bytes(32) for _ in range(5000)]
    hashes[4999] = bytes([hashes[10][0] ^ 0b101]) + hashes[10][1:]
    hashes[4000] = hashes[20]
    assert sorted(near_pairs(hashes, 31)) == [(10, 4999), (20, 4000)]


def test_many_equal_hashes_are_joined_without_comparing_all_with_all() -> None:
    assert len(list(near_pairs([b"\0" * 32] * 50_000, 31))) == 49_999


def test_hashes_that_are_all_near_each_other_give_no_pair_for_every_two() -> None:
    generator = np.random.default_rng(5)
    hashes = [bytes(np.packbits(generator.permutation(256) < 8)) for _ in range(3000)]
    assert len(set(hashes)) == 3000
    assert list(near_pairs(hashes, 31)) == [(0, other) for other in range(1, 3000)]


def test_smallest_member_stands_for_its_set() -> None:
    sets = DisjointSets(6)
    for pair in ((5, 3), (3, 4), (1, 5)):
        sets.join(*pair)
    assert sets.groups() == [[0], [1, 3, 4, 5], [2]]
