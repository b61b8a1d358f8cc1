from __future__ import annotations

import pytest

from pixloom.cli.arguments import global_options_first, parse_assignments, parse_tags
from pixloom.errors import InvalidError


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["list", "-o", "json"], ["-o", "json", "list"]),
        (["get", "@latest", "--server=h:1", "--no-color"], ["--server=h:1", "--no-color", "get", "@latest"]),
        (["--server", "h:1", "list"], ["--server", "h:1", "list"]),
        (["run", "--", "-o"], ["run", "--", "-o"]),
        (["list", "-o"], ["-o", "list"]),
    ],
)
def test_global_options_may_stand_anywhere(words: list[str], expected: list[str]) -> None:
    assert global_options_first(words) == expected


def test_values_are_json_where_they_can_be() -> None:
    given = parse_assignments(["width=3", "name=a b", "flag=true", 'list=["a"]', "eq=a=b", "empty="])

    assert given == {"width": 3, "name": "a b", "flag": True, "list": ["a"], "eq": "a=b", "empty": ""}


@pytest.mark.parametrize("pairs", [["width"], ["=3"], ["a=1", "a=2"]])
def test_words_that_are_no_assignment_are_refused(pairs: list[str]) -> None:
    with pytest.raises(InvalidError):
        parse_assignments(pairs)


def test_tags_stay_strings() -> None:
    assert parse_tags(["n=3"]) == {"n": "3"}
