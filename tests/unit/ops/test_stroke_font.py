from __future__ import annotations

import string
from typing import Any

import numpy as np
import pytest

from pixloom_executor.ops.stroke_font import GLYPHS, elided, line_height, rendered, text_width


def test_every_printable_ascii_character_has_a_glyph() -> None:
    assert set(string.printable) - set(string.whitespace) | {" "} <= set(GLYPHS)


@pytest.mark.parametrize("cap_px", [7.0, 9.1, 14.0])
def test_glyphs_stay_inside_their_box_and_differ(cap_px: Any) -> None:
    drawn = {character: rendered(character, cap_px) for character in GLYPHS if character != " "}
    for character, coverage in drawn.items():
        assert coverage.max() > 0.5, character
        assert coverage.min() >= 0, character
        assert coverage.max() <= 1, character
    pictures = {(coverage.shape, coverage.tobytes()) for coverage in drawn.values()}
    assert len(pictures) == len(drawn)


def test_width_is_that_of_what_is_drawn() -> None:
    assert rendered("photo_1.jpg", 9.0).shape == (line_height(9.0), text_width("photo_1.jpg", 9.0))


def test_accents_are_left_off_and_unknown_characters_are_boxes() -> None:
    assert np.array_equal(rendered("\u00e9t\u00e9", 9.0), rendered("ete", 9.0))
    assert rendered("\u65e5", 9.0).max() > 0.5


def test_long_text_is_shortened_in_the_middle() -> None:
    shortened = elided("a_very_long_name_of_a_file_0001.jpeg", 9.0, 120)
    assert text_width(shortened, 9.0) <= 120
    assert "\u2026" in shortened
    assert shortened.startswith("a_")
    assert shortened.endswith("eg")


def test_short_text_stays_and_no_room_gives_nothing() -> None:
    assert elided("a.jpg", 9.0, 500) == "a.jpg"
    assert elided("a.jpg", 9.0, 1) == ""


def test_nothing_is_drawn_for_empty_text() -> None:
    assert rendered("", 9.0).sum() == 0
