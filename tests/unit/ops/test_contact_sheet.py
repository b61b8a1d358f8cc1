from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pixloom.sdk.image import Image
from pixloom.sdk.record import File, Item
from pixloom_executor.ops.contact_sheet import contact_sheet, layout, sampled
from tests.unit.ops.photos import PHOTOGRAPHS, Shelf, folder, pixels, psnr, with_orientation, written


def _opened(file: File) -> Image:
    assert isinstance(file.content, bytes)
    return Image.from_bytes(file.content)


def _photographs(shelf: Shelf) -> list[Item]:
    return [shelf.put(f"set/{name}", (folder() / name).read_bytes(), sharpness=1.5) for name in PHOTOGRAPHS]


def test_sheet_is_a_jpeg_of_the_size_it_tells() -> None:
    shelf = Shelf()
    file = contact_sheet(_photographs(shelf), ctx=shelf.context(), columns=4, cell=120)
    sheet = _opened(file)
    assert file.media_type == "image/jpeg"
    assert sheet.record.format == "jpeg"
    assert file.facts == {
        "shown": 6, "total": 6, "columns": 4, "rows": 2, "width": sheet.vips.width, "height": sheet.vips.height,
    }  # fmt: skip


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_pictures_stand_upright_in_their_cells_in_the_right_colours(orientation: int) -> None:
    shelf = Shelf()
    item = shelf.put("one.jpg", written(with_orientation(pixels("coffee.png"), orientation), ".jpg", Q=95))
    sheet = _opened(contact_sheet([item], ctx=shelf.context(), cell=150, quality=95)).array()
    plan = layout(1, columns=8, cell=150, captions=True)
    left, top = plan.corner(0)
    x, y = left + plan.padding, top + plan.padding + 25
    expected = pixels("coffee.png").resize(0.25).numpy()
    assert psnr(sheet[y : y + 100, x : x + 150], expected) > 27


def test_same_items_give_the_same_bytes() -> None:
    shelf = Shelf()
    items = _photographs(shelf)
    first, second = (contact_sheet(items, ctx=shelf.context(), cell=80).content for _ in range(2))
    assert first == second


def test_unreadable_picture_leaves_an_empty_card_and_a_warning() -> None:
    shelf = Shelf()
    items = [*_photographs(shelf), shelf.put("broken.jpg", b"nothing")]
    ctx = shelf.context()
    assert contact_sheet(items, ctx=ctx, cell=64).facts["shown"] == 7
    assert len(ctx.warnings) == 1
    assert "broken.jpg" in ctx.warnings[0]


def test_picture_of_many_channels_leaves_an_empty_card_and_a_warning() -> None:
    shelf = Shelf()
    channels = pixels("coffee.png").bandjoin(pixels("coffee.png")).bandjoin(pixels("coffee.png"))
    items = [*_photographs(shelf), shelf.put("satellite.tif", channels.write_to_buffer(".tif"))]
    ctx = shelf.context()
    assert contact_sheet(items, ctx=ctx, cell=64).facts["shown"] == 7
    assert [warning.split(":")[1] for warning in ctx.warnings] == [" satellite.tif is left empty"]


def test_no_pictures_give_a_sheet_that_says_so() -> None:
    file = contact_sheet([], ctx=Shelf().context())
    assert (file.facts["shown"], file.facts["total"]) == (0, 0)
    assert _opened(file).array().min() < 180


def test_captions_can_be_left_out_or_taken_from_attributes() -> None:
    shelf = Shelf()
    items = _photographs(shelf)
    heights = {
        caption: contact_sheet(items, ctx=shelf.context(), cell=100, caption=caption).facts["height"]
        for caption in ("none", "name", "key", "sharpness", "absent")
    }
    assert heights["none"] < heights["name"]
    assert heights["name"] == heights["key"] == heights["sharpness"] == heights["absent"]


def test_sample_takes_evenly_from_all() -> None:
    items = [Item(key=str(index)) for index in range(10)]
    assert [item.key for item in sampled(items, 4)] == ["0", "2", "5", "7"]
    assert sampled(items, 10) == items


def test_captions_are_dark_on_white() -> None:
    shelf = Shelf()
    item = shelf.put("Caption.png", (folder() / "coffee.png").read_bytes())
    sheet = _opened(contact_sheet([item], ctx=shelf.context(), cell=200, quality=100)).array()
    plan = layout(1, columns=8, cell=200, captions=True)
    left, top = plan.corner(0)
    band: Any = sheet[top + plan.card_width : top + plan.card_height - 1, left + 2 : left + plan.card_width - 2]
    assert band.min() < 110
    assert np.median(band) > 250
