"""The photographs that the demo starts from: those in the wheels of scikit-image and scikit-learn."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from pixloom.errors import MachineError

__all__ = ["find_originals"]

# Test patterns, logos, scans and pages of text in the same folders are left out, and so is the brick wall: a pattern
# that repeats itself is no test for near duplicates.
_PLACES: Final[tuple[tuple[str, str, tuple[str, ...]], ...]] = (
    (
        "skimage",
        "data",
        (
            "astronaut.png",
            "camera.png",
            "chelsea.png",
            "clock_motion.png",
            "coffee.png",
            "coins.png",
            "grass.png",
            "gravel.png",
            "hubble_deep_field.jpg",
            "ihc.png",
            "moon.png",
            "motorcycle_left.png",
            "motorcycle_right.png",
            "retina.jpg",
            "rocket.jpg",
        ),
    ),
    ("sklearn", "datasets/images", ("china.jpg", "flower.jpg")),
)


def find_originals() -> list[Path]:
    """Return the photographs that are installed, without importing the packages they come with.

    Raises:
        MachineError: If there are none.
    """
    found = []
    for package, folder, names in _PLACES:
        spec = find_spec(package)
        for location in (spec.submodule_search_locations if spec else None) or ():
            found += [path for name in names if (path := Path(location) / folder / name).is_file()]
    if not found:
        raise MachineError(
            "The photographs of the demo are not installed. "
            "Install requirements/photos.lock, or name a folder of your own: pixloom demo FOLDER."
        )
    return found
