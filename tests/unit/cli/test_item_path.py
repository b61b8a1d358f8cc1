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
    assert item_path(key, image_format, {}) == PurePosixPath(expected)


def test_items_that_would_get_the_same_name_get_different_ones() -> None:
    taken: dict[str, int] = {}

    names = [str(item_path(key, "jpeg", taken)) for key in ("a.png", "a.webp", "a.jpg", "a.jpg")]

    assert names == ["a.jpg", "a.webp.jpg", "a-2.jpg", "a-3.jpg"]


def test_names_differ_by_more_than_case_as_some_disks_see_none() -> None:
    taken: dict[str, int] = {}

    names = [str(item_path(key, "jpeg", taken)) for key in ("Beach.jpg", "beach.JPG", "beach-2.jpg")]

    assert names == ["Beach.jpg", "beach-2.JPG", "beach-2-2.jpg"]


def test_each_of_many_equal_keys_costs_the_same() -> None:
    class Counted(dict[str, int]):
        asked = 0

        def __contains__(self, key: object) -> bool:
            self.asked += 1
            return super().__contains__(key)

    taken = Counted()

    for _ in range(1000):
        item_path("a.jpg", "jpeg", taken)

    assert taken.asked <= 3000
