"""`agg.contact_sheet`: all pictures at a glance, as one JPEG."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Field

from pixloom.sdk.op import Context, File, Image, Item, Outcome, op
from pixloom_executor.ops.arrays import pixel_array
from pixloom_executor.ops.colour import flattened
from pixloom_executor.ops.image_thumbnail import thumbnail
from pixloom_executor.ops.stroke_font import elided, line_height, rendered

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Layout", "contact_sheet", "layout", "sampled"]

_PAGE: Final = 236
_CARD: Final = 255
_EDGE: Final = 216
_INK: Final = 72
_FAINT: Final = 150
# JPEG holds at most 65,535 px a side (ITU-T T.81, B.2.2); the pixel bound keeps a sheet below 400 MB in memory.
_MAX_SIDE: Final = 65_000
_MAX_PIXELS: Final = 120_000_000


@dataclass(frozen=True, slots=True)
class Layout:
    """Geometry of a sheet in pixels.

    Attributes:
        columns: Cells in a row.
        rows: Rows.
        shown: Pictures that have a cell.
        cell: Side of the square a picture fits in.
        padding: Between the picture's square and the edge of its card.
        gap: Between cards.
        margin: Round the cards.
        caption: Height of the caption below the picture; 0 without captions.
    """

    columns: int
    rows: int
    shown: int
    cell: int
    padding: int
    gap: int
    margin: int
    caption: int

    @property
    def card_width(self) -> int:
        """Width of a card."""
        return self.cell + 2 * self.padding

    @property
    def card_height(self) -> int:
        """Height of a card."""
        return self.cell + 2 * self.padding + self.caption

    @property
    def width(self) -> int:
        """Width of the sheet."""
        return 2 * self.margin + self.columns * self.card_width + (self.columns - 1) * self.gap

    @property
    def height(self) -> int:
        """Height of the sheet."""
        return 2 * self.margin + self.rows * self.card_height + (self.rows - 1) * self.gap

    def corner(self, index: int) -> tuple[int, int]:
        """Return left and top of the card of the picture at `index`."""
        row, column = divmod(index, self.columns)
        return (
            self.margin + column * (self.card_width + self.gap),
            self.margin + row * (self.card_height + self.gap),
        )


@op("agg.contact_sheet", version=1, cost_hint_s=1.0, timeout_s=900.0)
def contact_sheet(
    images: list[Item],
    *,
    ctx: Context,
    columns: Annotated[int, Field(ge=1, le=64, description="Pictures in a row")] = 8,
    cell: Annotated[int, Field(ge=32, le=1024, description="Side in pixels of the square a picture fits in")] = 200,
    caption: Annotated[
        str, Field(description="Text below a picture: name, key, none, or an attribute of the item")
    ] = "name",
    sample: Annotated[
        int, Field(ge=1, le=10_000, description="Pictures shown at most, taken evenly from all of them")
    ] = 240,
    quality: Annotated[int, Field(ge=1, le=100, description="Quality of the JPEG")] = 88,
) -> File:
    """Lay the pictures out on one sheet.

    - **Order:** that of the collection, row by row; every picture is fitted into a square, small ones are not enlarged.
    - **Colour:** 8-bit sRGB, embedded profiles applied. **Alpha:** over white. **Orientation:** applied.
    - **Captions:** drawn with a built-in font, shortened in the middle. Needs no fonts on the machine.
    - **Size:** fewer pictures are shown if the sheet would pass 65,000 px a side or 120 megapixels.
    - **Pictures that cannot be opened or shown**, such as those of eight channels, leave an empty card and a warning.
    - **Gives:** a JPEG, and as facts `shown`, `total`, `columns`, `rows`, `width`, `height`.
    - **Source:** JPEG by libjpeg-turbo, 4:4:4.
    """
    import numpy as np
    import simplejpeg

    plan = layout(min(len(images), sample), columns=columns, cell=cell, captions=caption != "none")
    chosen = sampled(images, plan.shown)
    sheet = np.full((plan.height, plan.width, 3), _PAGE, dtype=np.uint8)
    if not chosen:
        _write(sheet, "no images", (plan.margin, plan.margin), plan.card_width, plan.card_height, ink=_FAINT)
    for index, item in enumerate(chosen):
        left, top = plan.corner(index)
        _card(sheet, left, top, plan)
        picture = _picture(ctx, item, cell)
        if picture is None:
            _write(sheet, "unreadable", (left, top), plan.card_width, plan.card_width, ink=_FAINT)
        else:
            high, wide = picture.shape[:2]
            x = left + plan.padding + (cell - wide) // 2
            y = top + plan.padding + (cell - high) // 2
            sheet[y : y + high, x : x + wide] = picture
        if plan.caption:
            below = (left, top + plan.card_width - plan.padding // 2)
            _write(sheet, _caption(item, caption), below, plan.card_width, plan.caption, ink=_INK)
    data = simplejpeg.encode_jpeg(sheet, quality=quality, colorspace="RGB", colorsubsampling="444", fastdct=False)
    facts = {
        "shown": len(chosen),
        "total": len(images),
        "columns": plan.columns,
        "rows": plan.rows,
        "width": plan.width,
        "height": plan.height,
    }
    return File(data, "image/jpeg", facts)


def layout(count: int, *, columns: int, cell: int, captions: bool) -> Layout:
    """Return the geometry of a sheet for `count` pictures, for fewer if the sheet would grow too large.

    Args:
        count: Pictures to show.
        columns: Cells in a row; fewer if there are fewer pictures.
        cell: Side of a picture's square in pixels.
        captions: Whether there is text below the pictures.
    """
    padding, gap = max(3, cell // 20), max(4, cell // 16)
    width_limit = max(1, (_MAX_SIDE - 2 * gap) // (cell + 2 * padding + gap))
    across = max(1, min(columns, count, width_limit))

    def of(rows: int, shown: int) -> Layout:
        text = line_height(_cap_px(cell)) + padding // 2 if captions else 0
        return Layout(across, rows, shown, cell, padding, gap, 2 * gap, text)

    rows = max(1, -(-count // across))
    full = of(rows, count)
    if full.height <= _MAX_SIDE and full.width * full.height <= _MAX_PIXELS:
        return full
    room = min(_MAX_SIDE, _MAX_PIXELS // full.width)
    rows = max(1, (room - 2 * full.margin + full.gap) // (full.card_height + full.gap))
    return of(rows, min(count, rows * across))


def sampled(items: list[Item], count: int) -> list[Item]:
    """Return `count` items taken evenly from all of them, the first always among them."""
    return [items[index * len(items) // count] for index in range(count)] if count < len(items) else list(items)


def _cap_px(cell: int) -> float:
    return min(14.0, max(7.0, cell / 22))


def _picture(ctx: Context, item: Item, cell: int) -> NDArray[np.uint8] | None:
    """Return a picture as RGB of at most `cell` px a side; None, with a warning, if it cannot be opened."""
    import numpy as np
    import pyvips

    try:
        small: Image = thumbnail(ctx.open_image(item), width=cell, height=cell, size="down")
        pixels: NDArray[np.uint8] = pixel_array(flattened(small.vips))
    except (Outcome, OSError, pyvips.Error) as error:
        ctx.warnings.append(f"agg.contact_sheet: {item.key} is left empty: {error}")
        return None
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3)) if pixels.shape[2] == 1 else pixels


def _caption(item: Item, caption: str) -> str:
    if caption == "name":
        return PurePosixPath(item.key).name
    value: Any = item.key if caption == "key" else item.attributes.get(caption, "")
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _card(sheet: NDArray[np.uint8], left: int, top: int, plan: Layout) -> None:
    bottom, right = top + plan.card_height, left + plan.card_width
    sheet[top:bottom, left:right] = _EDGE
    sheet[top + 1 : bottom - 1, left + 1 : right - 1] = _CARD


def _write(sheet: NDArray[np.uint8], text: str, corner: tuple[int, int], width: int, height: int, *, ink: int) -> None:
    """Draw a line of text in the middle of a rectangle."""
    import numpy as np

    left, top = corner
    cap = _cap_px(width * 10 // 11)
    line = rendered(elided(text, cap, width - 8), cap)
    rows, columns = min(line.shape[0], height), min(line.shape[1], width)
    x, y = left + (width - columns) // 2, top + (height - rows) // 2
    under = sheet[y : y + rows, x : x + columns].astype(np.float64)
    cover = line[:rows, :columns, None]
    sheet[y : y + rows, x : x + columns] = np.rint(under * (1 - cover) + ink * cover).astype(np.uint8)
