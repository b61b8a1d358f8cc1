from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pixloom_executor.ops.contact_sheet import layout
from pixloom_executor.ops.image_resize import placement
from pixloom_executor.ops.image_thumbnail import scaled_size

SIDES = st.integers(1, 20_000)
SIZES = st.tuples(SIDES, SIDES)


@given(SIZES, SIZES, st.sampled_from(["both", "up", "down"]))
def test_thumbnail_without_crop_fits_the_box_or_is_not_enlarged(source: Any, box: Any, size: Any) -> None:
    width, height = scaled_size(source, box, size=size, cover=False)
    if size != "up":
        assert width <= box[0]
        assert height <= box[1]
    if size == "both":
        assert width == box[0] or height == box[1]
    if size == "down":
        assert width <= source[0]
        assert height <= source[1]
    if size == "up":
        assert width >= source[0]
        assert height >= source[1]
    assert min(width, height) >= 1


@given(SIZES, SIZES)
def test_thumbnail_with_crop_covers_the_box(source: Any, box: Any) -> None:
    width, height = scaled_size(source, box, size="both", cover=True)
    assert width >= box[0]
    assert height >= box[1]


@given(SIZES, SIZES)
def test_aspect_ratio_is_kept_to_a_pixel(source: Any, box: Any) -> None:
    width, height = scaled_size(source, box, size="both", cover=False)
    scale = min(box[0] / source[0], box[1] / source[1])
    assert abs(width - max(1, source[0] * scale)) <= 0.5 + 1e-6
    assert abs(height - max(1, source[1] * scale)) <= 0.5 + 1e-6


@given(SIZES, SIZES, st.sampled_from(["cover", "contain", "fill", "inside", "outside"]), st.booleans())
def test_resize_gives_the_size_its_fit_promises(source: Any, box: Any, fit: Any, without_enlargement: Any) -> None:
    place = placement(source, width=box[0], height=box[1], fit=fit, without_enlargement=without_enlargement)
    result = (place.box_width, place.box_height)
    if fit == "contain" or (fit in ("cover", "fill") and not without_enlargement):
        assert result == box
    if fit == "inside":
        assert result[0] <= box[0]
        assert result[1] <= box[1]
    if fit == "outside" and not without_enlargement:
        assert result[0] >= box[0]
        assert result[1] >= box[1]
    if without_enlargement:
        assert place.width <= source[0]
        assert place.height <= source[1]
    if fit == "contain":
        assert place.width <= place.box_width
        assert place.height <= place.box_height
    else:
        assert place.width >= place.box_width
        assert place.height >= place.box_height


@given(SIZES, SIDES, st.booleans())
def test_resize_to_one_side_gives_exactly_that_side(source: Any, side: int, by_width: Any) -> None:
    place = placement(source, width=side if by_width else None, height=None if by_width else side, fit="cover")
    assert (place.box_width if by_width else place.box_height) == side
    assert min(place.box_width, place.box_height) >= 1


@given(st.integers(0, 5000), st.integers(1, 64), st.integers(32, 1024), st.booleans())
def test_cards_of_a_sheet_lie_inside_it_and_never_overlap(count: int, columns: int, cell: int, captions: Any) -> None:
    plan = layout(count, columns=columns, cell=cell, captions=captions)
    assert plan.shown <= max(count, 0)
    assert plan.shown <= plan.rows * plan.columns
    assert max(plan.width, plan.height) <= 65_000
    assert plan.width * plan.height <= 120_000_000
    corners = [plan.corner(index) for index in range(plan.shown)]
    assert len(set(corners)) == plan.shown
    for left, top in corners[-1:]:
        assert left + plan.card_width + plan.margin <= plan.width
        assert top + plan.card_height + plan.margin == plan.height
    gaps = {right[0] - left[0] for left, right in pairwise(corners) if right[1] == left[1]}
    assert gaps <= {plan.card_width + plan.gap}
