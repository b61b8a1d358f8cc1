"""The demo's photo set: originals, and what happens to photographs in the wild, made with fixed seeds.

Every photograph comes as itself, cropped to a detail, re-encoded at lower quality, resized, shrunk as messengers do, turned with an EXIF
orientation, and in other formats; some come as exact copies. A few files are broken: cut off, with the wrong
extension, a text named .jpg, and headers that claim a billion pixels.
"""

from __future__ import annotations

import hashlib
import random
import shutil
from typing import TYPE_CHECKING, Any, Final

from pixloom.demo.broken import jpeg_bomb, png_bomb, text_as_jpeg, truncated
from pixloom.demo.originals import find_originals
from pixloom.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["make_photo_set"]

_RECIPE: Final = 1
"""Raised whenever the set changes, so that one made by an older version is made again."""
_MAX_SIDE_PX: Final = 1024
# How pixels must lie in the file so that a viewer who honours the EXIF orientation shows them upright (Exif 2.32, tag
# 0x0112): 3 is shown turned by 180°, 6 by 90° clockwise, 8 by 270°.
_TURNS: Final = {3: "d180", 6: "d270", 8: "d90"}


def make_photo_set(folder: Path) -> int:
    """Make the photo set unless it is there.

    Args:
        folder: Where it is to lie; appears as a whole or not at all.

    Returns:
        Number of files in it.

    Raises:
        MachineError: If the photographs are not installed or the folder cannot be written.
    """
    originals = find_originals()
    digest = hashlib.sha256(repr((_RECIPE, [path.name for path in originals])).encode()).hexdigest()
    stamp = folder.with_name(f".{folder.name}.{digest[:16]}")
    if folder.is_dir() and stamp.exists():
        return sum(1 for _ in folder.iterdir())
    partial = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        count = 0
        for name, data in _files(originals):
            (partial / name).write_bytes(data)
            count += 1
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        stamp.touch()
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise MachineError(
            f"The demo's photographs cannot be written to {folder}: {error.strerror or error}. "
            "Is there room on the disk? Choose another place with --data-dir."
        ) from error
    return count


def _files(originals: list[Path]) -> Iterator[tuple[str, bytes]]:
    for index, path in enumerate(originals):
        yield path.name, path.read_bytes()
        yield from _variants(path, index)
    yield "shopping-list.jpg", text_as_jpeg(1)
    yield "notes.jpg", text_as_jpeg(2)
    yield "empty.jpg", b""
    yield "poster-bomb.png", png_bomb()


def _variants(path: Path, index: int) -> Iterator[tuple[str, bytes]]:
    chance = random.Random(f"{_RECIPE} {path.name}")  # noqa: S311 - variety, not secrets
    # An underscore sorts behind a dot: the original comes first in the folder, and is the one kept of its duplicates.
    name = path.stem
    photo = _load(path)
    jpeg = _jpeg(photo, quality=chance.randint(88, 94))
    yield f"{name}_reencoded.jpg", _jpeg(photo, quality=chance.randint(45, 70))
    yield f"{name}_small.jpg", _jpeg(photo.resize(chance.uniform(0.4, 0.6)), quality=85)
    yield f"{name}_medium.jpg", _jpeg(photo.resize(chance.uniform(0.7, 0.9)), quality=80)
    yield f"{name}_messenger.jpg", _jpeg(photo.thumbnail_image(400), quality=chance.randint(30, 40))
    orientation = (3, 6, 8)[index % 3]
    yield f"{name}_turned-{orientation}.jpg", _jpeg(_turned(photo, orientation), quality=90)
    yield f"{name}_web.webp", photo.webpsave_buffer(Q=75, effort=0, keep="none")
    yield f"{name}_detail.jpg", _jpeg(_detail(photo, chance), quality=90)
    yield from _mishaps(name, index, jpeg, chance)


def _mishaps(name: str, index: int, jpeg: bytes, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield what goes wrong with one photograph in a few, each with another one."""
    match index % 6:
        case 0:
            yield f"{name}_copy.jpg", jpeg
            yield f"{name}_copy-2.jpg", jpeg
        case 1 | 4:
            yield f"{name}_cut-off.jpg", truncated(jpeg, chance.uniform(0.3, 0.7))
        case 2:
            yield f"{name}_misnamed.png", jpeg
        case 3:
            yield f"{name}_bomb.jpg", jpeg_bomb(jpeg)
        case _:
            yield f"{name}_copy.jpg", jpeg


def _load(path: Path) -> Any:
    """Return the pixels as sRGB or grey without alpha, at most `_MAX_SIDE_PX` wide and high."""
    import pyvips

    image = pyvips.Image.thumbnail(str(path), _MAX_SIDE_PX, height=_MAX_SIDE_PX, size="down")
    return (image.flatten() if image.hasalpha() else image).copy_memory()


def _jpeg(image: Any, *, quality: int) -> bytes:
    # Encoders of other builds give other bytes; what is fixed is which variants there are.
    data: bytes = image.jpegsave_buffer(Q=quality, keep="exif")
    return data


def _turned(image: Any, orientation: int) -> Any:
    turned = image.rot(_TURNS[orientation]).copy()
    turned.set_type(_gint_type(), "orientation", orientation)
    return turned


def _gint_type() -> int:
    import pyvips

    number: int = pyvips.GValue.gint_type
    return number


def _detail(image: Any, chance: random.Random) -> Any:
    """Return about a quarter of the picture, from somewhere off its centre."""
    width, height = int(image.width * 0.5), int(image.height * 0.5)
    left = chance.choice((0, image.width - width))
    top = chance.choice((0, image.height - height))
    return image.crop(left, top, width, height)
