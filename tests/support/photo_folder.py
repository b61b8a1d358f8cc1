"""Folders with real photographs, those that come with scikit-image, and with files that are none."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

__all__ = ["broken_photos", "copy_photos", "photo_paths"]

_EXTENSIONS = frozenset({".gif", ".jpg", ".png", ".tif"})
# A stack of planes kept apart, which libvips does not read.
_UNREADABLE = "multipage_rgb.tif"


def photo_paths() -> list[Path]:
    """Return the image files in the wheel of scikit-image."""
    spec = find_spec("skimage")
    assert spec is not None, "install requirements/photos.lock"
    location = (spec.submodule_search_locations or [""])[0]
    paths = (Path(location) / "data").iterdir()
    return sorted(path for path in paths if path.suffix in _EXTENSIONS and path.name != _UNREADABLE)


def copy_photos(folder: Path) -> list[Path]:
    """Copy the photographs into a folder and return where they are now."""
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copy(path, folder)) for path in photo_paths()]


def broken_photos(folder: Path, count: int) -> list[Path]:
    """Write files into a folder that look like photographs and cannot be decoded: cut off, garbled, text, empty."""
    folder.mkdir(parents=True, exist_ok=True)
    photo = next(path for path in photo_paths() if path.name == "rocket.jpg").read_bytes()
    paths = []
    for number in range(count):
        contents = (
            photo[: 2000 + 97 * number],
            photo[:2] + bytes([number % 251]) * 4000,
            f"no photograph {number}\n".encode(),
            b"",
        )
        path = folder / f"broken-{number:03}.jpg"
        path.write_bytes(contents[number % len(contents)])
        paths.append(path)
    return paths
