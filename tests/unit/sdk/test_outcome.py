"""Reasons are few words that people count by; everything else is detail. Delays are numbers of seconds."""

from __future__ import annotations

from typing import Any

import pytest

from pixloom import Filtered, Item, Reject, Retry
from pixloom.sdk.outcome import MAX_DELAY_S
from pixloom.sdk.record import Dropped


@pytest.mark.parametrize("kind", [Reject, Filtered, Retry])
@pytest.mark.parametrize("reason", ["TOO_SMALL", "A", "SEEN_2", "A" * 128])
def test_a_word_in_capitals_is_the_reason(kind: type[Reject | Filtered | Retry], reason: str) -> None:
    outcome = kind(reason, "3 px")
    assert (outcome.reason, outcome.detail, str(outcome)) == (reason, "3 px", f"{reason}: 3 px")


@pytest.mark.parametrize(
    ("reason", "detail", "expected"),
    [
        ("bad photos/3.png", "", "bad photos/3.png"),
        ("bad photos/3.png", "no pixels", "bad photos/3.png: no pixels"),
        ("too_small", "3 px", "too_small: 3 px"),
        ("TOO SMALL", "", "TOO SMALL"),
        ("BAD\n", "", "BAD\n"),
        ("3D", "", "3D"),
        ("A" * 129, "", "A" * 129),
        ("", "3 px", "3 px"),
        ("", "", ""),
    ],
)
@pytest.mark.parametrize("kind", [Reject, Filtered, Retry])
def test_any_other_text_becomes_detail(
    kind: type[Reject | Filtered | Retry], reason: str, detail: str, expected: str
) -> None:
    outcome = kind(reason, detail)
    assert (outcome.reason, outcome.detail) == ("OTHER", expected)


def test_a_retry_keeps_its_time() -> None:
    assert Retry("come back later", after_s=3.0).after_s == 3.0


def test_what_a_collection_op_drops_is_counted_by_words_too() -> None:
    item = Item(key="3.png")
    named, word = Dropped(item, "like 2.png"), Dropped(item, "DUPLICATE", "of 2.png")
    assert (named.reason, named.detail) == ("OTHER", "like 2.png")
    assert (word.reason, word.detail) == ("DUPLICATE", "of 2.png")


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, None), (6, 6.0), (2.5, 2.5), (-3.0, 0.0), (0, 0.0), (10**12, MAX_DELAY_S), (float("inf"), MAX_DELAY_S)],
)
def test_a_delay_lies_between_nothing_and_a_week(given: float | None, expected: float | None) -> None:
    assert Retry("BUSY", after_s=given).after_s == expected


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ("6", TypeError, "after_s of Retry is '6'; give seconds as a number"),
        (True, TypeError, "after_s of Retry is True"),
        (float("nan"), ValueError, "after_s of Retry is NaN"),
    ],
)
def test_a_delay_that_is_no_number_is_refused_where_the_op_raises(
    given: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        Retry("BUSY", after_s=given)
