"""The photographs of the scikit-image wheel, and files made from them."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyvips

from pixloom.sdk.context import Context
from pixloom.sdk.image import Image
from pixloom.sdk.record import Item

PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "hubble_deep_field.jpg",
    "motorcycle_left.png",
)


@cache
def folder() -> Path:
    spec = importlib.util.find_spec("skimage")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "data"


@cache
def pixels(name: str) -> Any:
    """Return the sRGB pixels of a photograph, without profile and metadata."""
    vips = pyvips.Image.new_from_file(str(folder() / name))[0:3].copy_memory()
    for field in vips.get_fields():
        if field.startswith(("icc", "exif")):
            vips.remove(field)
    return vips


def image(name: str) -> Image:
    return Image.from_file(folder() / name)


def written(vips: Any, suffix: str, **options: Any) -> bytes:
    data: bytes = vips.write_to_buffer(suffix, **options)
    return data


def reopened(vips: Any, suffix: str, **options: Any) -> Image:
    return Image.from_bytes(written(vips, suffix, **options))


def large(name: str, width: int, height: int) -> Any:
    vips = pixels(name)
    return vips.resize(width / vips.width, vscale=height / vips.height).copy_memory()


def with_orientation(vips: Any, orientation: int) -> Any:
    """Return the photograph as a camera held so would have stored it: upright again once the tag is applied."""
    array = vips.numpy()
    stored = {
        1: array,
        2: array[:, ::-1],
        3: array[::-1, ::-1],
        4: array[::-1],
        5: array.swapaxes(0, 1),
        6: np.rot90(array, 1),
        7: np.rot90(array, 2).swapaxes(0, 1),
        8: np.rot90(array, -1),
    }[orientation]
    tagged = pyvips.Image.new_from_array(np.ascontiguousarray(stored)).copy(interpretation="srgb")
    tagged.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    return tagged


def translucent() -> Image:
    """Return a photograph that is transparent on the left and opaque on the right."""
    photo = pixels("coffee.png")
    ramp = pyvips.Image.identity().resize(photo.width / 256, vscale=photo.height).cast("uchar")
    return reopened(photo.bandjoin(ramp), ".png")


def psnr(one: Any, other: Any) -> float:
    error = np.mean((np.asarray(one, dtype=float) - np.asarray(other, dtype=float)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def bits_between(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


class Shelf:
    """Files in memory that a collection op can open."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}

    def put(self, key: str, data: bytes, **attributes: Any) -> Item:
        self._files[key] = data
        return Item(key=key, uri=f"file:///{key}", attributes=attributes)

    def context(self) -> Context:
        return Context(
            open_bytes=lambda item: self._files[item.key],
            open_image=lambda item: Image.from_bytes(self._files[item.key]),
        )
