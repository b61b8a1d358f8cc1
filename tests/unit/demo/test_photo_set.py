from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
import pyvips

from pixloom.demo.broken import jpeg_bomb, png_bomb
from pixloom.demo.originals import find_originals
from pixloom.demo.photo_set import make_photo_set
from pixloom.errors import MachineError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def photo_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "photos"
    make_photo_set(folder)
    return folder


def test_there_are_at_least_150_files(photo_set: Path) -> None:
    assert sum(1 for _ in photo_set.iterdir()) >= 150


def test_every_kind_of_mishap_is_there(photo_set: Path) -> None:
    kinds = Counter(path.stem.rpartition("_")[2] for path in photo_set.iterdir())

    assert min(kinds[kind] for kind in ("copy", "copy-2", "cut-off", "misnamed", "bomb", "turned-6")) >= 1
    assert {"shopping-list.jpg", "notes.jpg", "empty.jpg", "poster-bomb.png"} <= {
        path.name for path in photo_set.iterdir()
    }


def test_set_that_is_there_is_not_made_again(photo_set: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in photo_set.iterdir()}

    assert make_photo_set(photo_set) == len(before)
    assert {path.name: path.stat().st_mtime_ns for path in photo_set.iterdir()} == before


def test_same_set_comes_out_again(photo_set: Path, tmp_path: Path) -> None:
    make_photo_set(tmp_path / "again")

    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == {
        path.name: path.read_bytes() for path in photo_set.iterdir()
    }


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_turned_photographs_are_upright_for_who_honours_exif(photo_set: Path, orientation: int) -> None:
    turned = next(photo_set.glob(f"*_turned-{orientation}.jpg"))
    name = turned.name.partition("_turned")[0]
    original = next(path for path in find_originals() if path.stem == name)

    upright = pyvips.Image.thumbnail(str(turned), 64, height=64, size="force").colourspace("b-w")
    expected = pyvips.Image.thumbnail(str(original), 64, height=64, size="force").colourspace("b-w")

    assert pyvips.Image.new_from_file(str(turned)).get("orientation") == orientation
    assert (upright - expected).abs().avg() < 6


@pytest.mark.parametrize("name", ["poster-bomb.png", "*_bomb.jpg"])
def test_bombs_are_small_and_claim_a_billion_pixels(photo_set: Path, name: str) -> None:
    path = next(photo_set.glob(name))
    header = pyvips.Image.new_from_file(str(path))

    assert header.width * header.height >= 1e9
    assert path.stat().st_size < 200_000


def test_jpeg_without_a_frame_header_is_no_bomb() -> None:
    with pytest.raises(ValueError, match="no frame header"):
        jpeg_bomb(b"\xff\xd8\xff\xd9")
    assert png_bomb() == png_bomb()


def test_folder_that_cannot_be_written_is_the_machines_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(MachineError, match="--data-dir"):
        make_photo_set(tmp_path / "file" / "photos")
