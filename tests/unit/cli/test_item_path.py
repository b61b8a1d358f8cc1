from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from pixloom.cli.export import item_path


@pytest.mark.parametrize(
    ("key", "image_format", "expected"),
    [
        ("beach.jpg", "jpeg", "beach.jpg"),
        ("beach.JPEG", "jpeg", "beach.JPEG"),
        ("holiday/beach.png", "webp", "holiday/beach.webp"),
        ("beach", "png", "beach.png"),
        ("../../etc/passwd", None, "etc/passwd"),
        ("/photos/a.png", "png", "photos/a.png"),
        ("..\\..\\a.png", "png", "a.png"),
        ("", "png", "item.png"),
        ("a\n:b.png", "png", "a__b.png"),
    ],
)
def test_items_are_named_by_key_and_never_leave_their_folder(key: str, image_format: str | None, expected: str) -> None:
    assert item_path(key, image_format, set()) == PurePosixPath(expected)


def test_items_that_would_get_the_same_name_get_different_ones() -> None:
    taken: set[PurePosixPath] = set()

    names = [str(item_path(key, "jpeg", taken)) for key in ("a.png", "a.webp", "a.jpg", "a.jpg")]

    assert names == ["a.jpg", "a.webp.jpg", "a-2.jpg", "a-3.jpg"]
